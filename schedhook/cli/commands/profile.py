"""`schedhook profile`: from a profiler's log to pages on the nodes that use them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click

from schedhook.cli.loading import load
from schedhook.cli.options.common import common_options, json_option
from schedhook.cli.options.moving import moving_arguments, moving_options
from schedhook.cli.options.processes import check_cgroup, check_processes, process_options
from schedhook.cli.options.profile import profile_options
from schedhook.cli.profiles import find_members, read_log, survey_members
from schedhook.cli.running import carry_out, print_report
from schedhook.cli.signals import until_stopped
from schedhook.host.topology import read_topology
from schedhook.migration.profiling.hints import Format
from schedhook.migration.profiling.reading import read_profile
from schedhook.migration.profiling.recording import Source, printed, record
from schedhook.migration.profiling.summary import Summary, Taken, summarise
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
    members = pids or find_members(cgroup, job, scheduler, plugins, root)
    topology = read_topology(root)
    how = {"capacity": most_counters, "count_cache_hits": cache_hits}
    if seconds is not None:
        _check_record(log, root)
        wanted = Source(source) if source else None
        taken = _record(members, seconds, wanted, how)
    elif log is None:
        raise UsageError("name a LOG of accesses, or record them now: --record 30s")
    else:
        taken = read_log(log, topology, {**how, "kind": Format(kind)})
    found = survey_members(taken, log or "the recording", members, topology, root)
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


def _print_summary(summary: Summary) -> None:
    from schedhook.cli.output.profile import print_profile

    print_profile(summary)
