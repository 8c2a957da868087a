"""`schedhook doctor`: what works here, and what to do about the rest."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

from schedhook.cli.doctor.host_checks import examine
from schedhook.cli.options import common_options, json_option, load
from schedhook.plugins.findings import Level, problem
from schedhook.plugins.loading import load_plugins
from schedhook.values.config import Config
from schedhook.values.errors import ConfigError


@click.command("doctor")
@json_option
@common_options
def command(as_json: bool, config_path: Path | None, root: Path) -> int:
    """What this host, kernel, user and set-up allow, each line with its remedy.

    Nothing is changed. Exit status: 0, or 1 where something does not work; notes do not count.
    """
    findings = []
    try:
        config, plugins = load(config_path)
    except ConfigError as error:
        what = "cannot be used; what follows holds for the defaults"
        findings.append(problem("configuration", what, str(error)))
        config = Config()
        plugins = load_plugins(config)
    findings += examine(config, plugins, root)
    if as_json:
        click.echo(json.dumps({"findings": [asdict(each) for each in findings]}))
    else:
        from schedhook.cli.output.tables import print_findings

        print_findings(findings)
    return 1 if any(each.level is Level.PROBLEM for each in findings) else 0
