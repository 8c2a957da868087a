"""`schedhook setup`: place the shipped files on this host, and check the result."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import click

from schedhook.cli.doctor.examination import examine
from schedhook.cli.loading import load
from schedhook.cli.options.common import config_option
from schedhook.cli.options.types import FILE, PathType
from schedhook.cli.setup import steps
from schedhook.cli.setup.targets import (
    Setup,
    metrics_setup,
    pbs_setup,
    shell_setup,
    slurm_setup,
    spank_setup,
    systemd_setup,
)
from schedhook.plugins.findings import Severity
from schedhook.values.config import Config
from schedhook.values.errors import UsageError

_INSTALLERS = ("slurm", "pbs")
"""Targets with an installer of their own, which shows what it would do."""


@click.command("setup")
@click.argument(
    "target", type=click.Choice(["slurm", "spank", "pbs", "systemd", "metrics", "shell"])
)
@click.option("--dry-run", is_flag=True, help="Say what would be done and change nothing.")
@click.option("--undo", is_flag=True, help="Remove what this command has placed.")
@click.option(
    "--directory",
    type=PathType(files=False),
    metavar="DIR",
    help="slurm: where the hooks go, on a local disk, and spank: the plug-in. [default:"
    " /etc/slurm/schedhook] shell: in place of /usr/local/share.",
)
@click.option(
    "--hook-config",
    type=FILE,
    metavar="FILE",
    help="pbs: the hook's configuration in place of the shipped schedhook.CF.",
)
@config_option
def command(
    target: str,
    dry_run: bool,
    undo: bool,
    directory: Path | None,
    hook_config: Path | None,
    config_path: Path | None,
) -> int:
    """Set up TARGET on this host, as root: its shipped files, with this installation's paths.

    systemd: the agent's unit and the spool. slurm: the hooks and job-migrate, and the lines for
    slurm.conf. spank: Slurm's option --relocation, built for the Slurm of this host. pbs, on PBS's
    server: the hook, through qmgr. metrics: what the agent needs for the configured textfile, and
    where dashboard and alerts are. shell: the manual pages, and the completions of bash, zsh and
    fish.

    Then checks it as doctor does. Exit status: 0, or 1 if something does not work.
    """
    if directory is not None and target not in ("slurm", "spank", "shell"):
        raise UsageError("--directory is for `setup slurm`, `setup spank` and `setup shell`")
    if hook_config is not None and target != "pbs":
        raise UsageError("--hook-config is for `setup pbs`")
    directory = directory.absolute() if directory is not None else None
    config, plugins = load(config_path)
    setup = _setup(target, config, directory, hook_config, dry_run=dry_run, undo=undo)
    with setup as its:
        # An installer is run in any case: it is told to change nothing.
        act = steps.undo if undo else steps.carry_out
        act(its.steps, dry_run=dry_run and target not in _INSTALLERS)
    if undo:
        return 0
    for line in its.left:
        click.echo(line)
    if dry_run or not its.subjects:
        return 0
    from schedhook.cli.output.findings import print_findings

    found = [
        each
        for each in examine(config, plugins, Path("/"))
        if each.subject.startswith(tuple(its.subjects))
    ]
    print_findings(found)
    return 1 if any(each.level is Severity.PROBLEM for each in found) else 0


def _setup(
    target: str,
    config: Config,
    directory: Path | None,
    hook_config: Path | None,
    *,
    dry_run: bool,
    undo: bool,
) -> AbstractContextManager[Setup]:
    if target == "pbs":
        return pbs_setup(config, hook_config, dry_run)
    if target == "spank":
        return nullcontext(spank_setup(directory, undo=undo))
    if target == "slurm":
        return nullcontext(slurm_setup(directory, dry_run))
    if target == "shell":
        return nullcontext(shell_setup(directory))
    if target == "systemd":
        return nullcontext(systemd_setup())
    return nullcontext(metrics_setup(config, undo=undo))
