"""Features that make a relocation fast or gentle; benchmarks/ measures how much."""

from __future__ import annotations

import json
import mmap
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from schedhook.backends.native.backend import NativeBackend
from schedhook.backends.native.target import NativeTarget
from schedhook.cli.main import main
from schedhook.control import freezer
from schedhook.control.rollback import Rollback
from schedhook.host.frames import node_spans
from schedhook.migration.runs import UNIT_BYTES
from schedhook.roles.backend import Limits, Sweep
from schedhook.values.errors import RefusedError
from schedhook.values.sets import CpuSet
from tests.numa.jobs import MIB, Job, cgroup, numa_stat
from tests.numa.puppet import PAGE, Memory, Puppet

pytestmark = pytest.mark.nodes(4)

SIZE = 64
"""MiB."""
MAP_NORESERVE = 0x4000
"""The module mmap has it since Python 3.13."""


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Any:
    """Relocate 0 → 2 in this process, and assert that it completes."""

    def run(job: Job, *arguments: object) -> dict[str, Any]:
        words = ["relocate", "--from", 0, "--to", 2, *arguments]
        if "--cgroup" not in arguments:
            words += ["--pid", job.pid]
        capsys.readouterr()
        status = main([str(word) for word in words] + ["--json"], standalone_mode=False)
        report: dict[str, Any] = json.loads(capsys.readouterr().out)
        assert (status, report["outcome"]) == (0, "complete"), report
        assert job.share_on(2) >= 0.999
        return report

    return run


class Calls:
    """The calls into the backend, the callers' processors, and whether the job was frozen."""

    def __init__(self) -> None:
        self.cpus: list[CpuSet] = []
        self.limits: list[Limits] = []
        self.migrated = 0
        self.frozen: list[bool] = []
        self.watched: Path | None = None


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """Record every sweep and whole-process call."""
    seen = Calls()
    sweep, migrate = NativeTarget.sweep, NativeTarget.migrate

    def record() -> None:
        seen.cpus.append(CpuSet(os.sched_getaffinity(0)))
        if seen.watched:
            seen.frozen.append("frozen 1" in (seen.watched / "cgroup.events").read_text())

    def watched_sweep(self: NativeTarget, *arguments: Any, limits: Limits, **others: Any) -> Sweep:
        record()
        seen.limits.append(limits)
        return sweep(self, *arguments, limits=limits, **others)

    def watched_migrate(self: NativeTarget, *arguments: Any) -> int:
        record()
        seen.migrated += 1
        return migrate(self, *arguments)

    monkeypatch.setattr(NativeTarget, "sweep", watched_sweep)
    monkeypatch.setattr(NativeTarget, "migrate", watched_migrate)
    return seen


def test_pages_are_moved_on_the_jobs_new_processors(run: Any, calls: Calls) -> None:
    before = os.sched_getaffinity(0)
    with Job("anon", SIZE, 0) as job:
        run(job)
    assert set(calls.cpus) == {CpuSet({2})}, "each node has one processor here"
    assert os.sched_getaffinity(0) == before


def test_more_threads_than_new_processors_use_the_old_ones_too(run: Any, calls: Calls) -> None:
    with Job("anon", SIZE, 0) as job:
        run(job, "--threads", 2)
    assert set(calls.cpus) == {CpuSet({0, 2})}


def test_a_large_mapping_is_spread(run: Any, calls: Calls) -> None:
    with Job("anon", 4 * UNIT_BYTES // MIB, 0) as job:
        run(job, "--threads", 2)
    assert len(calls.limits) >= 4


def bytes_read() -> int:
    """Return what this process has read so far from files, those of /proc included; proc(5)."""
    return int(Path("/proc/self/io").read_text().partition("rchar:")[2].split()[0])


@pytest.mark.parametrize(
    ("option", "most"), [("--no-gentle", 32), ("--gentle", 32), ("--bandwidth=100", 256)]
)
def test_holes_are_not_read_page_by_page(
    option: str, most: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """2 MiB in an address space whose pagemap(5) has 2 GiB: with pages of 4 KiB, 1 TiB."""
    count = 2 * MIB // PAGE
    with Puppet() as puppet:
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE
        memory = puppet.map((2 << 30) // 8 * PAGE, flags=flags)
        step = memory.size // count
        pages = [Memory(memory.start + number * step, PAGE) for number in range(count)]
        for page in pages:
            puppet.fill(page, 0)
        before = bytes_read()
        words = ["relocate", "--pid", str(puppet.pid), "--map", "0:2", option, "--json"]
        status = main(words, standalone_mode=False)
        report = json.loads(capsys.readouterr().out)
        assert (status, report["outcome"]) == (0, "complete"), report
        assert bytes_read() - before < most * MIB
        assert puppet.residency(memory) == {2: count * PAGE}
        assert all(map(puppet.is_intact, pages))


@pytest.mark.parametrize("strategy", ["move-pages", "migrate-process"])
def test_calls_grow_with_the_bytes_and_not_with_the_areas(
    run: Any, calls: Calls, strategy: str
) -> None:
    with cgroup("parted") as path, Job("anon", 16, 0, cgroup=path) as job:
        job.say("part")
        before = job.checksum()
        report = run(job, "--strategy", strategy)
        assert report["bytes_moved"] >= 16 * MIB
        assert len(calls.limits) <= 3, "each page is an area"
        assert job.checksum() == before
        assert numa_stat(path, "anon")[2] >= 16 * MIB


def test_gentle_calls_are_bounded(run: Any, calls: Calls) -> None:
    with Job("anon", SIZE, 0) as job:
        run(job, "--gentle")
    assert {limits.call_seconds for limits in calls.limits} == {0.02}


def test_sparse_processes_move_whole_if_the_kernel_does_not_report_holes(
    run: Any, calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Job("reserve", SIZE, 0) as job, NativeBackend().attach(job.pid) as target:
        report = run(job)
        assert calls.migrated == (0 if target.skips_holes else 1)
        assert report["bytes_moved"] >= SIZE * MIB
    if target.skips_holes:  # as on a kernel without PAGEMAP_SCAN
        monkeypatch.setattr(NativeTarget, "skips_holes", False)
        with Job("reserve", SIZE, 0) as job:
            run(job)
        assert calls.migrated == 1


def test_nodes_by_frame_agree_with_the_kernel() -> None:
    spans = node_spans()
    assert {node for *_, node in spans} == {0, 1, 2, 3}
    for node in range(4):
        with Job("anon", 4, node) as job, Path(f"/proc/{job.pid}/pagemap").open("rb") as pagemap:
            pagemap.seek(job.start // mmap.PAGESIZE * 8)
            for _ in range(job.bytes // mmap.PAGESIZE):
                frame = int.from_bytes(pagemap.read(8), "little") & ((1 << 55) - 1)
                assert [where for first, end, where in spans if first <= frame < end] == [node]


def test_the_job_is_frozen_while_it_moves(run: Any, calls: Calls) -> None:
    with cgroup("cold") as path, Job("anon", SIZE, 0, cgroup=path) as job:
        calls.watched = path
        run(job, "--freeze")
        assert calls.frozen
        assert all(calls.frozen)
        assert (path / "cgroup.freeze").read_text().strip() == "0"
        assert job.checksum()


def test_a_job_that_was_frozen_stays_frozen(run: Any) -> None:
    with cgroup("cold") as path, Job("anon", SIZE, 0, cgroup=path) as job:
        (path / "cgroup.freeze").write_text("1")
        run(job, "--freeze", "--cgroup", path)
        assert (path / "cgroup.freeze").read_text().strip() == "1"
        (path / "cgroup.freeze").write_text("0")


def test_a_failure_thaws() -> None:
    with cgroup("cold") as path, Job("anon", 4, 0, cgroup=path):
        with pytest.raises(ZeroDivisionError), freezer.freeze_cgroups([path], Rollback()):
            assert (path / "cgroup.freeze").read_text().strip() == "1"
            _ = 1 / 0
        assert (path / "cgroup.freeze").read_text().strip() == "0"


def test_death_thaws() -> None:
    """A process cannot handle SIGKILL, so the helper thaws the cgroup."""
    program = (
        "import sys, time; from pathlib import Path\n"
        "from schedhook.control.freezer import freeze_cgroups\n"
        "from schedhook.control.rollback import Rollback\n"
        "with Rollback() as rollback, freeze_cgroups([Path(sys.argv[1])], rollback):\n"
        "    print('frozen', flush=True); time.sleep(600)"
    )
    with cgroup("cold") as path, Job("anon", 4, 0, cgroup=path):
        command = [sys.executable, "-P", "-c", program, str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as mover:
            assert mover.stdout
            assert mover.stdout.readline() == "frozen\n"
            assert (path / "cgroup.freeze").read_text().strip() == "1"
            mover.send_signal(signal.SIGKILL)
        end = time.monotonic() + 30
        while (path / "cgroup.freeze").read_text().strip() == "1" and time.monotonic() < end:
            time.sleep(0.05)
        assert (path / "cgroup.freeze").read_text().strip() == "0"


def test_the_caller_does_not_freeze_itself() -> None:
    with NativeBackend().attach(os.getpid()) as target, pytest.raises(RefusedError):
        freezer.cgroups_to_freeze([target], None, Path("/"))
