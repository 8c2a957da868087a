"""The strategy `cpuset` on the real kernel.

What a write to cpuset.mems moves, what it leaves behind, and that the job survives every failure.
"""

from __future__ import annotations

import errno
import mmap
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from schedhook.migration.move import Move
from schedhook.values.errors import BackendError
from tests.numa.dirt import taken
from tests.numa.jobs import MIB, Job, cgroup, cpuset_v1, until

pytestmark = pytest.mark.nodes(4)

BIG = 100
SMALL = 48
RESERVE = 64
ENOUGH = 0.999


@dataclass(kw_only=True)
class Fence:
    """A cgroup whose cpuset.mems a test sets."""

    path: Path
    version: int

    @property
    def mems(self) -> str:
        return (self.path / "cpuset.mems").read_text().strip()

    def allow(self, nodes: str) -> None:
        (self.path / "cpuset.mems").write_text(nodes)


@pytest.fixture
def version() -> int:
    return 2


@pytest.fixture
def fence(version: int, tmp_path: Path) -> Iterator[Fence]:
    with ExitStack() as stack:
        if version == 2:
            path = stack.enter_context(cgroup("fence"))
        else:
            path = stack.enter_context(cpuset_v1(tmp_path)) / "fence"
            path.mkdir()
            stack.callback(lambda: until(lambda: remove(path)))
            (path / "cpuset.cpus").write_text("0-3")
        fence = Fence(path=path, version=version)
        fence.allow("0")
        yield fence


def remove(path: Path) -> bool:
    try:
        path.rmdir()
    except OSError:
        return False
    return True


def by_kernel_and_sweep(report: dict[str, Any]) -> tuple[float, float]:
    """Return the MiB that the note reports."""
    words = report["notes"][-1].split("the kernel moved ")[1].split()
    return float(words[0]), float(words[4])


both_versions = pytest.mark.parametrize("version", [2, 1])


@pytest.mark.dirty
@both_versions
@pytest.mark.parametrize("kind", ["anon", "thp"])
def test_the_kernel_moves_the_memory(run_cpuset: Any, fence: Fence, kind: str) -> None:
    with Job(kind, BIG, 0, cgroup=fence.path) as job:
        before = job.checksum()
        assert job.share_on(0) == 1
        status, report = run_cpuset("--cgroup", fence.path, "--from", 0, "--to", 2)
        assert (status, report["outcome"]) == (0, "complete"), report
        assert fence.mems == "2"
        assert job.share_on(2) >= ENOUGH
        assert by_kernel_and_sweep(report)[0] >= ENOUGH * BIG
        assert job.checksum() == before
        if fence.version == 1:
            assert (fence.path / "cpuset.memory_migrate").read_text().strip() == "0"
        # What the job allocates from now on must come from the new node.
        job.say(f"touch {SMALL} 2")
        assert residency(job)[2] >= (BIG + SMALL) * MIB


def residency(job: Job) -> dict[int, int]:
    """Return the bytes per node of all its private memory, as numastat reads them."""
    text = subprocess.run(
        ["numastat", "-p", str(job.pid)], check=True, capture_output=True, text=True, timeout=60
    ).stdout
    row = next(line for line in text.splitlines() if line.startswith("Private"))
    return {node: int(float(mib) * MIB) for node, mib in enumerate(row.split()[1:-1])}


@pytest.mark.short(1)
@both_versions
def test_memory_outside_the_cpuset_is_swept(run_cpuset: Any, fence: Fence) -> None:
    """The kernel moves memory only from nodes that the cpuset had."""
    with Job("anon", BIG, 0, cgroup=fence.path) as job:
        subprocess.run(["migratepages", str(job.pid), "0", "1"], check=True, timeout=120)
        assert job.share_on(1) == 1
        job.say(f"touch {SMALL} 0")
        status, report = run_cpuset("--cgroup", fence.path, "--map", "0:2,1:2")
        assert (status, report["outcome"]) == (0, "complete"), report
        kernel, sweep = by_kernel_and_sweep(report)
        assert kernel == pytest.approx(SMALL, abs=4)
        assert sweep == pytest.approx(BIG, abs=4)
        assert job.share_on(2) >= ENOUGH
        assert fence.mems == "2"


@pytest.mark.short(1)
@both_versions
def test_pinned_pages_stay_and_are_counted(run_cpuset: Any, fence: Fence) -> None:
    with Job("anon", SMALL, 0, cgroup=fence.path) as job:
        job.say("pin")
        status, report = run_cpuset("--cgroup", fence.path, "--from", 0, "--to", 2)
        assert (status, report["outcome"]) == (3, "partial"), report
        assert report["left_by_reason"] == {"EBUSY": 16 * mmap.PAGESIZE}
        assert job.residency() == {0: 16 * mmap.PAGESIZE, 2: SMALL * MIB - 16 * mmap.PAGESIZE}
        assert fence.mems == "2"


@pytest.mark.short(1)
@both_versions
def test_without_room_no_cpuset_is_narrowed_and_no_process_killed(
    run_cpuset: Any, fence: Fence
) -> None:
    killed = oom_kills()
    with taken(2, leave=RESERVE + SMALL), Job("anon", 400, 0, cgroup=fence.path) as job:
        before = job.checksum()
        status, report = run_cpuset("--cgroup", fence.path, "--from", 0, "--to", 2)
        assert (status, report["outcome"], fence.mems) == (4, "refused", "0")
        assert "no room" in report["notes"][-1]
        assert job.share_on(0) == 1

        status, report = run_cpuset("--cgroup", fence.path, "--from", 0, "--to", 2, "--force")
        assert (status, report["outcome"], fence.mems) == (3, "partial", "0,2")
        assert report["left_by_reason"]["reserve"] > 0
        assert 0 < report["bytes_moved"] < job.bytes
        # Between full nodes it may still allocate.
        job.say(f"touch {SMALL} 0")
        assert job.checksum() == before
    assert oom_kills() == killed


def oom_kills() -> int:
    text = Path("/proc/vmstat").read_text()
    return int(text.partition("oom_kill ")[2].split()[0])


@both_versions
def test_after_a_failure_cpuset_and_memory_are_restored(
    run_cpuset: Any, fence: Fence, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Job("anon", SMALL, 0, cgroup=fence.path) as job:
        before = job.checksum()

        def sweep(_: Move) -> None:
            assert fence.mems == "2"
            assert job.share_on(2) >= ENOUGH
            raise BackendError("out of coffee", errno.EIO)

        monkeypatch.setattr(Move, "sweep", sweep)
        status, report = run_cpuset("--cgroup", fence.path, "--from", 0, "--to", 2)
        assert (status, report["outcome"]) == (1, "failed"), report
        assert report["notes"][-1] == "out of coffee; cpuset.mems was restored"
        assert (fence.mems, job.share_on(0)) == ("0", 1)
        assert report["bytes_moved"] == 0
        assert job.checksum() == before


@both_versions
def test_memory_policies_follow(run_cpuset: Any, fence: Fence) -> None:
    """With move_pages(2) alone they do not: a job bound to its old node allocates there again."""
    join = f"echo $$ > {fence.path}/cgroup.procs && exec numactl --membind=0 sleep 600"
    with subprocess.Popen(["/bin/sh", "-c", join]) as bound:
        try:
            until(lambda: Path(f"/proc/{bound.pid}/comm").read_text() == "sleep\n", 60)
            until(lambda: policies(bound.pid) == {"bind:0"})
            status, report = run_cpuset("--pid", bound.pid, "--from", 0, "--to", 2)
            assert (status, report["outcome"], fence.mems) == (0, "complete", "2"), report
            assert policies(bound.pid) == {"bind:2"}
        finally:
            bound.kill()


def policies(pid: int) -> set[str]:
    return {line.split()[1] for line in Path(f"/proc/{pid}/numa_maps").read_text().splitlines()}


def test_a_step_inside_a_job_keeps_its_relative_nodes(run_cpuset: Any, fence: Fence) -> None:
    fence.allow("0-1")
    (fence.path / "cgroup.subtree_control").write_text("+cpuset")
    steps = [fence.path / name for name in ("a", "b")]
    for node, step in enumerate(steps):
        step.mkdir()
        (step / "cpuset.mems").write_text(str(node))
    with (
        Job("anon", SMALL, 0, cgroup=steps[0]) as first,
        Job("anon", SMALL, 1, cgroup=steps[1]) as second,
    ):
        status, report = run_cpuset("--cgroup", fence.path, "--from", "0-1", "--to", "2-3")
        assert (status, report["outcome"]) == (0, "complete"), report
        assert (first.share_on(2), second.share_on(3)) == (1, 1)
        assert by_kernel_and_sweep(report)[0] >= ENOUGH * 2 * SMALL
        assert [fence.mems, *((step / "cpuset.mems").read_text() for step in steps)] == [
            "2-3", "2\n", "3\n"
        ]  # fmt: skip


def test_a_process_among_others_is_refused(run_cpuset: Any, fence: Fence) -> None:
    with (
        Job("anon", SMALL, 0, cgroup=fence.path) as job,
        Job("anon", SMALL, 0, cgroup=fence.path) as other,
    ):
        status, report = run_cpuset("--pid", job.pid, "--from", 0, "--to", 2)
        assert (status, report["outcome"], fence.mems) == (4, "refused", "0")
        assert f"has other processes too ({other.pid})" in report["notes"][-1]
        assert (job.share_on(0), other.share_on(0)) == (1, 1)


def test_on_a_kernel_that_may_block_the_host_it_must_be_allowed(
    run_cpuset: Any, fence: Fence, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCHEDHOOK_CONFIG", "")
    defers = "flush_migrate_mm_task_workfn" in Path("/proc/kallsyms").read_text()
    with Job("anon", SMALL, 0, cgroup=fence.path) as job:
        status, report = run_cpuset("--cgroup", fence.path, "--from", 0, "--to", 2)
        assert (status, fence.mems) == ((0, "2") if defers else (4, "0")), report
        assert job.share_on(2 if defers else 0) == 1
        if not defers:
            assert "allow_blocking = true" in report["notes"][-1]
