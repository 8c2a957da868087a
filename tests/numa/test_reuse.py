"""Let another process get the number of one that ends while it is relocated.

A process or a thread ends at any moment, and a stranger gets its number at once, with memory on the
old node at the same addresses. Nothing of the stranger's may change. Since these calls take no
pidfd, one may be reached if the caller is interrupted between its last look and its call, as was
seen on busy emulated machines; then the product must say so.
"""

from __future__ import annotations

import mmap
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, suppress
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path

import pytest

from schedhook.agent.dispatcher import Dispatcher
from schedhook.backends.native.backend import NativeBackend
from schedhook.backends.native.target import NativeTarget
from schedhook.control.rollback import Rollback
from schedhook.host.processes import read_start_time
from schedhook.journal.journal import Journal
from schedhook.plugins.loading import load_plugins
from schedhook.plugins.manager import Plugins
from schedhook.relocation.pipeline import relocate
from schedhook.roles.backend import Limits
from schedhook.roles.request import Request
from schedhook.values.config import Config
from schedhook.values.errors import ProcessGoneError
from schedhook.values.model import Event, Outcome, Report
from schedhook.values.sets import CpuSet, NodeSet
from schedhook_plugins.schedulers.slurm.adapter import HostJobs
from schedhook_plugins.schedulers.slurm.migrate import migrate
from tests.numa.jobs import CGROUPS, cgroup, until
from tests.numa.programs import program
from tests.numa.slurm_jobs import SCOPE

pytestmark = pytest.mark.nodes(4)

MEMORY = 0x100000000000
KIB = 1024
PID_MAX = Path("/proc/sys/kernel/pid_max")
FEW = 500
"""kernel.pid_max. The kernel does not reuse numbers below 300, so 200 are reused."""
TIMES = int(os.environ.get("SCHEDHOOK_REUSE", "1"))
"""How often each test is repeated, for a long measurement."""
OLD, NEW = CpuSet({0, 1}), CpuSet({2, 3})
JOB = "4711"


@dataclass(slots=True)
class Total:
    """Counts of strangers so far."""

    reused: int = 0
    missed: int = 0
    """Numbers that a process other than a stranger got."""
    moved: int = 0
    """Pages of strangers that moved."""
    bound: int = 0
    """Strangers whose affinity changed."""


class Recycler:
    """The program recycle.c, on processors 0 and 1."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            ["taskset", "--cpu-list", str(OLD), program("recycle"), str(KIB)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        self.total = Total()

    def targets(self, count: int, threads: int = 0, join: Path | None = None) -> list[int]:
        self._say(f"targets {count} {threads} {join / 'cgroup.procs' if join else '-'}")
        return [int(word) for word in self._line().split()[1:]]

    def churn(self, count: int, seconds: float, how: str = "aimed") -> None:
        self._say(f"churn {count} {int(seconds * 1e6)} {how}")

    def end_threads(self, count: int, seconds: float) -> None:
        self._say(f"end {count} {int(seconds * 1e6)}")

    def wait(self) -> None:
        self._say("wait")
        self._line()

    def check(self) -> None:
        self._say("check")
        for key, value in re.findall(r"(\w+) (\d+)", self._line()):
            setattr(self.total, key, getattr(self.total, key) + int(value))

    def stop(self) -> None:
        self._process.kill()
        self._process.communicate()

    def _say(self, line: str) -> None:
        assert self._process.stdin
        self._process.stdin.write(line + "\n")

    def _line(self) -> str:
        assert self._process.stdout
        line = self._process.stdout.readline()
        assert line, f"recycle ended with {self._process.wait()}"
        return line


@pytest.fixture(scope="module")
def recycler() -> Iterator[Recycler]:
    program("recycle")  # while there are numbers enough for a compiler
    before = PID_MAX.read_text()
    PID_MAX.write_text(str(FEW))
    recycler = Recycler()
    yield recycler
    recycler.stop()
    PID_MAX.write_text(before)
    print(recycler.total)


@contextmanager
def reuse(recycler: Recycler, least: int) -> Iterator[list[str]]:
    """Check that the block met at least `least` strangers, and changed none of them.

    It yields a list for what the reports say. If they, or the log, say that a stranger may have
    been reached, one may have been.
    """
    before, said = replace(recycler.total), list[str]()
    try:
        with redirect_stderr(StringIO()) as log:
            yield said
    except BaseException:
        recycler.check()  # and reset the counts for the next test
        raise
    after = recycler.total
    moved, bound = after.moved - before.moved, after.bound - before.bound
    print(f"{after.reused - before.reused} numbers reused, {after.missed - before.missed} missed")
    print(f"{moved} pages of strangers moved, {bound} strangers bound; {said}, {log.getvalue()}")
    assert not moved or any("another process has got its number" in each for each in said)
    assert not bound or "the thread that has its number now" in log.getvalue()
    assert moved <= (KIB << 10) // mmap.PAGESIZE
    assert bound <= 1
    assert after.reused - before.reused >= least


# -- the calls themselves ------------------------------------------------------------------------


def sweep(target: NativeTarget) -> None:
    limits = Limits(batch_bytes=64 << 10)
    for area in target.areas():
        done = target.sweep(area, area.start, area.end, {0: 2}, shared=True, limits=limits)
        assert sum(done.moved.values()) <= area.size
        if done.gone:
            return


def whole(target: NativeTarget) -> None:
    target.migrate(NodeSet({0}), NodeSet({2}))


@pytest.mark.parametrize("move", [sweep, whole])
def test_no_call_changes_a_stranger(
    recycler: Recycler, move: Callable[[NativeTarget], None]
) -> None:
    backend, took = NativeBackend(), 0.02
    with reuse(recycler, 90 * TIMES) as said:
        for _ in range(100 * TIMES):
            (pid,) = recycler.targets(1)
            with backend.attach(pid) as target:
                began = time.monotonic()
                recycler.churn(1, 1.5 * took)
                with suppress(ProcessGoneError):
                    move(target)
                    took = 0.9 * took + 0.1 * (time.monotonic() - began)
                recycler.check()
                assert not target.alive()
                said.extend([target.mistaken] if target.mistaken else [])


# -- relocations ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def plugins() -> Plugins:
    return load_plugins(Config())


def check_report(report: Report, stayed: list[int]) -> None:
    """Check that all that were not killed moved, and that none moved more than it had."""
    by_pid = {each.pid: each for each in report.processes if each.error is None}
    assert by_pid.keys() >= set(stayed)
    assert all(residency(pid) == {2: KIB << 10} for pid in stayed), report
    for each in report.processes:
        assert each.bytes_moved <= sum(each.residency_before.values()) + (64 << 10), report
    assert report.outcome in (Outcome.COMPLETE, Outcome.NOTHING_TO_DO), report


def residency(pid: int) -> dict[int, int]:
    """Return the bytes of a process's memory on each node, from numa_maps."""
    text = Path(f"/proc/{pid}/numa_maps").read_text()
    line = next(each for each in text.splitlines() if each.startswith(f"{MEMORY:x} "))
    return {
        int(node): int(pages) * mmap.PAGESIZE for node, pages in re.findall(r" N(\d+)=(\d+)", line)
    }


@pytest.mark.parametrize("how", ["aimed", "round"])
@pytest.mark.parametrize("freeze", [False, True])
def test_a_cgroup_whose_processes_end(
    recycler: Recycler, plugins: Plugins, how: str, freeze: bool
) -> None:
    request = Request(
        cgroup="schedhook-reuse",
        sources=NodeSet({0}),
        destinations=NodeSet({2}),
        cpus=CpuSet({2}),
        freeze=freeze,
    )
    took = 1.0
    with reuse(recycler, 20 * TIMES) as said, cgroup("schedhook-reuse") as path:
        for _ in range(2 * TIMES):
            pids = recycler.targets(16, join=path)
            began = time.monotonic()
            recycler.churn(12, 2 * took / 12, how)
            report = relocate(request, Config(), plugins)
            took = time.monotonic() - began
            check_report(report, pids[12:])
            said.extend(report.notes)
            assert {*map(frozenset, map(os.sched_getaffinity, pids[12:]))} == {frozenset({2})}
            recycler.check()


def test_threads_that_end_while_they_are_bound(recycler: Recycler, plugins: Plugins) -> None:
    took = 1.0
    with reuse(recycler, 70 * TIMES) as said:
        for _ in range(4 * TIMES):
            (pid,) = recycler.targets(1, threads=30)
            request = Request(
                pids=(pid,),
                sources=NodeSet({0}),
                destinations=NodeSet({2}),
                cpus=CpuSet({2}),
            )
            began = time.monotonic()
            recycler.end_threads(20, 2 * took / 20)
            report = relocate(request, Config(), plugins)
            took = time.monotonic() - began
            check_report(report, [pid])
            said.extend(report.notes)
            recycler.check()


# -- jobs ----------------------------------------------------------------------------------------


@pytest.fixture
def step() -> Iterator[Path]:
    """Yield the cgroup of a step of a Slurm job, on processors 0 and 1."""
    leaf = SCOPE / f"job_{JOB}" / "step_0" / "user" / "task_0"
    for path in reversed((leaf, *leaf.parents)):
        if path.is_relative_to(CGROUPS) and path != CGROUPS:
            path.mkdir(exist_ok=True)
        if path.is_relative_to(CGROUPS) and path != leaf:
            (path / "cgroup.subtree_control").write_text("+cpuset")
    yield leaf
    for path in (leaf, *leaf.parents[:3]):
        until(lambda path=path: not (path / "cgroup.procs").read_text().strip())
        path.rmdir()


def test_a_job_that_is_migrated(recycler: Recycler, plugins: Plugins, step: Path) -> None:
    """As job-migrate does it: cpusets, affinities and memory."""
    took, job = 2.0, step.parents[2]

    def carry_out(request: Request) -> Report:
        report = relocate(request, Config(), plugins)
        said.extend(report.notes)
        return report

    with reuse(recycler, 20 * TIMES) as said:
        for _ in range(2 * TIMES):
            (job / "cpuset.cpus").write_text(str(OLD))
            pids = recycler.targets(16, join=step)
            began = time.monotonic()
            recycler.churn(12, 2 * took / 12)
            move = migrate(HostJobs(), JOB, NEW, carry_out)
            took = time.monotonic() - began
            assert move.done, move
            for pid in pids[12:]:
                assert CpuSet(os.sched_getaffinity(pid)) == NEW
                assert residency(pid).keys() == {2}
            recycler.check()


def test_a_job_that_the_watcher_follows(
    recycler: Recycler, plugins: Plugins, step: Path, tmp_path: Path
) -> None:
    took, job = 2.0, step.parents[2]
    look = Event(scheduler="slurm", point="look", job=JOB)
    with reuse(recycler, 20 * TIMES) as said:
        for turn in range(2 * TIMES):
            (job / "cpuset.cpus").write_text(str(OLD))
            pids = recycler.targets(16, join=step)
            with Journal.open(tmp_path / f"{turn}" / "journal.db") as journal:
                handler = Dispatcher(Config(), plugins, journal)
                handler.handle(look, time.time())
                (job / "cpuset.cpus").write_text("2")
                began = time.monotonic()
                recycler.churn(12, 2 * took / 12)
                handled = handler.handle(look, time.time())
                took = time.monotonic() - began
                assert handled.ok, handled
                (run,) = journal.history(JOB)
            assert [report["outcome"] for report in run["reports"]] == ["complete"], handled
            said.extend(run["reports"][0]["notes"])
            assert all(residency(pid) == {2: KIB << 10} for pid in pids[12:])
            recycler.check()


# -- rollback ------------------------------------------------------------------------------------


def test_a_rollback_after_the_number_was_reused(recycler: Recycler) -> None:
    with reuse(recycler, 8):
        with Rollback() as rollback:
            for pid in recycler.targets(8):
                rollback.record_affinity(pid, read_start_time(pid), {3}, range(4))
            recycler.churn(8, 0.001)
            recycler.wait()
        recycler.check()
