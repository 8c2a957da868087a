"""Options that name processes: --pid, --cgroup, --job, --scheduler."""

from __future__ import annotations

from pathlib import Path

import click

from schedhook.cli.completion import complete_jobs, names_of
from schedhook.cli.options.common import grouped
from schedhook.cli.options.types import NAME, WholeType
from schedhook.host.cgroups import resolve_cgroup
from schedhook.plugins.descriptors import SchedulerPlugin
from schedhook.values.errors import UsageError

scheduler_option = click.option(
    "--scheduler",
    type=NAME,
    metavar="NAME",
    shell_complete=names_of(SchedulerPlugin),
    help="Only jobs of this scheduler: slurm, pbs, or one that a plug-in adds; default: of all.",
)

process_options = grouped(
    click.option(
        "--pid",
        "pids",
        type=WholeType(min=1),
        multiple=True,
        metavar="PID",
        help="This process, such as 4711; repeat the option for several.",
    ),
    click.option(
        "--cgroup",
        metavar="PATH",
        help="All processes of this cgroup and of those below it, such as"
        " /system.slice/slurmstepd.scope/job_7.",
    ),
    click.option(
        "--job",
        type=NAME,
        metavar="ID",
        shell_complete=complete_jobs,
        help="All processes of this job on this host, written as its scheduler writes it: 4711,"
        " 36_2 or 50+1 for Slurm, 12[3] for PBS.",
    ),
    click.option(
        "--scheduler",
        type=NAME,
        metavar="NAME",
        shell_complete=names_of(SchedulerPlugin),
        help="The job's scheduler: slurm, pbs, or one that a plug-in adds; default: the first that"
        " knows the job.",
    ),
)


def check_processes(pids: tuple[int, ...], cgroup: str | None, job: str | None) -> None:
    """Raise UsageError unless exactly one of --pid, --cgroup and --job was given."""
    named = sum((bool(pids), cgroup is not None, job is not None))
    if named != 1:
        raise UsageError(
            "name the processes: one of --pid PID (repeat it for several), --cgroup PATH, --job ID"
        )


def check_cgroup(cgroup: str | None, root: Path, *, force: bool) -> None:
    """Raise UsageError for the top of a hierarchy of cgroups, unless `force`."""
    if cgroup is not None and not force and resolve_cgroup(cgroup, root).name == "/":
        raise UsageError(
            f"--cgroup {cgroup} has every process of the host, daemons included: name the cgroup"
            " of a job, or give --force as well"
        )
