"""`job-migrate JOB`: give a running Slurm job other processors, and let its memory follow.

On one host the command does the work itself; for a job on several hosts it runs on each of them
(see `remote`). The move is recorded in the journal as the job's override: Slurm writes the old
cpuset again with the job's next step, and the agent then reapplies the new one.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from schedhook.cli.errors import run_command
from schedhook.cli.hosts import join_statuses
from schedhook.cli.loading import load
from schedhook.cli.options.common import config_option, json_option
from schedhook.cli.options.sets import CPUS, NODES
from schedhook.jobs.choice import note_on_override
from schedhook.jobs.notes import journal_notes
from schedhook.journal.errors import JournalError
from schedhook.journal.file import has_journal, journal_path
from schedhook.journal.journal import Journal
from schedhook.relocation.pipeline import relocate
from schedhook.roles.request import Relocate, Request
from schedhook.values.config import Config
from schedhook.values.errors import NoPermissionError, SchedhookError, UsageError
from schedhook.values.log import get_logger
from schedhook.values.model import Outcome, Report
from schedhook.values.policy import PolicyCount
from schedhook.values.sets import CpuSet, NodeSet
from schedhook.values.text import printable
from schedhook_plugins.schedulers.slurm.adapter import NAME, HostJobs
from schedhook_plugins.schedulers.slurm.answers import JobAnswer
from schedhook_plugins.schedulers.slurm.memory import MIB, describe
from schedhook_plugins.schedulers.slurm.migrate import (
    JobMove,
    check_free,
    check_later_steps,
    cpus_of_nodes,
    migrate,
)
from schedhook_plugins.schedulers.slurm.override import (
    OverrideRecorder,
    finish_interrupted,
    locked,
)
from schedhook_plugins.schedulers.slurm.queries import query_job
from schedhook_plugins.schedulers.slurm.remote import Result, run_on_hosts
from schedhook_plugins.schedulers.slurm.results import build_result

_log = get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Arguments:
    """What the administrator asked for, in a form that another host's job-migrate understands."""

    job: str
    cpus: CpuSet | None
    nodes: NodeSet | None
    release: bool
    force: bool
    strict: bool
    dry_run: bool
    config_path: Path | None

    def words(self) -> list[str]:
        words = [self.job]
        words += ["--cpus", str(self.cpus)] if self.cpus is not None else []
        words += ["--to-nodes", str(self.nodes)] if self.nodes is not None else []
        words += ["--release"] if self.release else []
        words += ["--force"] if self.force else []
        words += ["--strict"] if self.strict else []
        words += ["--dry-run"] if self.dry_run else []
        return words + (["--config", str(self.config_path.absolute())] if self.config_path else [])


@click.command("job-migrate")
@click.argument("job")
@click.option("--cpus", type=CPUS, help="The job's new processors on the host.")
@click.option(
    "--to-nodes", "nodes", type=NODES, help="As many processors of these NUMA nodes as it has now."
)
@click.option(
    "--release",
    is_flag=True,
    help="Drop the job's override: the job stays where it is, and Slurm places its next step.",
)
@click.option(
    "--force",
    is_flag=True,
    help="Move the job although Slurm can then start no further step of it (cgroups of version 1).",
)
@click.option("--strict", is_flag=True, help="Refuse processors that another job on the host has.")
@click.option("--dry-run", is_flag=True, help="Say what would be done and change nothing.")
@click.option(
    "--this-host", is_flag=True, help="Act on this host only; do not ask Slurm where the job runs."
)
@click.option(
    "--by-number",
    is_flag=True,
    hidden=True,
    help="With --this-host: JOB is the number by which Slurm's cgroups call the job.",
)
@click.option("--host", metavar="NAME", help="Slurm's name for this host, if several share it.")
@config_option
@json_option
def command(
    job: str,
    cpus: CpuSet | None,
    nodes: NodeSet | None,
    release: bool,
    force: bool,
    strict: bool,
    dry_run: bool,
    this_host: bool,
    by_number: bool,
    host: str | None,
    config_path: Path | None,
    as_json: bool,
) -> int:
    """Give the running Slurm job JOB other processors, and let its memory follow.

    JOB is written as squeue writes it: 4711, 36_2 (an array's element), 50+1 (a component).

    Cpusets are widened, set and narrowed in the order that the kernel requires, each task is bound
    as it was before, relative to the new processors, and its memory follows. If anything fails,
    processors, bindings and memory are put back. Exit status: 0 done, 3 some pages or the job's
    part on some host stayed, 4 refused, 2 wrong usage, 1 failed.
    """
    if sum((cpus is not None, nodes is not None, release)) != 1:
        raise UsageError("give one of --cpus LIST, --to-nodes NODES, --release")
    here = HostJobs(host=host)
    if this_host:
        found = JobAnswer(number=job if by_number else here.resolve(job))
    else:
        found = _find_job(job, here)
    arguments = _Arguments(
        job=found.number,
        cpus=cpus,
        nodes=nodes,
        release=release,
        force=force,
        strict=strict,
        dry_run=dry_run,
        config_path=config_path,
    )
    if found.number != job and not as_json:
        click.echo(f"{job} is job {found.number}")
    if _is_elsewhere(found, here):
        with _each_printed(len(found.hosts), as_json) as seen:
            results = run_on_hosts(found.hosts, arguments.words(), seen)
    else:
        with _each_printed(1, as_json) as seen:
            results = [_run_on_this_host(arguments, here)]
            seen(results[0])
    if as_json:
        answer = {"job": found.number, "alias": found.alias or None, "hosts": results}
        click.echo(json.dumps(answer, ensure_ascii=False))
    return join_statuses(result["status"] for result in results)


def main() -> None:
    """Run the command for contrib/slurm/job-migrate."""
    run_command(command, "job-migrate")


def _find_job(text: str, here: HostJobs) -> JobAnswer:
    """Return the job that people call `text`, from Slurm or else from this host.

    If Slurm cannot be asked and the job is on this host, no hosts are returned.
    """
    try:
        return query_job(text)
    except UsageError:
        raise
    except SchedhookError as error:
        number = here.resolve(text)
        if not here.tasks(number):
            raise SchedhookError(f"{error}; run it with --this-host on the job's hosts") from None
        click.echo(f"job-migrate: {error}; acting on this host only", err=True)
        return JobAnswer(number=number)


def _is_elsewhere(job: JobAnswer, here: HostJobs) -> bool:
    """Return whether a part of the job is on another host than this one."""
    if len(job.hosts) == 1:
        this = here.host or socket.gethostname().partition(".")[0]
        return job.hosts[0] != this and not here.cgroups(job.number)
    return len(job.hosts) > 1


# -- on this host --------------------------------------------------------------------------------


def _run_on_this_host(arguments: _Arguments, here: HostJobs) -> Result:
    if os.geteuid() != 0:  # else each cpuset, and each thread that is bound, says so
        raise NoPermissionError(
            "job-migrate writes cpusets and binds other users' tasks: run as root"
        )
    config, plugins = load(arguments.config_path)
    host = here.host or socket.gethostname()
    # What changes nothing, or fails for want of the job, makes no journal.
    begins = not (arguments.dry_run or arguments.release) and bool(here.cgroups(arguments.job))
    journal = _open_journal(config, create=begins)
    if journal is not None:
        plugins.notes = journal_notes(journal)
    if arguments.release:
        return _release(arguments.job, host, journal)

    override = note_on_override(plugins.adapter(NAME, here.root), arguments.job, config.actions)

    def relocate_and_record(request: Request) -> Report:
        report = relocate(request, config, plugins)
        if journal is not None and not request.dry_run:
            try:
                journal.reports.add(report, NAME, arguments.job)
            except JournalError as error:  # the memory has moved all the same
                _log.error("relocation not recorded in the journal", problem=str(error))
        return report

    with locked(journal, arguments.job):
        if arguments.dry_run:
            move = _move(arguments, here, relocate_and_record)
            return build_result(host, move, [*override, *move.notes], dry_run=True)
        notes = [
            *override,
            *finish_interrupted(journal, arguments.job, here, relocate_and_record),
        ]
        recorder = OverrideRecorder(journal, here, arguments.job)
        try:
            move = _move(arguments, here, relocate_and_record, recorder)
        except BaseException:  # Ctrl-C as well: processors and bindings have been put back
            with suppress(JournalError):
                recorder.roll_back()
            raise
        return build_result(host, move, [*notes, *move.notes, *recorder.end(move)], dry_run=False)


def _open_journal(config: Config, *, create: bool) -> Journal | None:
    """Open the journal; without `create`, one in memory stands for a journal that is not there."""
    path = journal_path(config)
    try:
        return Journal.open(path) if create or has_journal(path) else Journal.in_memory()
    except JournalError as error:
        click.echo(f"job-migrate: {error}; the override will not be recorded", err=True)
        return None


def _release(job: str, host: str, journal: Journal | None) -> Result:
    if journal is None:
        raise SchedhookError("cannot release the override: the journal cannot be opened")
    if journal.overrides.release(NAME, job):
        note = "override dropped: Slurm's next step in the job places it again"
    else:
        note = "the job had no override"
    return {"host": host, "status": 0, "outcome": "released", "notes": [note]}


def _move(
    arguments: _Arguments,
    here: HostJobs,
    relocate: Relocate,
    recorder: OverrideRecorder | None = None,
) -> JobMove:
    """Move the job, or with no recorder only plan it."""
    cpus = arguments.cpus
    if cpus is None:
        assert arguments.nodes is not None
        cpus = cpus_of_nodes(here, arguments.job, arguments.nodes)
    if arguments.strict:
        check_free(here, arguments.job, cpus)
    if not arguments.force:
        check_later_steps(here, arguments.job, cpus)
    if recorder is None:
        return migrate(here, arguments.job, cpus, relocate, dry_run=True)
    return migrate(here, arguments.job, cpus, relocate, begin=recorder.begin)


# -- results -------------------------------------------------------------------------------------


@contextmanager
def _each_printed(hosts: int, as_json: bool) -> Iterator[Callable[[Result], None]]:
    """Yield what prints a host's result as it comes, above a count of the hosts that are done."""
    if as_json:
        yield lambda _result: None
        return
    if hosts == 1:
        yield _print
        return
    from schedhook.cli.output.progress import counter  # noqa: PLC0415 - it imports much

    with counter("hosts", hosts) as count:

        def seen(result: Result) -> None:
            _print(result)
            count()

        yield seen


def _print(result: Mapping[str, Any]) -> None:
    """Print what a host has answered, which may have names that users chose."""
    line = f"{result['host']}: {result['outcome']}"
    if "old" in result:
        old, new = result["old"], result["new"]
        line += (
            f", processors {old['cpus']} -> {new['cpus']}, nodes {old['nodes']} -> {new['nodes']}, "
        )
        if result["outcome"] == Outcome.PLANNED:
            line += f"would move {result['bytes_planned'] / MIB:.1f} MiB"
        else:
            line += describe(result["bytes_moved"], result["left_by_reason"])
        if left := PolicyCount(**result["policies_left"]):
            line += f", policies left: {left}"
    click.echo(printable(line))
    if result.get("failure"):
        click.echo(f"  {printable(result['failure'])}", err=True)
    for note in (*result.get("not_restored", ()), *result.get("notes", ())):
        click.echo(f"  {printable(note)}")


if __name__ == "__main__":
    main()
