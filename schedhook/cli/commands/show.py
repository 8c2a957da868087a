"""`schedhook show`: where memory is, and whether that is where it is used."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from schedhook.cli.errors import complain
from schedhook.cli.footprints import Target, read_shown
from schedhook.cli.loading import load
from schedhook.cli.options.common import common_options, json_option
from schedhook.cli.options.pictures import picture_options
from schedhook.cli.options.processes import check_processes, process_options
from schedhook.cli.options.types import NumberType, UserType, WholeType
from schedhook.cli.output.files import Pictures
from schedhook.cli.signals import until_stopped
from schedhook.jobs.order import Order, SortKey
from schedhook.values.errors import UsageError

_SECONDS = 2.0

Read = Callable[[], Mapping[str, Any]]
"""Read what `show --json` prints."""


@click.command("show")
@process_options
@click.option(
    "--all",
    "everything",
    is_flag=True,
    help="Every job on this host; the default without a target.",
)
@click.option(
    "--hosts",
    metavar="HOSTS",
    help="The jobs of these hosts, such as n[1-500] or @group, which ClusterShell reaches by ssh.",
)
@click.option(
    "--watch",
    type=NumberType(min=0.2, max=86_400),
    is_flag=False,
    flag_value=_SECONDS,
    metavar="[SECONDS]",
    help=f"Show it again every so many seconds, {_SECONDS:g} by default, until interrupted.",
)
@click.option(
    "--sort",
    type=click.Choice([key.value for key in SortKey]),
    help=f"The order of the jobs; {SortKey.OFF_NODE} by default.",
)
@click.option("--top", type=WholeType(1, 1_000_000), metavar="N", help="Only the first N of them.")
@click.option("--user", type=UserType(), metavar="USER", help="Only jobs of this user.")
@picture_options
@json_option
@common_options
def command(
    pids: tuple[int, ...],
    cgroup: str | None,
    job: str | None,
    scheduler: str | None,
    everything: bool,
    hosts: str | None,
    watch: float | None,
    sort: SortKey | None,
    top: int | None,
    user: int | None,
    svg: Path | None,
    html: Path | None,
    as_json: bool,
    config_path: Path | None,
    root: Path,
) -> int:
    """Show where memory is, and how much of it is off-node: not where its processors are.

    Shows processes, a cgroup or a job; without any of these every job on this host, the one with
    most off-node memory first unless --sort names another order. Memory that several processes map
    counts in each, and once in the total if it is a shared object (a shared-memory segment, a
    mapped file). Files that processes outside the job map too are never off-node: relocate leaves
    them alone.

    With --hosts, runs on each of these hosts and lists all their jobs together; what a host answers
    shows at once, and a host that fails is one line on standard error. Exit status: 0 every host
    has answered, 3 some have not, 1 none has.

    With --watch, what does not fit the terminal is reached with the arrow keys, PgUp, PgDn, Home
    and End; q ends it. With --watch --json, prints one object per line. SIGINT (Ctrl-C), SIGTERM
    and SIGHUP end --watch with exit status 0.
    """
    target = Target(pids=pids, cgroup=cgroup, job=job, scheduler=scheduler, user=user)
    if target.is_named and everything:
        raise UsageError("--all means every job: leave out --pid, --cgroup and --job")
    if target.is_named:
        check_processes(pids, cgroup, job)
        if any(each is not None for each in (sort, top, user)):
            raise UsageError("--sort, --top and --user are for the list of all jobs")
    order = Order(key=SortKey(sort or SortKey.OFF_NODE), most=top)
    pictures = Pictures(svg=svg, html=html, root=root)
    if watch is not None and pictures:
        raise UsageError("--svg and --html write a single picture: leave out --watch")
    if hosts is not None:
        if target.is_named or watch is not None or pictures or root != Path("/"):
            raise UsageError("--hosts goes with --sort, --top, --user, --scheduler and --json only")
        return _show_hosts(hosts, target, order, config_path, as_json)
    _, plugins = load(config_path)

    def read() -> Mapping[str, Any]:
        return read_shown(target, plugins, root, order)

    if watch is not None:
        with until_stopped():
            _watch_as_json(read, watch) if as_json else _watch(read, watch)
        return 0
    shown = read()
    _print_as_json(shown) if as_json else _print(shown)
    if pictures:
        from schedhook.cli.output.footprint_chart import chart_footprint, chart_jobs

        pictures.write(chart_footprint(shown) if target.is_named else chart_jobs(shown))
    return 0


def _show_hosts(
    text: str, target: Target, order: Order, config_path: Path | None, as_json: bool
) -> int:
    from schedhook.cli.cluster import INSTEAD, ClusterFootprints, read_cluster
    from schedhook.cli.hosts import join_statuses, parse_hosts

    found = ClusterFootprints(hosts=parse_hosts(text, INSTEAD), order=order)

    def complain_of(host: str) -> None:
        if failure := found.failures.get(host):
            complain(f"schedhook: {host}: {failure}")

    if as_json:
        read_cluster(found, target, config_path, complain_of)
        _print_as_json(found.to_dict())
    else:
        from schedhook.cli.output.cluster import answers_shown, print_cluster

        with answers_shown(found, complain_of) as seen:
            read_cluster(found, target, config_path, seen)
        print_cluster(found.to_dict())
    return join_statuses(int(host in found.failures) for host in found.hosts)


def _print(shown: Mapping[str, Any]) -> None:
    from schedhook.cli.output.show import print_shown

    print_shown(shown)


def _print_as_json(shown: Mapping[str, Any]) -> None:
    click.echo(json.dumps(shown, ensure_ascii=False))


def _watch(read: Read, seconds: float) -> None:
    from schedhook.cli.output.show import watch

    watch(read, seconds)


def _watch_as_json(read: Read, seconds: float) -> None:
    while True:
        _print_as_json(read())
        sys.stdout.flush()
        time.sleep(seconds)
