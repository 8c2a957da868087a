"""Ask Slurm's controller on which hosts a job runs.

The methods are tried in this order: pyslurm, scontrol's JSON, squeue's JSON, squeue's text. Each
question goes to the controller, so a hook must not ask any. A controller that is down answers none
of them, so all together have one limit of time.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

from schedhook.values.errors import SchedhookError, UsageError
from schedhook_plugins.schedulers.programs import NotRunError, run_program
from schedhook_plugins.schedulers.slurm import names
from schedhook_plugins.schedulers.slurm.answers import (
    SQUEUE_FORMAT,
    JobAnswer,
    Unreadable,
    job_in_pyslurm,
    jobs_in_json,
    jobs_in_squeue,
)
from schedhook_plugins.schedulers.slurm.configuration import find_configuration
from schedhook_plugins.schedulers.slurm.pyslurm_probe import NO_SUCH_JOB

SECONDS = 5.0
"""How long the controller may take to answer, whatever it is asked and how often."""

_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/opt/slurm/bin:/usr/local/slurm/bin"
_KEPT_VARIABLES = frozenset({"SLURM_CONF", "SLURM_JWT"})
_ANY_JOB = "1"
_NO_SUCH_JOB = re.compile(r"[Ii]nvalid job id|not found")


class NotUsable(SchedhookError):
    """A method does not exist on this host, or its answer cannot be used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandResult:
    """How a command ended, and what it printed."""

    status: int
    output: str
    errors: str = ""


RunCommand = Callable[[Sequence[str]], CommandResult]
"""Run a command for a limited time. Raise NotUsable if it does not exist or does not end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryMethod:
    """A way to ask where a job runs."""

    name: str
    ask: Callable[[str, RunCommand], Sequence[JobAnswer]]
    """Return the job with this number, or all jobs of which it is the base number, perhaps among
    others; none if Slurm knows no such job. Raise NotUsable or Unreadable."""
    describe: Callable[[RunCommand], str]
    """Return what this is, with its version, without asking the controller. Raise NotUsable."""


def run_command(command: Sequence[str], seconds: float = SECONDS) -> CommandResult:
    """Run a Slurm command without the user's variables that would change its output."""
    program = shutil.which(command[0], path=f"{os.environ.get('PATH', '')}:{_PATH}")
    if program is None:
        raise NotUsable(f"there is no {command[0]}")
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("SLURM_", "SQUEUE_", "SCONTROL_")) or name in _KEPT_VARIABLES
    }
    if configuration := find_configuration():  # the running slurmd may have it elsewhere
        environment["SLURM_CONF"] = str(configuration)
    try:
        done = run_program([program, *command[1:]], seconds, {**environment, "LC_ALL": "C"})
    except NotRunError as error:
        raise NotUsable(f"{command[0]} {error}") from None
    return CommandResult(status=done.returncode, output=done.stdout, errors=done.stderr)


def within(seconds: float) -> RunCommand:
    """Return a function that runs commands which together may take this long, from now on."""
    end = time.monotonic() + seconds

    def run(command: Sequence[str]) -> CommandResult:
        left = end - time.monotonic()
        if left <= 0:
            raise NotUsable(f"not asked, {seconds:g} s are over")
        return run_command(command, left)

    return run


def query_job(
    text: str, *, methods: Iterable[QueryMethod] | None = None, run: RunCommand | None = None
) -> JobAnswer:
    """Return what Slurm says of the job that people call `text`, by the first method that works.

    Raise UsageError if Slurm knows no such job or if `text` names several, SchedhookError if no
    method works within SECONDS.
    """
    spelling = names.parse(text)
    if spelling is None:
        raise UsageError(f"{text!r} is not the number of a Slurm job, such as 4711, 36_2 or 50+1")
    run = run or within(SECONDS)
    failures = []
    for method in QUERY_METHODS if methods is None else methods:
        try:
            answers = {each.number: each for each in method.ask(str(spelling.base), run)}
        except (NotUsable, Unreadable) as failure:
            failures.append(f"{method.name}: {failure}")
            continue
        number = names.resolve(text, {each: its.alias for each, its in answers.items()})
        if number in answers:
            return answers[number]
        raise UsageError(f"Slurm knows no job {text}; it may have ended some time ago")
    raise SchedhookError(f"Slurm cannot be asked about job {text}: {'; '.join(failures)}")


def ping(run: RunCommand | None = None) -> str | None:
    """Return why the controller does not answer, None if it does."""
    try:
        result = (run or within(SECONDS))(["scontrol", "ping"])
    except NotUsable as failure:
        return str(failure)
    return None if re.search(r"\bis UP\b", result.output) else _last_line(result)


def find_answering(
    usable: Iterable[str],
    *,
    methods: Iterable[QueryMethod] | None = None,
    run: RunCommand | None = None,
) -> tuple[str | None, str]:
    """Ask Slurm about a job by each of these methods; return the first that gets an answer.

    Slurm need not know the job. Also return why the methods before it got none.
    """
    run, failures = run or within(SECONDS), list[str]()
    for method in QUERY_METHODS if methods is None else methods:
        if method.name in usable:
            try:
                method.ask(_ANY_JOB, run)
            except (NotUsable, Unreadable) as failure:
                failures.append(f"{method.name}: {failure}")
            else:
                return method.name, "; ".join(failures)
    return None, "; ".join(failures)


def probe(run: RunCommand = run_command) -> dict[str, tuple[bool, str]]:
    """Return, for each method in order, whether it works here, and what it is or what it lacks."""
    found = {}
    for method in QUERY_METHODS:
        try:
            found[method.name] = (True, method.describe(run))
        except NotUsable as failure:
            found[method.name] = (False, str(failure))
    return found


# -- pyslurm -------------------------------------------------------------------------------------


def _run_pyslurm(arguments: Sequence[str], run: RunCommand) -> CommandResult:
    if find_spec("pyslurm") is None:
        raise NotUsable("pyslurm is not installed (schedhook[slurm]; it needs Slurm 25.11)")
    if find_configuration() is None:
        raise NotUsable("pyslurm needs a slurm.conf, and there is none on this host")
    module = "schedhook_plugins.schedulers.slurm.pyslurm_probe"
    return run([sys.executable, "-P", "-m", module, *arguments])


def _ask_pyslurm(job: str, run: RunCommand) -> Sequence[JobAnswer]:
    result = _run_pyslurm([job], run)
    if result.status == NO_SUCH_JOB:
        return []
    return [job_in_pyslurm(_output(result, "pyslurm"))]


def _describe_pyslurm(run: RunCommand) -> str:
    result = _run_pyslurm(["--version"], run)
    if result.status:
        raise NotUsable(f"pyslurm does not start: {_last_line(result)}")
    return f"pyslurm {result.output.strip()}"


# -- Slurm's commands ----------------------------------------------------------------------------


def _ask_command(
    command: Sequence[str], run: RunCommand, read: Callable[[str], Sequence[JobAnswer]]
) -> Sequence[JobAnswer]:
    result = run(command)
    if result.status and _NO_SUCH_JOB.search(result.errors):
        return []
    return read(_output(result, command[0]))


def _describe_json(program: str) -> Callable[[RunCommand], str]:
    def describe(run: RunCommand) -> str:
        if "--json" not in run([program, "--help"]).output:
            raise NotUsable(f"this version of {program} has no --json")
        return f"{program} --json, {run([program, '--version']).output.strip()}"

    return describe


def _output(result: CommandResult, name: str) -> str:
    if result.status:
        raise NotUsable(f"{name} ended with status {result.status}: {_last_line(result)}")
    return result.output


def _last_line(result: CommandResult) -> str:
    lines = (result.errors or result.output).strip().splitlines()
    return lines[-1][:200] if lines else f"status {result.status}"


QUERY_METHODS = (
    QueryMethod(name="pyslurm", ask=_ask_pyslurm, describe=_describe_pyslurm),
    QueryMethod(
        name="scontrol-json",
        ask=lambda job, run: _ask_command(
            ["scontrol", "--json", "show", "job", job], run, jobs_in_json
        ),
        describe=_describe_json("scontrol"),
    ),
    QueryMethod(
        name="squeue-json",
        ask=lambda job, run: _ask_command(
            ["squeue", "--json", "--states=all", f"--jobs={job}"], run, jobs_in_json
        ),
        describe=_describe_json("squeue"),
    ),
    QueryMethod(
        name="text",
        ask=lambda job, run: _ask_command(
            ["squeue", "--noheader", "--states=all", f"--jobs={job}", f"--format={SQUEUE_FORMAT}"],
            run,
            jobs_in_squeue,
        ),
        describe=lambda run: f"squeue's text, {run(['squeue', '--version']).output.strip()}",
    ),
)
