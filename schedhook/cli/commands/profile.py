"""`schedhook profile`: from a profiler's log to pages on the nodes that use them."""

from __future__ import annotations

import os
import stat
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

import click

from schedhook.cli.commands.completion import names_of
from schedhook.cli.options import (
    NAME,
    NumberType,
    check_processes,
    common_options,
    json_option,
    load,
    moving_arguments,
    moving_options,
    process_options,
)
from schedhook.cli.running import carry_out, print_report
from schedhook.host import cgroups
from schedhook.host.topology import read_topology
from schedhook.jobs.lookup import find_pids
from schedhook.migration.profiling.reading import Format, read_profile
from schedhook.migration.profiling.summary import summarise
from schedhook.migration.profiling.survey import survey
from schedhook.plugins.descriptors import StrategyPlugin
from schedhook.roles.guidance import MIN_SAMPLES, MIN_SHARE, Guidance
from schedhook.roles.profile import CAPACITY
from schedhook.roles.request import Request
from schedhook.values.errors import UsageError


@click.command("profile")
@click.argument("log")
@process_options
@click.option(
    "--format",
    "kind",
    type=click.Choice([each.value for each in Format]),
    default=Format.AUTO.value,
    show_default=True,
    help="How the log is written.",
)
@click.option(
    "--min-samples",
    type=click.IntRange(min=1),
    default=MIN_SAMPLES,
    show_default=True,
    help="Leave pages alone that have fewer.",
)
@click.option(
    "--min-share",
    type=NumberType(min=0, max=1),
    default=MIN_SHARE,
    show_default=True,
    help="Leave pages alone of whose accesses no node has this share.",
)
@click.option("--cache-hits", is_flag=True, help="Count what a cache answered, too.")
@click.option(
    "--most-counters",
    type=click.IntRange(min=1000),
    default=CAPACITY,
    show_default=True,
    help="Bound on memory, 130 bytes for each page and node; the least used are dropped.",
)
@click.option(
    "--strategy",
    type=NAME,
    metavar="NAME",
    default="profile-guided",
    show_default=True,
    shell_complete=names_of(StrategyPlugin),
    help="Who decides.",
)
@click.option("--move", is_flag=True, help="Move the pages; without it only the plan is shown.")
@moving_options
@json_option
@common_options
def command(
    log: str,
    pids: tuple[int, ...],
    cgroup: str | None,
    job: str | None,
    scheduler: str | None,
    kind: str,
    min_samples: int,
    min_share: float,
    cache_hits: bool,
    most_counters: int,
    move: bool,
    kinds: str | None,
    shared: str | None,
    bandwidth: float | None,
    reserve: int | None,
    config_path: Path | None,
    root: Path,
    as_json: bool,
    strategy: str,
    **rest: Any,
) -> int:
    """Propose for each page the node that uses it most, by LOG, a profiler's record of accesses.

    LOG is what `perf script` printed, CSV, or JSON lines; `-` is standard input. Only nodes on
    whose processors the processes may run are proposed. Nothing moves without --move. The exit
    status is that of `schedhook relocate`.
    """
    check_processes(pids, cgroup, job)
    config, plugins = load(config_path)
    if plugins.strategy(strategy).choose_nodes is None:
        raise UsageError(
            f"the strategy {strategy!r} does not decide page by page, and has no use for a profile"
        )
    members = pids
    if cgroup is not None:
        members = tuple(cgroups.pids(cgroups.resolve_cgroup(cgroup, root), root))
    elif job is not None:
        members = find_pids(plugins, job, scheduler, root)
    topology = read_topology(root)
    try:
        with _open(log) as file:
            profile, tally = read_profile(
                file,
                topology,
                kind=Format(kind),
                capacity=most_counters,
                count_cache_hits=cache_hits,
            )
            recorded = _written(file)
    except OSError as error:
        raise UsageError(f"{log}: {error.strerror}") from error
    found = survey(profile, members, topology, recorded=recorded, root=root)
    del profile
    if not any(each.total for each in found.accesses.values()):
        raise UsageError(
            f"{log}: no usable sample is of these processes: {found.gone} are of processes that"
            f" have exited, {found.others} of others"
        )
    guidance = Guidance(
        accesses=found.accesses, nodes=found.nodes, min_samples=min_samples, min_share=min_share
    )
    request = Request(
        pids=pids,
        cgroup=cgroup,
        job=job,
        scheduler=scheduler,
        strategy=strategy,
        guidance=guidance,
        dry_run=not move,
        **moving_arguments(kinds, shared, bandwidth, reserve),
        **rest,
    )
    report = carry_out(request, config, plugins, root, as_json)
    summary = summarise(tally, found, guidance)
    print_report(report, as_json, {"profile": asdict(summary)})
    if not as_json:
        from schedhook.cli.output.report import print_profile

        print_profile(summary)
    return report.outcome.exit_status


def _open(log: str) -> BinaryIO:
    return sys.stdin.buffer if log == "-" else Path(log).open("rb")


def _written(log: BinaryIO) -> float | None:
    """When the log was written last, in seconds after the epoch; None where it is no file."""
    try:
        found = os.fstat(log.fileno())
    except OSError:
        return None
    return found.st_mtime if stat.S_ISREG(found.st_mode) else None
