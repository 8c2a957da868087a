"""`schedhook plugins`: what is installed, and from where."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from schedhook.cli.options import common_options, json_option, load


@click.command("plugins")
@json_option
@common_options
def command(as_json: bool, config_path: Path | None, **_: Any) -> int:
    """What can be named in configuration and options, who provides it, and what is broken.

    Exit status: 0, or 1 where a plug-in could not be loaded.
    """
    plugins = load(config_path)[1]
    listed = [
        {
            "role": each.role,
            "name": each.name,
            "summary": each.summary,
            "provider": each.source.name,
            "package": each.source.package,
        }
        for each in plugins.listing()
    ]
    problems = [
        {
            "provider": each.source.name,
            "package": each.source.package,
            "problem": each.what,
        }
        for each in plugins.problems
    ]
    if as_json:
        click.echo(json.dumps({"plugins": listed, "problems": problems}, ensure_ascii=False))
    else:
        from schedhook.cli.output.tables import print_plugins

        print_plugins(listed, problems)
    return 1 if problems else 0
