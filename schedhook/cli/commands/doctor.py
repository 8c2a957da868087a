"""`schedhook doctor`: what works on this host, and what to do about the rest."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

from schedhook.cli.doctor.examination import examine
from schedhook.cli.loading import load
from schedhook.cli.options.common import common_options, json_option
from schedhook.plugins.findings import Severity, problem
from schedhook.plugins.loading import load_plugins
from schedhook.values.config import Config
from schedhook.values.errors import ConfigError


@click.command("doctor")
@json_option
@common_options
def command(as_json: bool, config_path: Path | None, root: Path) -> int:
    """Check what this host, kernel, user and set-up allow; each line has its remedy.

    Changes nothing, except that relocations that were killed are rolled back. Exit status: 0, or 1
    if something does not work; notes do not count.
    """
    findings = []
    try:
        config, plugins = load(config_path)
    except ConfigError as error:
        what = "not usable; the checks below use the defaults"
        findings.append(problem("configuration", what, str(error)))
        config = Config()
        plugins = load_plugins(config)
    findings += examine(config, plugins, root)
    if as_json:
        click.echo(json.dumps({"findings": [asdict(each) for each in findings]}))
    else:
        from schedhook.cli.output.findings import print_findings

        print_findings(findings)
    return 1 if any(each.level is Severity.PROBLEM for each in findings) else 0
