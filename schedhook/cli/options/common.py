"""Options that nearly every command has: --json, --config, --root."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from schedhook.cli.options.types import FILE, PathType

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def grouped(*options: Decorator) -> Decorator:
    """Return one decorator that adds all `options`; help lists them in this order."""

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return add


def configured(default: object) -> str:
    """Return how help says that the configuration decides, and what `default` it has."""
    return f"[default: as configured, else {default}]"


json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object instead of text for people."
)

config_option = click.option(
    "--config",
    "config_path",
    type=FILE,
    metavar="FILE",
    help="Configuration file; default: $SCHEDHOOK_CONFIG, else /etc/schedhook/config.toml.",
)

common_options = grouped(
    config_option,
    click.option(
        "--root",
        type=PathType(files=False, exists=True),
        default=Path("/"),
        show_default=True,
        metavar="DIR",
        help="Read /proc and /sys below this directory, a snapshot of a host.",
    ),
)
"""--config and --root."""
