"""`job-migrate JOB`: an administrator gives a running Slurm job other processors, memory included.

On one host it does the work; a job on several hosts is handed to the same command on each of them,
through ClusterShell's clush or, where there is none, ssh. It is kept in the journal: Slurm
writes the old cpuset again with the job's next step, and the agent then enforces the new one.
"""

from __future__ import annotations

import json
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from schedhook.cli.errors import run_command
from schedhook.cli.loading import load
from schedhook.cli.options.common import json_option
from schedhook.cli.options.sets import CPUS, NODES
from schedhook.journal.errors import JournalError
from schedhook.journal.file import journal_path
from schedhook.journal.journal import Journal
from schedhook.relocation.pipeline import relocate
from schedhook.roles.request import Request
from schedhook.values.config import Config
from schedhook.values.errors import SchedhookError, UsageError
from schedhook.values.model import Outcome, Placement, Report
from schedhook.values.sets import CpuSet, NodeSet
from schedhook_plugins.schedulers.slurm.adapter import Slurm
from schedhook_plugins.schedulers.slurm.migrate import JobMove, cpus_of_nodes, migrate
from schedhook_plugins.schedulers.slurm.override import Keeper, finish_interrupted, locked
from schedhook_plugins.schedulers.slurm.queries import query

_FAILED = Outcome.FAILED.exit_status
_WORST_FIRST = (Outcome.FAILED, Outcome.REFUSED, Outcome.PARTIAL)
_SECONDS = 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    """What was asked for, in a form that can be passed on to another host."""

    job: str
    cpus: CpuSet | None
    nodes: NodeSet | None
    release: bool
    dry_run: bool

    def arguments(self) -> list[str]:
        words = [self.job]
        words += ["--cpus", str(self.cpus)] if self.cpus is not None else []
        words += ["--to-nodes", str(self.nodes)] if self.nodes is not None else []
        words += ["--release"] if self.release else []
        return words + (["--dry-run"] if self.dry_run else [])


@click.command("job-migrate")
@click.argument("job")
@click.option("--cpus", type=CPUS, help="The job's new processors on the host.")
@click.option(
    "--to-nodes", "nodes", type=NODES, help="As many processors of these NUMA nodes as it has now."
)
@click.option("--release", is_flag=True, help="Forget the override; the job stays where it is.")
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@click.option(
    "--this-host", is_flag=True, help="Act here alone; do not ask Slurm where the job runs."
)
@click.option("--host", metavar="NAME", help="Slurm's name for this host, where several share it.")
@click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Configuration file, /etc/schedhook/config.toml by default.",
)
@json_option
def command(
    job: str,
    cpus: CpuSet | None,
    nodes: NodeSet | None,
    release: bool,
    dry_run: bool,
    this_host: bool,
    host: str | None,
    config_path: Path | None,
    as_json: bool,
) -> int:
    """Give the running Slurm job JOB other processors, and let its memory follow.

    Cpusets are widened, set and narrowed from the right ends, each task is bound as it was before,
    relative to the new processors, and memory follows task by task. If anything fails, processors
    and bindings are put back. Exit status: 0 done, 3 some pages stayed, 4 refused, 1 failed.
    """
    if sum((cpus is not None, nodes is not None, release)) != 1:
        raise UsageError("say where to: one of --cpus LIST, --to-nodes NODES, --release")
    wanted = _Wanted(job=job, cpus=cpus, nodes=nodes, release=release, dry_run=dry_run)
    here = Slurm(host=host)
    hosts = () if this_host else _hosts_of(job, here)
    if len(hosts) > 1:
        results = _on_hosts(hosts, wanted)
    else:
        results = [_on_this_host(wanted, here, config_path)]
    if as_json:
        click.echo(json.dumps({"job": job, "hosts": results}, ensure_ascii=False))
    else:
        for result in results:
            _print(result)
    return _worst(result["status"] for result in results)


def main() -> None:
    """The entry of contrib/slurm/job-migrate."""
    run_command(command, "job-migrate")


def _hosts_of(job: str, here: Slurm) -> tuple[str, ...]:
    try:
        return query(job).hosts
    except UsageError:
        raise
    except SchedhookError as error:
        if not here.tasks(job):
            raise
        click.echo(f"job-migrate: {error}; acting on this host alone", err=True)
        return ()


def _on_this_host(wanted: _Wanted, here: Slurm, config_path: Path | None) -> dict[str, Any]:
    config, plugins = load(config_path)
    name = here.host or socket.gethostname()
    journal = _open_journal(config)
    if wanted.release:
        if journal is None:
            raise SchedhookError("there is no override to release: the journal cannot be opened")
        known = journal.overrides.release("slurm", wanted.job)
        note = "released" if known else "there was no override for this job"
        return {"host": name, "status": 0, "outcome": "released", "notes": [note]}

    def carry_out(request: Request) -> Report:
        report = relocate(request, config, plugins)
        if journal is not None and not request.dry_run:
            journal.reports.add(report, "slurm", wanted.job)
        return report

    with locked(journal, wanted.job):
        notes = [] if wanted.dry_run else finish_interrupted(journal, wanted.job, here, carry_out)
        cpus = wanted.cpus
        if cpus is None:
            assert wanted.nodes is not None
            cpus = cpus_of_nodes(here, wanted.job, wanted.nodes)
        keeper = Keeper(journal, here, wanted.job)
        try:
            move = migrate(
                here, wanted.job, cpus, carry_out, dry_run=wanted.dry_run, begin=keeper.begin
            )
        except BaseException:  # Ctrl-C as well: all has been put back
            with suppress(JournalError):
                keeper.take_back()
            raise
        notes += move.notes
        if not wanted.dry_run:
            notes += keeper.end(move)
    return _told(name, move, notes, wanted.dry_run)


def _open_journal(config: Config) -> Journal | None:
    try:
        return Journal.open(journal_path(config))
    except JournalError as error:
        click.echo(f"job-migrate: {error}; the relocation will not be kept", err=True)
        return None


def _told(name: str, move: JobMove, notes: Sequence[str], dry_run: bool) -> dict[str, Any]:
    if not move.done:
        outcome = Outcome.FAILED if move.reports else Outcome.REFUSED
    elif any(report.outcome is Outcome.PARTIAL for report in move.reports):
        outcome = Outcome.PARTIAL
    else:
        outcome = Outcome.PLANNED if dry_run else Outcome.COMPLETE
    return {
        "host": name,
        "status": outcome.exit_status,
        "outcome": outcome.value,
        "failure": move.failure,
        "not_restored": list(move.not_restored),
        "old": _placement(move.old),
        "new": _placement(move.new),
        "bytes_planned": sum(report.bytes_planned for report in move.reports),
        "bytes_moved": sum(report.bytes_moved for report in move.reports),
        "bytes_left": sum(report.bytes_left for report in move.reports),
        "tasks": [
            {"task": task.name, "pids": list(task.pids), **_placement(task.placement)}
            for task in move.after
        ],
        "reports": [report.to_dict() for report in move.reports],
        "notes": list(notes),
    }


def _placement(placement: Placement) -> dict[str, str]:
    return {"cpus": str(placement.cpus), "nodes": str(placement.nodes)}


def _on_hosts(hosts: Sequence[str], wanted: _Wanted) -> list[dict[str, Any]]:
    """The same command on each host, all at once; a host that fails does not stop the others."""
    launcher: Callable[[str], list[str]]
    if clush := shutil.which("clush"):
        launcher = lambda host: [clush, "-N", "-w", host]  # noqa: E731
    elif ssh := shutil.which("ssh"):
        launcher = lambda host: [ssh, "-o", "BatchMode=yes", host]  # noqa: E731
    else:
        raise SchedhookError(
            f"the job runs on {len(hosts)} hosts, and there is neither clush nor ssh to reach"
            " them; install ClusterShell, or run job-migrate --this-host on each"
        )
    program = [sys.executable, "-m", "schedhook_plugins.schedulers.slurm.command"]
    arguments = [*program, *wanted.arguments(), "--this-host", "--json"]

    def ask(host: str) -> dict[str, Any]:
        # Which of several slurmds that share a kernel is meant; elsewhere it says nothing new.
        return _ask(host, [*launcher(host), shlex.join([*arguments, "--host", host])])

    with ThreadPoolExecutor(min(len(hosts), 32)) as pool:
        return list(pool.map(ask, hosts))


def _ask(host: str, words: Sequence[str]) -> dict[str, Any]:
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=_SECONDS)
        answer = json.loads(done.stdout)["hosts"][0]
    except (ValueError, LookupError):
        # The last line is often clush's own, which only says that there was an error.
        said = [line for line in done.stderr.splitlines() if not line.startswith("clush:")]
        why = said[-1:] or [f"exit status {done.returncode}"]
        return {"host": host, "status": _FAILED, "outcome": "failed", "failure": why[0]}
    except (OSError, subprocess.TimeoutExpired) as error:
        return {"host": host, "status": _FAILED, "outcome": "failed", "failure": str(error)}
    assert isinstance(answer, dict)
    return {**answer, "host": host}


def _print(result: Mapping[str, Any]) -> None:
    line = f"{result['host']}: {result['outcome']}"
    if "old" in result:
        old, new = result["old"], result["new"]
        line += (
            f", processors {old['cpus']} -> {new['cpus']}, nodes {old['nodes']} -> {new['nodes']},"
            f" moved {result['bytes_moved'] / (1 << 20):.1f} MiB,"
            f" left {result['bytes_left'] / (1 << 20):.1f} MiB"
        )
    click.echo(line)
    if result.get("failure"):
        click.echo(f"  {result['failure']}", err=True)
    for note in (*result.get("not_restored", ()), *result.get("notes", ())):
        click.echo(f"  {note}")


def _worst(statuses: Iterable[int]) -> int:
    """One status for all hosts: failed before refused before partial."""
    found = set(statuses)
    return next((each.exit_status for each in _WORST_FIRST if each.exit_status in found), 0)


if __name__ == "__main__":
    main()
