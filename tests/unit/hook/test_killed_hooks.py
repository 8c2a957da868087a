"""Kill hooks at random moments.

An event is stored once, unless its hook was killed before it had delivered the event, and no
incomplete file stays. The events go to an agent, or to the spool.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from schedhook.hook.message import parse_message
from tests.pbs.mom import Mom, StandIn
from tests.unit.agent.test_killed import KILLS, Records, random_moments
from tests.unit.agentkit import HOOK, agent, answers, wait_for

CONTRIB = Path(__file__).parents[3] / "contrib"
DAY = 86400.0

Start = Callable[[Path, int], "subprocess.Popen[bytes]"]
"""Start the hook for the job of that number."""


def words(directory: Path, *event: str) -> list[str]:
    options = ["--socket", str(directory / "agent.sock"), "--spool", str(directory / "spool")]
    return [sys.executable, "-I", "-S", str(HOOK), *event, *options, "--strict"]


def start_program(directory: Path, job: int) -> subprocess.Popen[bytes]:
    told = json.dumps({"job": str(job)}).encode()
    process = subprocess.Popen(words(directory, "fake", "begin"), stdin=subprocess.PIPE, env={})
    assert process.stdin
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(told)
        process.stdin.close()
    return process


def start_prolog(directory: Path, job: int) -> subprocess.Popen[bytes]:
    """Start contrib/slurm's prolog with this socket and spool."""
    script = directory / "prolog"
    if not script.exists():
        text = (CONTRIB / "slurm/prolog").read_text()
        for old, new in (
            ("@PYTHON@ -I -S @HOOK@ slurm prolog", shlex.join(words(directory, "slurm", "prolog"))),
            ("@TIMEOUT@", "timeout"),
            ("@SECONDS@", "5"),
            ("@WAIT@", "3"),
            ("@LOGGER@", "true"),
        ):
            text = text.replace(old, new)
        script.write_text(text)
        script.chmod(0o755)
    environ = {"SLURM_JOB_ID": str(job), "PATH": os.environ["PATH"]}
    return subprocess.Popen([script], env=environ, start_new_session=True)


def start_pbs(directory: Path, job: int) -> subprocess.Popen[bytes]:
    """Start contrib/pbs's hook in the stand-in for PBS's interpreter."""
    mom = Mom(directory=directory / "pbs", alarm=30)
    program = directory / "schedhook"
    if not program.exists():
        mom.import_hook(CONTRIB / "pbs/schedhook.PY")
        program.write_text(f"#!/bin/sh\nexec {shlex.join(words(directory, 'pbs', 'begin'))}\n")
        program.chmod(0o755)
        mom.import_config(json.dumps({"program": str(program), "seconds": {"default": 20}}))
    told = {"type": 64, "requestor": "pbs_mom", "job": {"id": str(job)}}
    interpreter = StandIn(mom, "execjob_begin", told)
    config = {"PBS_HOOK_CONFIG_FILE": str(mom.hooks / f"{mom.name}.CF")}
    return subprocess.Popen(
        interpreter.words, env=config | interpreter.environ, cwd="/sys", start_new_session=True
    )


def family(pid: int) -> list[int]:
    """Return the process and its descendants, the process first."""
    found = [pid]
    for each in found:
        with contextlib.suppress(OSError):
            text = Path(f"/proc/{each}/task/{each}/children").read_text()
            found += map(int, text.split())
    return found


def kill_hooks(start: Start, directory: Path) -> tuple[set[str], set[str]]:
    """Return the jobs whose hooks ended by themselves, and those whose hooks were killed.

    What is killed is the hook's first process, one of its processes, or all of them at once.
    """
    moments = random_moments()
    done: set[str] = set()
    killed: set[str] = set()
    longest, number = 20.0, 0
    while len(killed) < KILLS:
        number += 1
        began = time.monotonic()
        with start(directory, number) as process:
            try:
                status = process.wait(moments.uniform(0, longest) if done else longest)
            except subprocess.TimeoutExpired:
                alive = family(process.pid)
                for pid in moments.choice([alive, alive[:1], [moments.choice(alive)]]):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                killed.add(str(number))
                process.wait()
                wait_for(lambda alive=alive: not any(map(runs, alive)))
            else:
                assert status == 0
                done.add(str(number))
                longest = time.monotonic() - began
    return done, killed


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def spooled(directory: Path) -> Counter[str]:
    """Return how often each job is in the spool; each file that an agent would read is complete."""
    messages = [parse_message(file.read_bytes()) for file in (directory / "spool").glob("*.event")]
    return Counter(
        each.environ.get("SLURM_JOB_ID") or str(job_of(json.loads(each.data))) for each in messages
    )


def job_of(told: dict[str, object]) -> object:
    job = told["job"]
    return job["id"] if isinstance(job, dict) else job


def check(told: Counter[str], done: set[str], killed: set[str]) -> None:
    given = killed & set(told)
    print(f"{len(killed)} killed, {len(given)} of them after delivery; {len(done)} not killed")
    assert set(told.values()) == {1}
    assert done <= set(told) <= done | killed
    assert given < killed, "none was killed before it had delivered its event"


def kept(directory: Path) -> Counter[str]:
    """Return how many events of each job are in the journal."""
    return Counter(job for (job,) in Records(directory).ask("SELECT job FROM events"))


def incomplete(directory: Path) -> list[Path]:
    return list((directory / "spool").glob("*.tmp"))


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.mark.usefixtures("umask")
@pytest.mark.parametrize("start", [start_program, start_prolog, start_pbs])
def test_hooks_that_fill_the_spool(here: Path, start: Start) -> None:
    done, killed = kill_hooks(start, here)
    check(spooled(here), done, killed)
    print(f"{len(incomplete(here))} incomplete files")
    old = time.time() - DAY
    for file in incomplete(here):
        os.utime(file, (old, old))
    os.utime(here / "spool")
    with agent(here):
        wait_for(lambda: not list((here / "spool").iterdir()))
    check(kept(here), done, killed)


@pytest.mark.parametrize("start", [start_program, start_prolog])
def test_hooks_that_send_to_an_agent(here: Path, start: Start) -> None:
    with agent(here) as process:
        descriptors = Path(f"/proc/{process.pid}/fd")
        before = len(list(descriptors.iterdir()))
        done, killed = kill_hooks(start, here)
        wait_for(lambda: not (here / "spool").exists() or not list((here / "spool").iterdir()))
        wait_for(lambda: len(list(descriptors.iterdir())) <= before + 1)
        assert answers(here / "agent.sock")
    check(kept(here), done, killed)
