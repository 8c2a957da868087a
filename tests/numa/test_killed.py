"""Kill relocations at random moments.

Afterwards the job's memory is intact, the job is thawed, and all of it is bound either to its old
processors or to its new ones.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

# Here, because each child would import them again: that took longer than all that it then did.
from schedhook.cli.commands import agent as _agent  # noqa: F401
from schedhook.cli.commands import recover as _recover  # noqa: F401
from schedhook.cli.commands import relocate as _relocate  # noqa: F401
from schedhook.cli.main import main
from tests.forked import in_child
from tests.numa.jobs import Job, cgroup
from tests.numa.killing import kill_after, random_moments, settle
from tests.numa.test_guard import run_command, run_hook

pytestmark = pytest.mark.nodes(4)

KILLS = int(os.environ.get("SCHEDHOOK_KILLS", "15"))
KILLS_TOGETHER = int(os.environ.get("SCHEDHOOK_KILLS", "5"))
MIB = 64
RATE = 32
"""MB/s."""
SECONDS = 10
"""How long a job may stay frozen or bound once an entry point has run."""


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


def kill_together(*pids: int) -> None:
    """Kill processes and their children, which are their rollback helpers."""
    doomed = []
    for pid in pids:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        doomed += [*map(int, children), pid]
    for pid in doomed:
        os.kill(pid, signal.SIGKILL)
    for pid in pids:
        os.waitpid(pid, 0)
    # A process that is exiting still has its locks, and counts as alive.
    assert settle(lambda: all(map(has_exited, doomed)), 30)


def has_exited(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True
    return stat.rpartition(")")[2].split()[0] in "ZX"


def test_whatever_runs_next_recovers_from_a_kill_of_all_at_once(tmp_path: Path) -> None:
    """The program that relocates, its helper and the agent are killed together."""
    moments = random_moments()
    words = ["agent", "--socket", f"{tmp_path}/s", "--spool", f"{tmp_path}/spool"]
    config = tmp_path / "config.toml"
    config.write_text(f'[journal]\npath = "{tmp_path}/journal.db"\n')

    def start_agent() -> int:
        return in_child(
            lambda: main([*words, "--config", str(config)], standalone_mode=False), tmp_path / "log"
        )

    agent = start_agent()

    def run_agent() -> None:
        nonlocal agent
        agent = start_agent()

    looks: dict[str, Callable[[], None]] = {
        "hook": run_hook,
        "show": lambda: run_command("show", "--pid", str(os.getpid()), "--json"),
        "recover": lambda: run_command("recover"),
        "agent": run_agent,
    }
    found = 0
    with cgroup("victim") as path, Job("anon", MIB, 0, cgroup=path) as job:
        freeze = path / "cgroup.freeze"
        contents = job.checksum()
        os.sched_setaffinity(job.pid, {0})

        def is_as_before() -> bool:
            thawed = freeze.read_text().strip() == "0"
            return thawed and bindings(job.pid) in ({frozenset({0})}, {frozenset({2})})

        for kill in range(KILLS_TOGETHER):
            there = min((0, 2), key=lambda node: job.residency().get(node, 0))
            relocate = ["relocate", "--pid", str(job.pid), "--map", f"{2 - there}:{there}"]
            relocate += ["--cpus", str(there), "--freeze", "--bandwidth", str(RATE)]
            mover = start_relocation(relocate)
            if kill % 2:  # while memory moves; else perhaps before
                assert settle(lambda: not is_as_before(), 60)
            time.sleep(moments.uniform(0, MIB / RATE))
            kill_together(mover, agent)
            found += not is_as_before()
            name = moments.choice(list(looks))
            looks[name]()
            assert settle(is_as_before, SECONDS), (
                kill,
                name,
                freeze.read_text(),
                bindings(job.pid),
            )
            if name != "agent":
                run_agent()
        assert job.checksum() == contents
        kill_together(agent)
    assert not any(Path("/run/schedhook/rollback").glob("*"))
    print(f"{KILLS_TOGETHER} kills, of which {found} left the job frozen or half bound")
    assert found
