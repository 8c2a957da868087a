"""`schedhook profile`: from a profiler's log to pages on the nodes that use them."""

from __future__ import annotations

import os
import stat
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO

import click

from schedhook.cli.loading import load
from schedhook.cli.options.common import common_options, json_option
from schedhook.cli.options.moving import moving_arguments, moving_options
from schedhook.cli.options.processes import check_cgroup, check_processes, process_options
from schedhook.cli.options.profile import profile_options
from schedhook.cli.running import carry_out, print_report
from schedhook.cli.signals import until_stopped
from schedhook.host import cgroups
from schedhook.host.topology import Topology, read_topology
from schedhook.jobs.lookup import find_job
from schedhook.migration.profiling.hints import Format
from schedhook.migration.profiling.reading import read_profile
from schedhook.migration.profiling.recording import Source, printed, record
from schedhook.migration.profiling.summary import Summary, Taken, summarise
from schedhook.migration.profiling.survey import Survey, survey
from schedhook.plugins.manager import Plugins
from schedhook.roles.guidance import Guidance
from schedhook.roles.request import Request
from schedhook.values.errors import UsageError


@click.command("profile")
@click.argument("log", required=False)
@process_options
@profile_options
@moving_options
@json_option
@common_options
def command(
    log: str | None,
    seconds: float | None,
    source: str | None,
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

    LOG is the output of `perf script`, CSV, or JSON lines; `-` is standard input. With --record,
    perf records the accesses now, and there is no LOG. Only nodes on whose processors the processes
    may run are proposed. Nothing moves without --move. Exit status as for `schedhook relocate`.
    """
    check_processes(pids, cgroup, job)
    check_cgroup(cgroup, root, force=same["force"] or not move)
    config, plugins = load(config_path)
    _check_strategy(plugins, strategy)
    members = pids or _find_members(cgroup, job, scheduler, plugins, root)
    how = {"capacity": most_counters, "count_cache_hits": cache_hits}
    if seconds is not None:
        _check_record(log, root)
        wanted = Source(source) if source else None
        taken = _record(members, seconds, wanted, how)
    elif log is None:
        raise UsageError("name a LOG of accesses, or record them now: --record 30s")
    else:
        taken = _read(log, read_topology(root), {**how, "kind": Format(kind)})
    found = _survey(taken, log, members, root)
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
    summary = summarise(taken, found, guidance)
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


def _check_record(log: str | None, root: Path) -> None:
    """Raise UsageError for options that contradict --record."""
    if log is not None:
        raise UsageError("--record makes a log of its own: leave out LOG")
    if root != Path("/"):
        raise UsageError("--record is for processes of this host: leave out --root")


def _record(
    members: tuple[int, ...], seconds: float, wanted: Source | None, how: Mapping[str, Any]
) -> Taken:
    """Record the processes' accesses now, and read them. Raises what `record` raises."""
    with until_stopped(), TemporaryDirectory(prefix="schedhook-") as directory:
        data = Path(directory, "perf.data")
        recording = record(members, seconds, data, wanted)
        ended = time.time()
        try:
            with printed(data, recording) as text:
                profile, tally = read_profile(text, read_topology(), kind=Format.PERF, **how)
        except UsageError as error:
            raise UsageError(f"{error}{recording.explain_empty()}") from error
        return Taken(profile, tally, ended, recording)
    raise click.Abort


def _read(log: str, topology: Topology, how: Mapping[str, Any]) -> Taken:
    """Read a log. Raise UsageError if it cannot be read, or has no usable sample."""
    try:
        with _open(log) as file:
            profile, tally = read_profile(file, topology, **how)
            return Taken(profile, tally, _last_written(file), None)
    except OSError as error:
        remedy = "name a file with a profiler's log, or - for standard input"
        raise UsageError(f"cannot read {log}: {error.strerror}; {remedy}") from error


def _survey(taken: Taken, log: str | None, members: tuple[int, ...], root: Path) -> Survey:
    """Return the accesses of `members`; raise UsageError if there are none."""
    found = survey(taken.profile, members, read_topology(root), recorded=taken.ended, root=root)
    if not any(each.total for each in found.accesses.values()):
        hint = taken.recording.explain_empty() if taken.recording else ""
        raise UsageError(
            f"{log or 'the recording'}: no usable sample of these processes: {found.gone} are of"
            f" processes that have exited, {found.others} of other processes; record these while"
            f" they run{hint}"
        )
    return found


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
