"""`schedhook relocate`, and `schedhook plan`, which is the same without the move."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import click

from schedhook.cli.completion import names_of
from schedhook.cli.options import (
    CPUS,
    NODES,
    check_processes,
    common_options,
    json_option,
    load,
    process_options,
)
from schedhook.cli.pictures import Pictures, picture_options
from schedhook.config import Config
from schedhook.descriptors import BackendPlugin, MapperPlugin, StrategyPlugin
from schedhook.errors import UsageError
from schedhook.model import Kind, Outcome, Report, Shared
from schedhook.nodemap import parse_map
from schedhook.relocation import Request, relocate
from schedhook.sets import CpuSet, NodeSet

_KEPT = frozenset({Outcome.COMPLETE, Outcome.PARTIAL, Outcome.REFUSED, Outcome.FAILED})


def _request_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(
        (
            click.option("--from", "sources", type=NODES, help="Old nodes, such as 0-1."),
            click.option("--to", "destinations", type=NODES, help="New nodes, such as 2-3."),
            click.option(
                "--map",
                "node_map",
                metavar="OLD:NEW,…",
                help="The map itself, such as 0:1,1:0, instead of --from and --to.",
            ),
            click.option(
                "--cpus",
                type=CPUS,
                help="Bind the processes to these processors first; their nodes are --to.",
            ),
            click.option(
                "--strategy",
                metavar="NAME",
                shell_complete=names_of(StrategyPlugin),
                help="How to move (`schedhook plugins`).",
            ),
            click.option(
                "--mapper",
                metavar="NAME",
                shell_complete=names_of(MapperPlugin),
                help="How old and new nodes are paired.",
            ),
            click.option(
                "--backend",
                metavar="NAME",
                shell_complete=names_of(BackendPlugin),
                help="What performs the calls.",
            ),
            click.option(
                "--kinds",
                metavar="KIND,…",
                help=f"Only memory of these kinds: {', '.join(Kind)}.",
            ),
            click.option(
                "--shared",
                type=click.Choice([each.value for each in Shared]),
                help="Pages that several processes map: none; job (default: files only where the"
                " job alone maps them); all.",
            ),
            click.option(
                "--leftovers",
                type=click.Choice(["sweep", "report"]),
                default="sweep",
                show_default=True,
                help="What a whole-process call leaves behind: move it page by page, or report.",
            ),
            click.option("--threads", type=click.IntRange(min=1), help="Threads that move pages."),
            click.option(
                "--bandwidth",
                type=click.FloatRange(min=0, min_open=True),
                metavar="MB/S",
                help="Most that is moved in a second, in MB (1,000,000 bytes).",
            ),
            click.option(
                "--gentle/--no-gentle",
                default=None,
                help="Short system calls (20 ms) on one thread: the job hardly notices.",
            ),
            click.option(
                "--freeze/--no-freeze",
                default=None,
                help="Freeze the processes' cgroup (version 2) while the memory moves.",
            ),
            click.option(
                "--reserve",
                type=click.IntRange(min=0),
                metavar="MIB",
                help="What has to stay free on each destination.",
            ),
            click.option("--force", is_flag=True, help="Move what fits where not all does."),
        )
    ):
        command = option(command)
    return command


def _run(
    *,
    pids: tuple[int, ...],
    cgroup: str | None,
    job: str | None,
    sources: NodeSet | None,
    destinations: NodeSet | None,
    node_map: str | None,
    cpus: CpuSet | None,
    kinds: str | None,
    shared: str | None,
    leftovers: str,
    bandwidth: float | None,
    reserve: int | None,
    config_path: Path | None,
    root: Path,
    svg: Path | None,
    html: Path | None,
    as_json: bool,
    **rest: Any,
) -> int:
    check_processes(pids, cgroup, job)
    if node_map is not None and (sources is not None or destinations is not None):
        raise UsageError("--map says it all: leave out --from and --to")
    pictures = Pictures(svg=svg, html=html)
    config, plugins = load(config_path)
    request = Request(
        pids=pids,
        cgroup=cgroup,
        job=job,
        node_map=parse_map(node_map) if node_map is not None else None,
        sources=sources,
        destinations=destinations,
        cpus=cpus,
        kinds=_kinds(kinds),
        shared=Shared(shared) if shared else None,
        bandwidth_mb_s=bandwidth,
        reserve=None if reserve is None else reserve << 20,
        sweep_leftovers=leftovers == "sweep",
        **rest,
    )
    bar = nullcontext(None) if as_json or not sys.stderr.isatty() else _progress_bar()
    with bar as progress:
        report = relocate(request, config, plugins, root=root, progress=progress)
    if root == Path("/") and os.geteuid() == 0 and report.outcome in _KEPT:
        keep(report, config)
    _print(report, as_json)
    if pictures:
        from schedhook.cli import charts

        pictures.write(charts.of_report(report.to_dict()))
    return report.outcome.exit_status


def keep(report: Report, config: Config) -> None:
    """Write a report into the host's journal, where `history` and `metrics` find it."""
    from schedhook.inprocess import open_journal
    from schedhook.journal import JournalError
    from schedhook.log import get_logger

    try:
        with open_journal(config) as journal:
            journal.add_report(report)
    except JournalError as error:
        get_logger().error("not in the journal", problem=str(error))


def _print(report: Report, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(report.to_dict(), ensure_ascii=False))
        if report.outcome in (Outcome.REFUSED, Outcome.FAILED):
            click.echo(f"schedhook: {report.outcome.value}: {report.notes[-1]}", err=True)
    else:
        from schedhook.cli.reports import print_report

        print_report(report)


def _progress_bar() -> Any:
    from schedhook.cli.reports import progress_bar

    return progress_bar()


def _kinds(text: str | None) -> frozenset[Kind] | None:
    if text is None:
        return None
    try:
        kinds = frozenset(Kind(part.strip()) for part in text.split(",") if part.strip())
    except ValueError as error:
        raise UsageError(f"--kinds: {error}; there are {', '.join(Kind)}") from None
    if not kinds:
        raise UsageError(f"--kinds names none; there are {', '.join(Kind)}")
    return kinds


@click.command("relocate")
@process_options
@_request_options
@click.option("--dry-run", is_flag=True, help="Only say what would move.")
@picture_options
@json_option
@common_options
def command(**arguments: Any) -> int:
    """Move the memory of running processes from old to new NUMA nodes.

    What moved is checked by reading residency again; each page that stayed has its reason in the
    report. Exit status: 0 complete or nothing to do, 3 partial, 4 refused, 2 wrong usage, 1 failed.
    """
    return _run(**arguments)


plan_command = click.Command(
    "plan",
    params=[each for each in command.params if each.name != "dry_run"],
    callback=partial(_run, dry_run=True),
    help="Say what relocate would move, and whether it would be refused. Nothing moves.",
)
