"""SIGKILL at random moments: the job is whole, thawed, and bound to its old processors or its new
ones, all of it."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from schedhook.cli.main import main
from tests.numa.jobs import Job, cgroup

pytestmark = pytest.mark.nodes(4)

KILLS = 100
MIB = 16


def run_in_child(words: list[str]) -> int:
    """`schedhook words` in a child, whose imports are done already; its process."""
    child = os.fork()
    if child:
        return child
    status = 70
    try:
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        status = int(main(words, standalone_mode=False) or 0)
    finally:
        os._exit(status)


def kill_after(child: int, seconds: float) -> int | None:
    """Its exit status, None where it was killed."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return None if os.WIFSIGNALED(status) else os.waitstatus_to_exitcode(status)


def settle(condition: Callable[[], bool]) -> bool:
    """Whether it comes true soon: whoever guards has to wake up first."""
    end = time.monotonic() + 30
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()


def bindings(pid: int) -> set[frozenset[int]]:
    threads = Path(f"/proc/{pid}/task").iterdir()
    return {frozenset(os.sched_getaffinity(int(thread.name))) for thread in threads}


def test_a_killed_relocation_leaves_the_job_whole() -> None:
    chance = random.Random(os.environ.get("SCHEDHOOK_SEED", "1"))
    took = 600.0  # what the first one needs is known when it has ended
    killed = finished = 0
    with cgroup("victim") as path, Job("anon", MIB, 0, cgroup=path) as job:
        freeze = path / "cgroup.freeze"
        contents = job.checksum()
        os.sched_setaffinity(job.pid, {0})
        here, there = 0, 2
        while killed < KILLS:
            words = ["relocate", "--pid", str(job.pid), "--map", f"{here}:{there}", "--json"]
            words += ["--cpus", str(there), "--freeze"]
            began = time.monotonic()
            limit = chance.uniform(0, 1.2 * took) if finished else took
            status = kill_after(run_in_child(words), limit)
            if status is None:
                killed += 1
            else:
                finished += 1
                took = time.monotonic() - began
                assert status in (0, 3), status
                assert bindings(job.pid) == {frozenset({there})}
            assert settle(lambda: bindings(job.pid) in ({frozenset({0})}, {frozenset({2})}))
            assert settle(lambda: freeze.read_text().strip() == "0")
            if bindings(job.pid) == {frozenset({there})}:
                here, there = there, here
        assert job.checksum() == contents
        assert finished > 1, "most were killed before they had done anything"
        print(f"{killed} killed, {finished} finished, the last in {took:.2f} s")
