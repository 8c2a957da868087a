"""contrib/pbs/schedhook.PY x faults of what it calls: accepted within the limit, one line in PBS's
log or the system's that names the fault. tests/pbs has those of its own program and configuration.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from schedhook.hook import delivery
from tests.pbs.mom import EVENTS, Mom
from tests.unit.conftest import Count
from tests.unit.faults.faults import (
    CONFIGURATIONS,
    ENVIRONMENT,
    HOST,
    KEPT,
    PROGRAM,
    UNREACHED,
    an_agent,
    configuration,
    served_with,
)
from tests.unit.faults.room import Room, room

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounts file systems")

CONTRIB = Path(__file__).parents[3] / "contrib/pbs"
RUN = str(Path(delivery.__file__).with_name("run.py"))
HOOK = [sys.executable, "-I", "-S", RUN, "--patience=1"]
"""On a loaded host an agent takes longer than a hook waits for it."""
WANTS = {
    name: PROGRAM[name]
    for name in PROGRAM
    if name.startswith(("no ", "few ", "run.py", "delivery.py"))
}
"""tests/pbs tests the other faults of the program."""
WAITING = ("execjob_resize", "execjob_postsuspend", "execjob_preresume")
ALARM = 12
SECONDS = {"default": 8.0}
SOONER = SECONDS | {"resize": 3.0, "postsuspend": 3.0, "preresume": 3.0}
"""Limits if there is nothing to wait for. Program and hook give up at about the same time."""
SOON = {"default": 3.0}
"""Limits if the program hangs at every event."""
IMPATIENT = [*HOOK, "--timeout", "1"]
"""For events that only wait for the agent's `ok`."""
_DONE = "no processes here|the job has ended|not finished after"
"""Results of the events that wait: the room has no such processes, and all events run at once."""
_GAVE_UP = "not finished after|no answer within"
JOB = {"id": "7.n1", "euser": "root", "exec_vnode": "(n1[0]:ncpus=1)", "session_id": 1}


def told_by(event: str, job: dict[str, Any]) -> dict[str, Any]:
    if event.startswith("exechost"):
        return {"vnode_list": {}, "job_list": {job["id"]: job}}
    return {"job": job, "vnode_list": {}, "pid": 99}


def few_processes(most: int, event: str) -> list[str]:
    """Return words that limit the command after them to `most` processes, itself included.

    Root has no such limit, see setrlimit(2): so the command runs as a user that has no other
    process, with root's access to files.
    """
    user = 100_000 + os.getpid() * len(EVENTS) + list(EVENTS).index(event)
    identity = ["/usr/bin/setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"]
    rights = ["--inh-caps=-all,+dac_override", "--ambient-caps=+dac_override"]
    return [*identity, *rights, "/usr/bin/prlimit", f"--nproc={most}"]


def run_hook(
    inside: Room,
    program: list[str],
    seconds: Mapping[str, float] = SECONDS,
    job: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
    processes: int | None = None,
) -> dict[str, list[str]]:
    """Run the hook for each event, and return its lines in PBS's log and the system log.

    `processes` limits the number of processes of each hook.
    """

    def run(event: str) -> tuple[str, list[str]]:
        directory = inside.directory / event
        directory.mkdir(exist_ok=True)
        mom = Mom(
            directory=directory,
            alarm=ALARM,
            within=inside.words("/sys") + (few_processes(processes, event) if processes else []),
            environ=environ or {},
        )
        mom.import_hook(CONTRIB / "schedhook.PY")
        mom.import_config(json.dumps({"program": program, "seconds": seconds}))
        result = mom.run(event, **told_by(event, JOB | dict(job or {})))
        assert result.accepted, (event, result.errors)
        assert not result.timed_out
        assert result.errors == ""
        lines = [*result.host_log, *(line for _, line in result.job_log)]
        assert len(lines) == 1, (event, lines)
        assert lines[0].isprintable()
        return event, lines

    with ThreadPoolExecutor(len(EVENTS)) as pool:
        lines = dict(pool.map(run, EVENTS))
    for line in inside.logged():
        assert line.isprintable()
        for event in EVENTS:
            if f"pbs {event.partition('_')[2]}:" in line:
                lines[event].append(line)
    return lines


def check(lines: Mapping[str, list[str]], named: str) -> None:
    for event, told in lines.items():
        assert any(re.search(named, line) for line in told), (event, named, told)


@pytest.mark.parametrize("name", HOST | WANTS)
def test_a_hook_accepts_under_each_fault_of_the_host(name: str, here: Path, count: Count) -> None:
    fault = (HOST | WANTS)[name]
    python = fault.python(here / "python")
    (here / "room").mkdir()
    with room(here / "room") as inside, fault.during(inside):
        if fault.waits:
            lines = run_hook(inside, [str(python), *IMPATIENT], SOONER if fault.named else SOON)
        else:
            lines = run_hook(inside, [str(python), *HOOK])
    # An event that waits is handled without an agent, and needs no spool.
    if name in HOST and "garbage" not in name:
        for event in WAITING:
            check({event: lines.pop(event)}, f"{_DONE}|{_GAVE_UP}" if fault.waits else _DONE)
    check(lines, fault.named or "handed over|event is kept|no answer within")
    count(len(EVENTS))


@pytest.mark.parametrize("name", KEPT)
def test_a_damaged_journal_without_an_agent(name: str, here: Path, count: Count) -> None:
    """An event that waits is handled here, with the journal; the others go to the spool."""
    fault = KEPT[name]
    (here / "room").mkdir()
    with room(here / "room") as inside, fault.during(inside):
        lines = run_hook(inside, HOOK, SOONER if fault.waits else SECONDS)
    waiting = {event: lines.pop(event) for event in WAITING}
    # The hook gives up before the lock is free; the process that handles the event goes on.
    check(waiting, _GAVE_UP if name == "journal locked" else fault.named)
    check(lines, "kept in /var/spool/schedhook")
    count(len(EVENTS))


@pytest.mark.parametrize("name", [name for name in KEPT if name != "journal locked"])
def test_a_damaged_journal_with_an_agent(name: str, here: Path, count: Count) -> None:
    fault = KEPT[name]
    (here / "room").mkdir()
    with room(here / "room") as inside, served_with(fault.during)(inside):
        lines = run_hook(inside, HOOK)
        told = (inside.directory / "agent.log").read_text().splitlines()
    assert any(re.search(fault.named, line) for line in told), told
    check({event: lines[event] for event in WAITING}, _DONE)
    count(len(EVENTS))


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_a_hook_accepts_with_each_configuration(name: str, here: Path, count: Count) -> None:
    path = configuration(name, here / "config.toml")
    program = here / "schedhook"
    program.write_text(
        f"#!/bin/sh\nexport SCHEDHOOK_CONFIG={path}\n"
        f'exec {sys.executable} -P -c "from schedhook.cli.main import run; run()" event "$@"\n'
    )
    program.chmod(0o755)
    (here / "room").mkdir()
    with room(here / "room") as inside:
        lines = run_hook(inside, [str(program)])
    check(lines, CONFIGURATIONS[name][1])
    count(len(EVENTS))


def test_a_hook_accepts_if_no_process_can_be_created(here: Path, count: Count) -> None:
    """The hook cannot start its program, or the program not the one that handles an event.

    Only events that wait need the latter.
    """
    named = "(no process to be had|cannot start a process): Resource temporarily unavailable"
    (here / "room").mkdir()
    with room(here / "room") as inside:
        check(run_hook(inside, HOOK, processes=1), f"not handed over: .*{named}")
        lines = run_hook(inside, HOOK, processes=2)
        check({event: lines.pop(event) for event in WAITING}, named)
        check(lines, UNREACHED)
    count(2 * len(EVENTS))


NO_JOB, NO_MATTER = "is not a job's id", "handed over|" + _DONE
JOBS: Mapping[str, tuple[Mapping[str, Any], str]] = {
    "called two lines": ({"id": "7\nschedhook: all is well"}, NO_JOB),
    "called a path": ({"id": "../../../etc/passwd"}, NO_JOB),
    "called a command": ({"id": "$(touch /run/pwned)`touch /run/pwned`;touch /run/pwned"}, NO_JOB),
    "called what is not ASCII": ({"id": "7.\u202e\U0001f600"}, NO_JOB),
    "called something very long": ({"id": "7" * 5000}, NO_JOB),
    "called nothing": ({"id": "-"}, NO_JOB),
    "of two users": ({"euser": "root\nschedhook: all is well"}, NO_MATTER),
    "of a command": ({"euser": "$(touch /run/pwned)`touch /run/pwned`"}, NO_MATTER),
    "on a path": ({"exec_vnode": "(../../etc[0]:ncpus=1)+("}, NO_MATTER),
    "on a command": ({"exec_host2": "$(touch /run/pwned):;|&\x1b[31m"}, NO_MATTER),
    "on very many vnodes": (
        {"exec_vnode": "+".join(f"(n1[{number}]:ncpus=1)" for number in range(20_000))},
        NO_MATTER,
    ),
    "on no vnode at all": ({"exec_vnode": "\ud83d\x00\x01%00\\0" * 1000}, NO_MATTER),
    "of more than a MiB": ({"schedselect": "1:x=" + "x" * (1 << 20)}, "more than 1048576"),
}


def test_a_hook_accepts_each_job(here: Path, count: Count) -> None:
    (here / "room").mkdir()
    with room(here / "room") as inside, an_agent(inside):
        for job, named in JOBS.values():
            lines = run_hook(inside, HOOK, job=job)
            told = {event: said for event, said in lines.items() if event.startswith("execjob")}
            check(told, named)
        inside.sh("! test -e /run/pwned")
    count(len(EVENTS) * len(JOBS))


def test_a_hook_accepts_each_environment(here: Path, count: Count) -> None:
    """PBS's environment does not reach the program."""
    environ = {
        name.replace("SLURM", "PBS"): value
        for fault in ENVIRONMENT.values()
        for name, value in fault.environ.items()
        if not name.startswith(("PYTHON", "LD_"))  # PBS's own interpreter ignores them
    }
    (here / "room").mkdir()
    with room(here / "room") as inside, an_agent(inside):
        check(run_hook(inside, HOOK, environ=environ), "handed over|periodic|startup|" + _DONE)
        inside.sh("! test -e /run/pwned")
    count(len(EVENTS))
