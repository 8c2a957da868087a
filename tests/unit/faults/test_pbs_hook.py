"""contrib/pbs/schedhook.PY x faults of what it calls: accepted within the limit, one line in PBS's
log or the system's that names the fault. tests/pbs has those of its own program and configuration.
"""

from __future__ import annotations

import json
import os
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from schedhook import delivery
from tests.pbs.mom import EVENTS, Mom
from tests.unit.faults.faults import HOST, KEPT, PROGRAM, an_agent, served_with
from tests.unit.faults.room import Room, room

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounts file systems")

CONTRIB = Path(__file__).parents[3] / "contrib/pbs"
HOOK = [sys.executable, "-I", "-S", str(Path(delivery.__file__).with_name("hook.py"))]
WANTS = {name: PROGRAM[name] for name in PROGRAM if name.startswith(("no ", "few "))}
"""tests/pbs has the other faults of the program."""
WAITING = ("execjob_resize", "execjob_postsuspend", "execjob_preresume")
ALARM = 12
_DONE = "no process here|suspended|nothing to mend|not done after"
JOB = {"id": "7.n1", "euser": "root", "exec_vnode": "(n1[0]:ncpus=1)", "session_id": 1}


def told_by(event: str, job: dict[str, Any]) -> dict[str, Any]:
    if event.startswith("exechost"):
        return {"vnode_list": {}, "job_list": {job["id"]: job}}
    return {"job": job, "vnode_list": {}, "pid": 99}


def run_hook(
    inside: Room, program: list[str], seconds: float = 4.5, job: dict[str, Any] | None = None
) -> dict[str, list[str]]:
    """Let the hook see every event; what each of them logged, in PBS's log and the system's."""

    def run(event: str) -> tuple[str, list[str]]:
        directory = inside.directory / event
        directory.mkdir(exist_ok=True)
        mom = Mom(directory=directory, alarm=ALARM, within=inside.words("/sys"))
        mom.import_hook(CONTRIB / "schedhook.PY")
        mom.import_config(json.dumps({"program": program, "seconds": {"default": seconds}}))
        result = mom.run(event, **told_by(event, job or JOB))
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


def check(lines: dict[str, list[str]], named: str) -> None:
    for event, told in lines.items():
        assert any(re.search(named, line) for line in told), (event, told)


@pytest.mark.parametrize("name", HOST | WANTS)
def test_a_hook_accepts_whatever_is_wrong_with_the_host(
    here: Path, name: str, count: list[int]
) -> None:
    fault = (HOST | WANTS)[name]
    wrapper = here / "python"
    wrapper.write_text(f"#!/bin/sh\n{fault.wrapper}\n")
    wrapper.chmod(0o755)
    (here / "room").mkdir()
    with room(here / "room") as inside, fault.during(inside):
        lines = run_hook(inside, [str(wrapper), *HOOK])
    # Whoever has to wait and finds no agent has it done in process, and needs no spool.
    if name in HOST and name != "agent talks garbage":
        for event in WAITING:
            check({event: lines.pop(event)}, _DONE)
    check(lines, fault.named or "handed over|periodic|startup|\\?\\[31m")
    count[0] += len(EVENTS)


@pytest.mark.parametrize("name", KEPT)
def test_a_broken_journal_without_an_agent(here: Path, name: str, count: list[int]) -> None:
    """Whoever has to wait has the journal opened in process; the others leave the event."""
    fault = KEPT[name]
    (here / "room").mkdir()
    with room(here / "room") as inside, fault.during(inside):
        lines = run_hook(inside, HOOK)
    waiting = {event: lines.pop(event) for event in WAITING}
    # Nobody waits so long for the lock; the process that handles it goes on.
    check(waiting, "not done after" if name == "journal locked" else fault.named)
    check(lines, "waits in /var/spool/schedhook")
    count[0] += len(EVENTS)


@pytest.mark.parametrize("name", [name for name in KEPT if name != "journal locked"])
def test_a_broken_journal_with_an_agent(here: Path, name: str, count: list[int]) -> None:
    fault = KEPT[name]
    (here / "room").mkdir()
    with room(here / "room") as inside, served_with(fault.during)(inside):
        lines = run_hook(inside, HOOK)
        told = (inside.directory / "agent.log").read_text().splitlines()
    assert any(re.search(fault.named, line) for line in told), told
    check({event: lines[event] for event in WAITING}, _DONE)
    count[0] += len(EVENTS)


CONFIGURATIONS = {
    "missing": (None, "no such configuration file"),
    "not TOML": (b"[agent\n", "not TOML"),
    "unknown key": (b"[agent]\nsokcet = 1\n", "did you mean socket"),
    "wrong value": (b"[agent]\nworkers = 0\n", "at least 1"),
    "not UTF-8": (b"\xff\xfe", "not UTF-8"),
    "nested without end": (b"x = " + b"[" * 100_000, "not TOML"),
    "others write it": (b"", "may be written by others"),
    "a directory": (None, "Is a directory"),
}


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_whatever_the_configuration_is(here: Path, name: str, count: list[int]) -> None:
    text, named = CONFIGURATIONS[name]
    path = here / "config.toml"
    if text is not None:
        path.write_bytes(text)
        path.chmod(0o666 if name == "others write it" else 0o644)
    elif name == "a directory":
        path.mkdir()
    program = here / "schedhook"
    program.write_text(
        f"#!/bin/sh\nexport SCHEDHOOK_CONFIG={path}\n"
        f'exec {sys.executable} -P -c "from schedhook.cli.main import run; run()" event "$@"\n'
    )
    program.chmod(0o755)
    (here / "room").mkdir()
    with room(here / "room") as inside:
        lines = run_hook(inside, [str(program)], 8.0)
    check(lines, named)
    count[0] += len(EVENTS)


JOBS = {
    "of two lines": {"id": "7\nschedhook: all is well"},
    "a path": {"id": "../../../etc/passwd"},
    "a command": {"id": "$(touch /run/pwned)`touch /run/pwned`;touch /run/pwned"},
    "not ASCII": {"id": "7.\u202e\U0001f600"},
    "very long": {"id": "7" * 5000},
    "without a name": {"id": "-"},
}


@pytest.mark.parametrize("name", JOBS)
def test_whatever_a_job_is_called(here: Path, name: str, count: list[int]) -> None:
    (here / "room").mkdir()
    with room(here / "room") as inside, an_agent(inside):
        lines = run_hook(inside, HOOK, job=JOB | JOBS[name])
        inside.sh("! test -e /run/pwned")
    told = {event: said for event, said in lines.items() if event.startswith("execjob")}
    check(told, "is not a job's id")
    count[0] += len(EVENTS)
