"""`schedhook profile`: from a profiler's log to pages on the nodes that use them."""

from __future__ import annotations

import os
import stat
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

import click

from schedhook.cli.loading import load
from schedhook.cli.options.common import common_options, json_option
from schedhook.cli.options.moving import moving_arguments, moving_options
from schedhook.cli.options.processes import check_cgroup, check_processes, process_options
from schedhook.cli.options.profile import profile_options
from schedhook.cli.running import carry_out, print_report
from schedhook.host import cgroups
from schedhook.host.topology import read_topology
from schedhook.jobs.lookup import find_job
from schedhook.migration.profiling.hints import Format
from schedhook.migration.profiling.reading import read_profile
from schedhook.migration.profiling.samples import Tally
from schedhook.migration.profiling.summary import Summary, summarise
from schedhook.migration.profiling.survey import Survey, survey
from schedhook.plugins.manager import Plugins
from schedhook.roles.guidance import Guidance
from schedhook.roles.request import Request
from schedhook.values.errors import UsageError


@click.command("profile")
@click.argument("log")
@process_options
@profile_options
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
    **same: Any,
) -> int:
    """Propose for each page the node that uses it most, by LOG, a profiler's record of accesses.

    LOG is the output of `perf script`, CSV, or JSON lines; `-` is standard input. Only nodes on
    whose processors the processes may run are proposed. Nothing moves without --move. Exit status
    as for `schedhook relocate`.
    """
    check_processes(pids, cgroup, job)
    check_cgroup(cgroup, root, force=same["force"] or not move)
    config, plugins = load(config_path)
    _check_strategy(plugins, strategy)
    members = pids or _find_members(cgroup, job, scheduler, plugins, root)
    tally, found = _survey(
        log,
        members,
        root,
        kind=Format(kind),
        capacity=most_counters,
        count_cache_hits=cache_hits,
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
        **same,
    )
    report = carry_out(request, config, plugins, root, as_json)
    summary = summarise(tally, found, guidance)
    print_report(report, as_json, {"profile": asdict(summary)})
    if not as_json:
        _print_summary(summary)
    return report.outcome.exit_status


def _check_strategy(plugins: Plugins, strategy: str) -> None:
    """Raise UsageError unless the strategy decides page by page."""
    if plugins.strategy(strategy).choose_nodes is None:
        raise UsageError(
            f"the strategy {strategy!r} does not decide page by page and cannot use a profile;"
            " choose profile-guided"
        )


def _find_members(
    cgroup: str | None, job: str | None, scheduler: str | None, plugins: Plugins, root: Path
) -> tuple[int, ...]:
    """Return the processes of the cgroup or of the job."""
    if cgroup is not None:
        return tuple(cgroups.pids(cgroups.resolve_cgroup(cgroup, root), root))
    assert job is not None
    return find_job(plugins, job, scheduler, root).pids


def _survey(log: str, members: tuple[int, ...], root: Path, **how: Any) -> tuple[Tally, Survey]:
    """Read the log, and return what was read and the accesses of `members` in it.

    `how` are options of read_profile. Raise UsageError if the log cannot be read, or has no usable
    sample of these processes.
    """
    topology = read_topology(root)
    try:
        with _open(log) as file:
            profile, tally = read_profile(file, topology, **how)
            recorded = _last_written(file)
    except OSError as error:
        remedy = "name a file with a profiler's log, or - for standard input"
        raise UsageError(f"cannot read {log}: {error.strerror}; {remedy}") from error
    found = survey(profile, members, topology, recorded=recorded, root=root)
    if not any(each.total for each in found.accesses.values()):
        raise UsageError(
            f"{log}: no usable sample of these processes: {found.gone} are of processes that have"
            f" exited, {found.others} of other processes; record these while they run"
        )
    return tally, found


def _open(log: str) -> BinaryIO:
    return sys.stdin.buffer if log == "-" else Path(log).open("rb")


def _last_written(log: BinaryIO) -> float | None:
    """Return when the log was last written, in seconds since the epoch; None if it is no file."""
    try:
        found = os.fstat(log.fileno())
    except OSError:
        return None
    return found.st_mtime if stat.S_ISREG(found.st_mode) else None


def _print_summary(summary: Summary) -> None:
    from schedhook.cli.output.profile import print_profile

    print_profile(summary)
