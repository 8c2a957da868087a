"""`schedhook plugins`: what is installed, and from which package."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from schedhook.cli.loading import load
from schedhook.cli.options.common import common_options, json_option
from schedhook.plugins.manager import Plugins


@click.command("plugins")
@json_option
@common_options
def command(as_json: bool, config_path: Path | None, **_: Any) -> int:
    """List the names that configuration and options accept, their packages, and what is broken.

    Exit status: 0, or 1 if a plug-in could not be loaded.
    """
    plugins = load(config_path)[1]
    listed, problems = _list(plugins), _list_problems(plugins)
    if as_json:
        click.echo(json.dumps({"plugins": listed, "problems": problems}, ensure_ascii=False))
    else:
        from schedhook.cli.output.plugins import print_plugins

        print_plugins(listed, problems)
    return 1 if problems else 0


def _list(plugins: Plugins) -> list[dict[str, str]]:
    return [
        {
            "role": each.role,
            "name": each.name,
            "summary": each.summary,
            "provider": each.source.name,
            "package": each.source.package,
        }
        for each in plugins.listing()
    ]


def _list_problems(plugins: Plugins) -> list[dict[str, str]]:
    return [
        {
            "provider": each.source.name,
            "package": each.source.package,
            "problem": each.what,
        }
        for each in plugins.problems
    ]
