"""What Slurm's controller knows of a job: its user, hosts, processors, and whether it is suspended.

Asked, in this order, is what exists here: pyslurm, scontrol's JSON, squeue's JSON, their text. The
answer is the same from each. Every question goes to the controller, so a hook must not ask any.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from schedhook.values.errors import SchedhookError, UsageError
from schedhook.values.sets import CpuSet
from schedhook_plugins.schedulers.slurm.answers import (
    MIB,
    UNREADABLE,
    Allocation,
    Geometry,
    JobInfo,
    base_state,
    name_of_user,
    number,
    parse_json,
)
from schedhook_plugins.schedulers.slurm.hostlist import expand_hosts
from schedhook_plugins.schedulers.slurm.pyslurm_probe import NO_SUCH_JOB

_SECONDS = 15.0
_PLACES = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/opt/slurm/bin:/usr/local/slurm/bin"
_CONFIGURATION = (Path("/etc/slurm/slurm.conf"), Path("/run/slurm/conf/slurm.conf"))
_KEPT_VARIABLES = frozenset({"SLURM_CONF", "SLURM_JWT"})
_NO_SUCH = re.compile(r"[Ii]nvalid job id|not found")


class NotUsable(SchedhookError):
    """A provider does not exist here, or gave no answer that can be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Of a command."""

    status: int
    output: str
    errors: str = ""


Run = Callable[[Sequence[str]], Answer]
"""Runs a command, bounded in time. NotUsable where it does not exist or does not end."""


def run(command: Sequence[str], seconds: float = _SECONDS) -> Answer:
    """Run a Slurm command without what a user's environment would change about its output."""
    program = shutil.which(command[0], path=f"{os.environ.get('PATH', '')}:{_PLACES}")
    if program is None:
        raise NotUsable(f"there is no {command[0]}")
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("SLURM_", "SQUEUE_", "SCONTROL_")) or name in _KEPT_VARIABLES
    }
    try:
        done = subprocess.run(
            [program, *command[1:]],
            env={**environment, "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise NotUsable(f"{command[0]} did not answer within {seconds:g} s") from None
    except OSError as error:
        raise NotUsable(f"{command[0]}: {error.strerror}") from None
    return Answer(status=done.returncode, output=done.stdout, errors=done.stderr)


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryMethod:
    """A way to ask."""

    name: str
    ask: Callable[[str, Run], JobInfo | None]
    """None where Slurm knows no such job; NotUsable where this way does not exist here."""
    look: Callable[[Run], str]
    """What there is, in a few words, without asking the controller; NotUsable."""


def query(
    job: str, *, query_methods: Iterable[QueryMethod] | None = None, run: Run = run
) -> JobInfo:
    """What Slurm knows of the job, from the first provider that works here.

    UsageError where Slurm knows no such job, SchedhookError where nobody could be asked.
    """
    if not re.fullmatch(r"[1-9][0-9]{0,9}", job):
        raise UsageError(f"{job!r} is not the number of a Slurm job")
    failures = []
    for provider in QUERY_METHODS if query_methods is None else query_methods:
        try:
            found = provider.ask(job, run)
        except NotUsable as failure:
            failures.append(f"{provider.name}: {failure}")
            continue
        if found is None:
            raise UsageError(f"Slurm knows no job {job} (any more)")
        return found
    raise SchedhookError(f"Slurm cannot be asked about job {job}: {'; '.join(failures)}")


def probe(run: Run = run) -> dict[str, tuple[bool, str]]:
    """For each provider, in order: whether it can be used here, and what it is or lacks."""
    found = {}
    for provider in QUERY_METHODS:
        try:
            found[provider.name] = (True, provider.look(run))
        except NotUsable as failure:
            found[provider.name] = (False, str(failure))
    return found


# -- pyslurm -------------------------------------------------------------------------------------


def _pyslurm(arguments: Sequence[str], run: Run) -> Answer:
    if find_spec("pyslurm") is None:
        raise NotUsable("pyslurm is not installed (schedhook[slurm]; it needs Slurm 25.11)")
    configured = os.environ.get("SLURM_CONF")
    if not any(path.exists() for path in ([Path(configured)] if configured else _CONFIGURATION)):
        raise NotUsable("pyslurm needs a slurm.conf, and there is none where it looks")
    module = "schedhook_plugins.schedulers.slurm.pyslurm_probe"
    return run([sys.executable, "-P", "-m", module, *arguments])


def _ask_pyslurm(job: str, run: Run) -> JobInfo | None:
    answer = _pyslurm([job], run)
    if answer.status == NO_SUCH_JOB:
        return None
    told = _json(answer, "pyslurm")
    try:
        return JobInfo(
            job=str(told["job"]),
            user_id=int(told["user_id"]),
            user_name=told["user_name"] or name_of_user(told["user_id"]),
            state=base_state(told["state"]),
            hosts=expand_hosts(told["hosts"]),
            allocated={
                host: Allocation(
                    cpu_ids=CpuSet.parse(its["cpu_ids"]), memory=(its["memory"] or 0) * MIB
                )
                for host, its in told["allocated"].items()
            },
            provider="pyslurm",
        )
    except UNREADABLE as error:
        raise NotUsable(f"its answer cannot be read: {error!r}") from None


def _look_at_pyslurm(run: Run) -> str:
    answer = _pyslurm(["--version"], run)
    if answer.status:
        raise NotUsable(f"pyslurm does not start: {_last_line(answer)}")
    return f"pyslurm {answer.output.strip()}"


# -- JSON ----------------------------------------------------------------------------------------


def _ask_json(name: str, command: Sequence[str], job: str, run: Run) -> JobInfo | None:
    answer = run(command)
    if answer.status and _NO_SUCH.search(answer.errors):
        return None
    told = _json(answer, name)
    jobs = told.get("jobs")
    if not isinstance(jobs, list):
        raise NotUsable("its answer has no jobs")
    # squeue 22.05 lists all jobs, whatever it was asked for.
    try:
        found = next((each for each in jobs if str(number(each.get("job_id"))) == job), None)
        return parse_json(found, name, lambda hosts: _geometry(hosts, run)) if found else None
    except UNREADABLE as error:
        raise NotUsable(f"its answer cannot be read: {error!r}") from None


def _geometry(hosts: str, run: Run) -> dict[str, Geometry]:
    answer = run(["scontrol", "--oneliner", "show", "node", hosts])
    if answer.status:
        raise NotUsable(f"scontrol show node: {_last_line(answer)}")
    found = {}
    for line in answer.output.splitlines():
        fields = dict(re.findall(r"(NodeName|CoresPerSocket|ThreadsPerCore)=(\S+)", line))
        if len(fields) == 3:
            found[fields["NodeName"]] = Geometry(
                cores_per_socket=int(fields["CoresPerSocket"]),
                threads_per_core=int(fields["ThreadsPerCore"]),
            )
    return found


def _look_for_json(program: str) -> Callable[[Run], str]:
    def look(run: Run) -> str:
        if "--json" not in run([program, "--help"]).output:
            raise NotUsable(f"this version of {program} has no --json")
        return f"{program} --json, {run([program, '--version']).output.strip()}"

    return look


# -- text ----------------------------------------------------------------------------------------

_FORMAT = "%A|%U|%u|%T|%N"
_LAYOUT = re.compile(r"^ +Nodes=(\S+) CPU_IDs=(\S+) Mem=([0-9]+) GRES=", re.MULTILINE)


def _ask_text(job: str, run: Run) -> JobInfo | None:
    """Of scontrol's text only the processors are taken: in the rest of it a job's name, which is
    the user's to choose, could pass for another field."""
    listed = run(["squeue", "--noheader", "--states=all", f"--jobs={job}", f"--format={_FORMAT}"])
    if listed.status:
        if _NO_SUCH.search(listed.errors):
            return None
        raise NotUsable(f"squeue: {_last_line(listed)}")
    rows = (line.strip().split("|") for line in listed.output.splitlines())
    row = next((row for row in rows if len(row) == 5 and row[0] == job), None)
    if row is None:
        return None
    details = run(["scontrol", "--details", "show", "job", job])
    if details.status and not _NO_SUCH.search(details.errors):
        raise NotUsable(f"scontrol: {_last_line(details)}")
    try:
        hosts = expand_hosts(row[4])
        return JobInfo(
            job=job,
            user_id=int(row[1]),
            user_name=row[2],
            state=base_state(row[3]),
            hosts=hosts,
            allocated={
                host: Allocation(cpu_ids=CpuSet.parse(cpu_ids), memory=int(memory) * MIB)
                for names, cpu_ids, memory in _LAYOUT.findall(details.output)
                for host in expand_hosts(names)
                if host in hosts
            },
            provider="text",
        )
    except UNREADABLE as error:
        raise NotUsable(f"its answer cannot be read: {error!r}") from None


def _look_for_text(run: Run) -> str:
    return f"text of squeue and scontrol, {run(['scontrol', '--version']).output.strip()}"


# -- what they share -----------------------------------------------------------------------------


def _json(answer: Answer, name: str) -> dict[str, Any]:
    if answer.status:
        raise NotUsable(f"{name} ended with {answer.status}: {_last_line(answer)}")
    try:
        told = json.loads(answer.output)
    except (ValueError, RecursionError):
        raise NotUsable(f"{name} did not answer in JSON") from None
    if not isinstance(told, dict):
        raise NotUsable(f"{name} did not answer with an object")
    return told


def _last_line(answer: Answer) -> str:
    lines = (answer.errors or answer.output).strip().splitlines()
    return lines[-1][:200] if lines else f"status {answer.status}"


QUERY_METHODS = (
    QueryMethod(name="pyslurm", ask=_ask_pyslurm, look=_look_at_pyslurm),
    QueryMethod(
        name="scontrol-json",
        ask=lambda job, run: _ask_json(
            "scontrol", ["scontrol", "--json", "show", "job", job], job, run
        ),
        look=_look_for_json("scontrol"),
    ),
    QueryMethod(
        name="squeue-json",
        ask=lambda job, run: _ask_json(
            "squeue", ["squeue", "--json", "--states=all", f"--jobs={job}"], job, run
        ),
        look=_look_for_json("squeue"),
    ),
    QueryMethod(name="text", ask=_ask_text, look=_look_for_text),
)
