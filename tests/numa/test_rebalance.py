"""`rebalance` on the real kernel: jobs on each other's nodes, which have no room for both."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from schedhook.cli.main import main
from schedhook.host.page_sizes import BASE_PAGE
from schedhook.host.pagesets import find_largest_pagesets
from schedhook.journal.journal import Journal
from tests.forked import in_child
from tests.numa.agents import running_agent
from tests.numa.dirt import count_killed, taken
from tests.numa.jobs import MIB, Job, drop_caches, free_bytes, numa_stat, repeating, until
from tests.numa.killing import kill_after
from tests.numa.slurm_jobs import slurm_job

pytestmark = pytest.mark.nodes(4)

SIZE = 128
"""MiB of a job."""
FREE = 64
"""MiB that are free on each node."""
FREE_BESIDE_AGENT = 96
"""The kernel keeps 45 of them for itself, and the agent takes some tens."""
LITTLE = 10
"""MiB that are free on a full node: what the kernel keeps for itself."""
OWN = 2 * MIB
"""Bytes of a program besides the memory that it fills."""
KEPT = 16
"""MiB: a quarter of the reserve."""
MOST_LEFT = 16 * MIB
RING = {"1": (0, 1), "2": (1, 2), "3": (2, 0)}
"""The node of each job's processor, and the one on which its memory is."""


@dataclass
class Away:
    """A job whose memory is away from its node."""

    home: int
    cgroup: Path
    task: Job
    checksum: str

    def assert_home(self) -> None:
        assert self.task.checksum() == self.checksum
        found = numa_stat(self.cgroup, "anon")
        assert found[self.home] >= SIZE * MIB
        assert sum(found.values()) - found[self.home] < OWN, found


@contextmanager
def away(
    where: dict[str, tuple[int, int]],
    kind: str = "anon",
    *,
    full: tuple[int, ...] = (),
    free: int = FREE,
    larger: str = "",
) -> Iterator[dict[str, Away]]:
    """Start jobs by id, each with its memory on another node than its processor's.

    Fill the host up to `free` MiB, and some nodes so that they have no room at all. One job may be
    larger than the others, by 1 MiB.
    """
    drop_caches()
    killed = count_killed()
    jobs = {}
    with ExitStack() as stack:
        for name, (home, at) in where.items():
            path, (task,) = stack.enter_context(
                slurm_job(name, SIZE + (name == larger), (home,), memory=(at,), kind=kind)
            )
            jobs[name] = Away(home, path, task, task.checksum())
        for node in range(4):
            stack.enter_context(taken(node, leave=LITTLE if node in full else free))
        try:
            yield jobs
        finally:
            print_free_pages()  # shown where the test fails
    assert count_killed() == killed


def print_free_pages() -> None:
    """Print how much is free on each node, and how much more a processor keeps for itself."""
    cpus = sorted(os.sched_getaffinity(0))
    for node in range(4):
        found = {cpu: find_largest_pagesets({cpu}, Path("/"), BASE_PAGE)[node] for cpu in cpus}
        kept = {cpu: each.size // MIB for cpu, each in found.items()}
        print(f"node {node}: {free_bytes(node) // MIB} MiB free, and MiB by processor: {kept}")


def moving(jobs: dict[str, Away]) -> None:
    """Wait until memory of jobs comes home."""

    def at_home() -> int:
        return sum(job.task.residency().get(job.home, 0) for job in jobs.values())

    before = at_home()
    until(lambda: at_home() >= before + 8 * MIB, seconds=120)


@contextmanager
def least_free() -> Iterator[dict[int, int]]:
    """Watch the nodes, and say in the end how much of each was free at least, in bytes."""
    found = {node: free_bytes(node) for node in range(4)}

    def watch() -> None:
        for node, size in list(found.items()):
            found[node] = min(size, free_bytes(node))

    with repeating(watch, 0.005):
        yield found


@pytest.fixture(autouse=True)
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path, config = tmp_path / "state" / "journal.db", tmp_path / "config.toml"
    config.write_text(f'[journal]\npath = "{path}"\n')
    monkeypatch.setenv("SCHEDHOOK_CONFIG", str(config))
    return path


def recorded(journal: Path) -> list[tuple[str, str]]:
    with sqlite3.connect(journal) as database:
        return list(database.execute("SELECT job, outcome FROM reports ORDER BY id"))


def outcomes(shown: dict[str, Any]) -> dict[str, str]:
    return {each["job"]: each["outcome"] for each in shown["jobs"]}


def test_the_ring_of_three_jobs(run: Any, journal: Path) -> None:
    with away(RING) as jobs:
        assert run("relocate", "--all", "--home")[0] == 4, "one job at a time has no room"
        earlier = len(recorded(journal))
        before = {name: numa_stat(job.cgroup, "anon") for name, job in jobs.items()}
        status, plan = run("rebalance", "--dry-run")
        assert (status, set(outcomes(plan).values())) == (0, {"planned"})
        for row in plan["matrix"]:
            home, at = RING[row["job"]]
            assert (row["from"], row["to"]) == (at, home)
            assert row["bytes"] == pytest.approx(before[row["job"]][at], rel=0.02)
        assert numa_stat(jobs["1"].cgroup, "anon") == before["1"]
        with least_free() as free:
            status, shown = run("rebalance")
        assert (status, set(outcomes(shown).values())) == (0, {"complete"}), shown["jobs"]
        for name, job in jobs.items():
            job.assert_home()
            moved = next(each["bytes_moved"] for each in shown["jobs"] if each["job"] == name)
            gained = numa_stat(job.cgroup, "anon")[job.home] - before[name].get(job.home, 0)
            assert moved == pytest.approx(gained, rel=0.02)
        assert min(free.values()) >= (KEPT - 4) * MIB, free
        assert recorded(journal)[earlier:] == [(name, "complete") for name in RING]
        assert set(outcomes(run("rebalance")[1]).values()) <= {"nothing-to-do", "complete"}


@pytest.mark.short(1)
@pytest.mark.parametrize("kind", ["thp", "anon"])
def test_two_jobs_swap(run: Any, kind: str) -> None:
    with away({"1": (3, 2), "2": (2, 3)}, kind) as jobs:
        status, shown = run("rebalance")
        assert (status, set(outcomes(shown).values())) == (0, {"complete"}), shown["jobs"]
        for job in jobs.values():
            job.assert_home()


@pytest.mark.short(0)
def test_a_job_that_ends_meanwhile(run: Any) -> None:
    with away(RING) as jobs:
        ending = threading.Thread(target=lambda: (moving(jobs), jobs["2"].task.process.kill()))
        ending.start()
        status, shown = run("rebalance", "--bandwidth", 60)
        ending.join()
        assert status in (0, 3)
        found = outcomes(shown)
        assert (found["1"], found["3"]) == ("complete", "complete"), shown["jobs"]
        jobs["1"].assert_home()
        jobs["3"].assert_home()


@pytest.mark.short(0)
def test_a_rebalance_that_is_killed(run: Any, tmp_path: Path) -> None:
    """Jobs are unharmed. A node is fuller than before: with less of a reserve the ring ends."""
    with away(RING) as jobs:
        for seconds in (1.5, 4.0, 8.0):
            child = in_child(
                lambda: main(["rebalance", "--bandwidth", "20"], standalone_mode=False),
                tmp_path / "log",
            )
            kill_after(child, seconds)
            assert [job.task.checksum() for job in jobs.values()] == [
                job.checksum for job in jobs.values()
            ]
        status, shown = run("rebalance", "--reserve", 8)
        assert status == 0, shown["jobs"]
        for job in jobs.values():
            job.assert_home()


def test_a_job_that_cannot_go_home(run: Any, journal: Path) -> None:
    with away(RING | {"4": (0, 3)}) as jobs:
        status, shown = run("rebalance")
        assert status == 4
        assert outcomes(shown) == dict.fromkeys(RING, "complete") | {"4": "refused"}
        assert "node 0 has no room" in shown["jobs"][3]["notes"][-1]
        for name in RING:
            jobs[name].assert_home()
        assert jobs["4"].task.share_on(3) == 1
        assert jobs["4"].task.checksum() == jobs["4"].checksum
        assert sorted(recorded(journal))[-1] == ("4", "refused")


@pytest.mark.short(0)
def test_full_nodes_borrow_the_room_of_another(run: Any) -> None:
    """They may become as full as they were, so what else grows there meanwhile holds pages back."""
    with away({"1": (1, 2), "2": (2, 1)}, full=(1, 2)) as jobs:
        status, shown = run("rebalance")
        assert status in (0, 3)
        for report in shown["jobs"]:
            assert report["bytes_left"] <= MOST_LEFT, report
            assert set(report["left_by_reason"]) <= {"reserve"}, report
        for job in jobs.values():
            assert job.task.residency()[job.home] >= SIZE * MIB - MOST_LEFT
            assert job.task.checksum() == job.checksum


def test_an_agent_lets_jobs_trade_places(tmp_path: Path) -> None:
    """With keep_local, and without a command: each waits for room until the last one does, too.

    To a node of which less than the reserve is free one of them brings 1 MiB more than leaves it.
    """
    config = tmp_path / "config.toml"
    config.write_text(f'[journal]\npath = "{tmp_path}/db"\n[actions]\nkeep_local = true\n')
    options = ["--config", config, "--socket", tmp_path / "s", "--spool", tmp_path / "spool"]
    end = str(int(time.time()) + 7200)
    with (
        patch.dict(os.environ, SLURM_JOB_END_TIME=end),
        away(RING, free=FREE_BESIDE_AGENT, larger="1") as jobs,
        running_agent(tmp_path / "log", *options),
    ):
        until(lambda: all(_is_home(job) for job in jobs.values()), 300)
        for job in jobs.values():
            job.assert_home()
    with Journal.open(tmp_path / "db", create=False) as journal:
        said = [
            event["summary"]
            for name in jobs
            for run in journal.history(name)
            for event in run["events"]
            if event["point"] == "keep-local"
        ]
    assert sum("traded places with" in each for each in said) == len(jobs), said


def _is_home(job: Away) -> bool:
    return numa_stat(job.cgroup, "anon")[job.home] >= SIZE * MIB
