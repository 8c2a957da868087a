"""Kill relocations at random moments.

Afterwards the job's memory is intact, the job is thawed, and all of it is bound either to its old
processors or to its new ones.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from schedhook.cli.main import main
from tests.forked import in_child
from tests.numa.jobs import Job, cgroup
from tests.numa.killing import kill_after, random_moments, settle

pytestmark = pytest.mark.nodes(4)

KILLS = int(os.environ.get("SCHEDHOOK_KILLS", "15"))
MIB = 64


def start_relocation(words: list[str]) -> int:
    """Start a child that runs `schedhook WORDS`."""
    return in_child(lambda: main(words, standalone_mode=False), Path(os.devnull))


def bindings(pid: int) -> set[frozenset[int]]:
    threads = Path(f"/proc/{pid}/task").iterdir()
    return {frozenset(os.sched_getaffinity(int(thread.name))) for thread in threads}


def test_a_killed_relocation_leaves_the_job_intact() -> None:
    moments = random_moments()
    took = 600.0  # until the first one has ended
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
            limit = moments.uniform(0, 1.2 * took) if finished else took
            status = kill_after(start_relocation(words), limit)
            if status is None:
                killed += 1
            else:
                finished += 1
                took = time.monotonic() - began
                assert status in (0, 3), status
                assert bindings(job.pid) == {frozenset({there})}
            assert settle(lambda: bindings(job.pid) in ({frozenset({0})}, {frozenset({2})}), 30)
            assert settle(lambda: freeze.read_text().strip() == "0", 30)
            if bindings(job.pid) == {frozenset({there})}:
                here, there = there, here
        assert job.checksum() == contents
        assert finished > 1, "most were killed before they had begun"
        print(f"{killed} killed, {finished} finished, the last in {took:.2f} s")
