"""Relocations while the kernel's NUMA balancing marks the same pages, and moves some itself."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from schedhook.control.cpu_map import relative
from schedhook.control.cpu_move import CpusetChange, move_processors
from schedhook.host.cgroups import resolve_cgroup
from schedhook.values.sets import CpuSet
from schedhook_plugins.schedulers.slurm.command import command
from tests.numa.jobs import MIB, Job, is_at_least, khugepaged_at_rest, until
from tests.numa.puppet import HOME, PAGE, Memory, Puppet
from tests.numa.slurm_jobs import SCOPE, slurm_job
from tests.numa.test_page_situations import vmstat
from tests.numa.test_relocate import anonymous

pytestmark = [pytest.mark.nodes(4), pytest.mark.balancing("on")]

JOB = "4713"
SIZE = 16
"""MiB of each task: the kernel marks all of it again and again."""
PAGES = 64
PATIENCE = 120
"""Seconds for the kernel to mark pages: it scans as the process uses its processor."""
BUSY_ROUNDS = 50
"""How often the process reads its memory before it is asked whether the kernel has scanned."""
BUSY_HOST_SECONDS = 2
"""Between the change of a cpuset and the binding of each thread in it."""
ABOUT = 3 * MIB
"""The kernel can make a huge page of a few small ones meanwhile, which takes more memory."""
ENOUGH = 0.999
STRATEGIES = ["move-pages", "migrate-process"]
KINDS = ["thp", "anon"]


@pytest.fixture
def tasks() -> Iterator[list[Job]]:
    """Start a job of two tasks, on nodes 1 and 3, that write to all of their memory."""
    with slurm_job(JOB, SIZE, (1, 3)) as (_, tasks):
        for task in tasks:
            task.say("write")
        yield tasks


@pytest.fixture
def rounds(pytestconfig: pytest.Config) -> int:
    """Return how often the job is moved: 30 times with --thorough."""
    return 30 if pytestconfig.getoption("thorough") else 2


@pytest.fixture
def job_migrate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run the command in this process; return its exit status and what was done on this host."""
    config = tmp_path / "config.toml"
    config.write_text(f'[journal]\npath = "{tmp_path}/journal.db"\n')
    options = ["--this-host", "--config", str(config), "--json"]

    def run(cpus: str) -> tuple[int, dict[str, Any]]:
        capsys.readouterr()
        status = command.main([JOB, "--cpus", cpus, *options], standalone_mode=False)
        (result,) = json.loads(capsys.readouterr().out)["hosts"]
        return status, result

    return run


def test_tasks_of_a_job_follow_there_and_back(
    tasks: list[Job], job_migrate: Any, rounds: int
) -> None:
    """Node 1 is left by one task's memory and filled by the other's, in either direction."""
    sums, left = [task.checksum() for task in tasks], list[int]()
    for round_ in range(rounds):
        nodes, cpus = ((1, 3), "1,3") if round_ % 2 else ((0, 1), "0-1")
        status, result = job_migrate(cpus)
        assert (status, result["outcome"]) == (0, "complete"), result
        left.append(result["bytes_left"])
        where = [task.residency() for task in tasks]
        for task, node, its in zip(tasks, nodes, where, strict=True):
            assert its.get(node, 0) >= ENOUGH * task.bytes, (round_, where, result)
    assert sum(left) <= MIB, left
    assert [task.checksum() for task in tasks] == sums


@pytest.mark.short(1)
def test_a_task_runs_on_no_processor_of_another(tasks: list[Job]) -> None:
    """Linux before 6.2 drops its binding as its cpuset changes, and its pages would follow it."""
    old, new = CpuSet({1, 3}), CpuSet({0, 2})
    change = CpusetChange(cgroup=resolve_cgroup(str(SCOPE / f"job_{JOB}")), cpus=new)

    def bind(_pid: int, had: CpuSet) -> CpuSet:
        assert (change.cgroup.path / "cgroup.freeze").read_text() == "1\n"
        time.sleep(BUSY_HOST_SECONDS)
        return relative(had, old, new)

    with busy(1), busy(3):
        done = move_processors([change], lambda: [task.pid for task in tasks], bind, lambda: None)
    assert done.done, done
    for task, nodes in zip(tasks, ({0, 1}, {2, 3}), strict=True):
        assert set(task.residency()) <= nodes, [task.residency() for task in tasks]


@contextmanager
def busy(cpu: int) -> Iterator[None]:
    """Keep a processor busy, so that the kernel prefers another one for a thread."""
    command = ["taskset", "-c", str(cpu), "sh", "-c", "while :; do :; done"]
    with subprocess.Popen(command) as process:
        try:
            yield
        finally:
            process.kill()


@contextmanager
def stopped_job(kind: str) -> Iterator[Job]:
    """Yield a job that has memory on nodes 0 and 1, some of it marked, and that stands still."""
    # khugepaged would add pages to the job while it stands still.
    with khugepaged_at_rest(), Job(kind, SIZE, 0) as job:
        job.say(f"touch {SIZE // 2} 1")
        scans = int(vmstat("numa_pte_updates"))
        job.say("write")
        until(lambda: int(vmstat("numa_pte_updates")) > scans + PAGES, PATIENCE)
        os.kill(job.pid, signal.SIGSTOP)
        yield job


@pytest.mark.short(1)
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_stopped_job_moves_in_a_chain(run: Any, kind: str, strategy: str) -> None:
    """Each step of the map is moved, marked pages included, before memory arrives there."""
    with stopped_job(kind) as job:
        before = anonymous(job)
        status, report = run(
            "relocate", "--pid", job.pid, "--map", "0:1,1:2", "--strategy", strategy
        )
        assert (status, report["outcome"]) == (0, "complete"), report
        after = anonymous(job)
        assert after[0] == 0
        assert after[1] == pytest.approx(before[0], abs=ABOUT)
        assert after[2] == pytest.approx(before[2] + before[1], abs=ABOUT)


@pytest.mark.short(1)
@pytest.mark.parametrize("kind", KINDS)
def test_a_stopped_job_changes_places(run: Any, kind: str) -> None:
    """What is marked stays, since only a step by itself could move it, and is counted."""
    with stopped_job(kind) as job:
        before = anonymous(job)
        status, report = run("relocate", "--pid", job.pid, "--map", "0:1,1:0")
        left, after = report["bytes_left"], anonymous(job)
        assert status == (3 if left else 0), report
        assert set(report["left_by_reason"]) <= {"hidden"}, report
        assert report["bytes_planned"] == pytest.approx(before[0] + before[1], abs=ABOUT)
        assert after[0] + after[1] == pytest.approx(before[0] + before[1], abs=ABOUT)
        assert abs(after[1] - before[0]) <= left + ABOUT, (before, after, report)


@pytest.fixture
def marked() -> Iterator[tuple[Puppet, Memory]]:
    """Start a process whose memory on node 0 is marked, and which does not use it."""
    with Puppet() as puppet:
        memory, busy_with = puppet.anonymous(PAGES), puppet.anonymous(512, 3)
        os.sched_setaffinity(puppet.pid, {3})  # memory on the processor's node is not marked
        puppet.bind(None)  # nor is memory that is bound
        scans = int(vmstat("numa_pte_updates"))

        def is_marked() -> bool:
            for _ in range(BUSY_ROUNDS):
                puppet.is_intact(busy_with)
            if is_at_least(6, 5):  # a mark makes no difference, and nothing shows it
                return int(vmstat("numa_pte_updates")) >= scans + 4 * PAGES
            return set(puppet.status(memory.pages)) == {-errno.ENOENT}

        until(is_marked, PATIENCE)
        puppet.bind(HOME)
        yield puppet, memory


def check_hidden(status: int, report: dict[str, Any], puppet: Puppet, memory: Memory) -> int:
    """Check that what stayed on node 0 was hidden, and return its bytes: none from Linux 6.5 on.

    The kernel goes on marking pages, those of libraries too: their number is not known before.
    """
    left = sum(report["left_by_reason"].values())
    assert set(report["left_by_reason"]) <= {"hidden"}, report
    assert status == (3 if left else 0), report
    stayed = puppet.residency(memory).get(0, 0)
    assert stayed <= left <= stayed + ABOUT, report
    return stayed


def sizes(**by_node: int) -> dict[int, int]:
    """Return bytes by node, of those that have any: `n0=…`."""
    return {int(name[1:]): size for name, size in by_node.items() if size}


def test_marked_pages_move_when_they_are_used(
    run: Any, marked: tuple[Puppet, Memory], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nodes change places no other call can move them: until then they are counted."""
    puppet, memory = marked
    other = puppet.anonymous(16, 2)
    status, report = run("relocate", "--pid", puppet.pid, "--map", "0:2,2:0")
    left = check_hidden(status, report, puppet, memory)
    assert puppet.residency(other) == {0: 16 * PAGE}

    # A policy of its own keeps the kernel from moving what the process uses.
    monkeypatch.setattr("schedhook.migration.retry.time.sleep", lambda _: puppet.is_intact(memory))
    status, report = run("relocate", "--pid", puppet.pid, "--map", "0:2,2:0")
    assert (status, report["outcome"]) == (0, "complete"), report
    assert puppet.residency(memory) == sizes(n0=PAGES * PAGE - left, n2=left)
    assert puppet.residency(other) == {2: 16 * PAGE}


def test_marked_pages_that_nobody_uses_move_in_a_chain(
    run: Any, marked: tuple[Puppet, Memory]
) -> None:
    """Each step can call migrate_pages(2), unless a limit rules that out: then they are counted."""
    puppet, memory = marked
    other = puppet.anonymous(16, 2)
    status, report = run("relocate", "--pid", puppet.pid, "--from", 0, "--to", 3, "--gentle")
    left = check_hidden(status, report, puppet, memory)

    status, report = run("relocate", "--pid", puppet.pid, "--map", f"{0 if left else 3}:2,2:1")
    assert (status, report["outcome"]) == (0, "complete"), report
    rest = PAGES * PAGE - left if left else 0
    assert puppet.residency(memory) == sizes(n2=PAGES * PAGE - rest, n3=rest)
    assert puppet.residency(other) == {1: 16 * PAGE}
