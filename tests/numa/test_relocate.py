"""Relocations on the real kernel: memory follows, and every page that stays has a reason."""

from __future__ import annotations

import errno
import json
import mmap
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from schedhook.backends.native.backend import NativeBackend
from schedhook.cli.main import main
from schedhook.roles.backend import Limits
from schedhook.testing.native import HUGE
from schedhook.values.errors import ProcessGoneError
from schedhook.values.sets import NodeSet
from tests.numa.dirt import taken
from tests.numa.jobs import (
    CGROUPS,
    MIB,
    Job,
    cgroup,
    drop_caches,
    free_bytes,
    mounted_disk,
    numa_maps_of,
)

pytestmark = pytest.mark.nodes(4)

STRATEGIES = ["move-pages", "migrate-process"]
BIG = 400
"""MiB; the size for which the project makes promises."""
MEDIUM = 128
"""MiB; several units of work for several threads, and whole huge pages of any processor."""
SMALL = 64
ENOUGH = 0.999


def relocated(run: Any, job: Job, strategy: str, *arguments: object) -> dict[str, Any]:
    """Relocate 0 → 2 while the job writes; assert that all of it moves and data is intact."""
    before = job.checksum()
    job.say("write")
    status, report = run(
        "relocate", "--pid", job.pid, "--from", 0, "--to", 2, "--strategy", strategy, *arguments
    )
    assert (status, report["outcome"]) == (0, "complete"), report
    assert job.share_on(2) >= ENOUGH, job.residency()
    assert report["bytes_moved"] >= ENOUGH * min(job.bytes, report["bytes_planned"])
    assert job.checksum() == before
    return report


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize(("kind", "mib"), [("anon", BIG), ("thp", MEDIUM), ("mlock", MEDIUM)])
def test_memory_follows(run: Any, kind: str, mib: int, strategy: str) -> None:
    with Job(kind, mib, 0) as job:
        assert job.share_on(0) == 1
        if kind == "thp":
            assert huge_bytes(job) >= ENOUGH * job.bytes
        report = relocated(run, job, strategy)
        assert report["bytes_planned"] >= job.bytes
        if kind == "thp":
            assert huge_bytes(job) >= ENOUGH * job.bytes, "huge pages were split on the way"


def huge_bytes(job: Job) -> int:
    """Return the bytes in transparent huge pages, from smaps."""
    text = Path(f"/proc/{job.pid}/smaps_rollup").read_text()
    return int(text.partition("AnonHugePages:")[2].split()[0]) << 10


@pytest.fixture
def huge_pools() -> Iterator[Any]:
    """Set the pools of huge pages of nodes 0 and 2, in MiB."""

    def has_pool(node: int, mib: int) -> bool:
        pools = f"/sys/devices/system/node/node{node}/hugepages/hugepages-{HUGE >> 10}kB"
        pages, pool = mib * MIB // HUGE, Path(pools, "nr_hugepages")
        pool.write_text(str(pages))
        return int(pool.read_text()) == pages

    yield has_pool
    for node in (0, 2):
        has_pool(node, 0)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_pages_of_a_huge_page_pool(run: Any, huge_pools: Any, strategy: str) -> None:
    drop_caches()
    assert huge_pools(0, MEDIUM)
    assert huge_pools(2, MEDIUM)
    with Job("huge", MEDIUM, 0) as job:
        relocated(run, job, strategy)


def test_without_a_pool_the_kernel_makes_huge_pages_or_says_why(run: Any, huge_pools: Any) -> None:
    """Kernels differ in whether they allocate new huge pages; every page must be accounted for."""
    drop_caches()
    assert huge_pools(0, MEDIUM)
    with Job("huge", MEDIUM, 0) as job:
        status, report = run("relocate", "--pid", job.pid, "--from", 0, "--to", 2)
        stayed = job.residency().get(0, 0)
        assert report["left_by_reason"] == ({"ENOMEM": stayed} if stayed else {}), report
        assert status == (3 if stayed else 0)


def test_huge_pages_that_the_new_node_cannot_hold(run: Any, huge_pools: Any) -> None:
    drop_caches()
    assert huge_pools(0, 256)
    # With less left, Linux 6.12 kills the first job: processors keep free pages for themselves, up
    # to 34 MiB each, which a relocation uses after all.
    with Job("anon", free_bytes(2) // MIB - 60, 2), Job("huge", 256, 0) as job:
        status, report = run("relocate", "--pid", job.pid, "--from", 0, "--to", 2, "--reserve", 0)
        stayed = job.residency()[0]
        assert (status, report["outcome"]) == (3, "partial"), report
        # With them a few small pages of the program, for which nothing is left either.
        assert report["left_by_reason"] == {"ENOMEM": pytest.approx(stayed, abs=MIB)}
        assert 0 < stayed <= job.bytes


def test_file_pages(run: Any, tmp_path: Path) -> None:
    with mounted_disk(tmp_path, 160) as directory:
        for strategy in STRATEGIES:
            drop_caches()
            with Job("file", 100, 0, str(directory / strategy)) as job:
                report = relocated(run, job, strategy)
                assert report["processes"][0]["residency_after"]["2"] >= 100 * MIB
            (directory / strategy).unlink()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_segment_that_two_processes_map(run: Any, strategy: str) -> None:
    path = Path("/dev/shm/segment")
    try:
        with Job("shm", MEDIUM, 0, str(path)) as job, Job("shm", MEDIUM, 0, str(path)) as other:
            before = job.checksum()
            status, report = run(
                "relocate", "--pid", job.pid, "--pid", other.pid, "--from", 0, "--to", 2,
                "--strategy", strategy,
            )  # fmt: skip
            assert (status, report["outcome"]) == (0, "complete"), report
            assert job.share_on(2) >= ENOUGH
            assert other.share_on(2) >= ENOUGH
            assert job.checksum() == other.checksum() == before
            # The segment exists once, and is counted once.
            assert MEDIUM * MIB <= report["bytes_planned"] < 1.2 * MEDIUM * MIB
    finally:
        path.unlink(missing_ok=True)


def test_a_segment_of_another_job_stays_on_request(run: Any) -> None:
    path = Path("/dev/shm/segment")
    try:
        with Job("shm", SMALL, 0, str(path)) as job, Job("shm", SMALL, 0, str(path)):
            status, report = run(
                "relocate", "--pid", job.pid, "--from", 0, "--to", 2, "--shared", "none"
            )
            assert (status, report["outcome"]) == (3, "partial"), report
            assert report["left_by_reason"]["shared"] >= SMALL * MIB
            assert job.share_on(0) == 1
    finally:
        path.unlink(missing_ok=True)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_pages_still_shared_after_fork(run: Any, strategy: str) -> None:
    with Job("anon", SMALL, 0) as job:
        child = int(job.say("fork"))
        status, report = run(
            "relocate", "--pid", job.pid, "--from", 0, "--to", 2, "--strategy", strategy
        )
        assert (status, report["outcome"]) == (0, "complete"), report
        assert job.share_on(2) >= ENOUGH
        assert job.residency(child).get(2, 0) >= ENOUGH * SMALL * MIB


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_process_of_many_threads(run: Any, strategy: str) -> None:
    with Job("anon", SMALL, 0) as job:
        job.say("threads 40")
        relocated(run, job, strategy)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_process_whose_first_thread_has_left(run: Any, strategy: str) -> None:
    with Job("anon", SMALL, 0) as job:
        job.say("leave")
        time.sleep(0.5)
        status, report = run(
            "relocate", "--pid", job.pid, "--from", 0, "--to", 2, "--strategy", strategy
        )
        after = thread_residency(job)
        assert (status, report["outcome"]) == (0, "complete"), report
        assert after.get(2, 0) >= ENOUGH * SMALL * MIB


def thread_residency(job: Job) -> dict[int, int]:
    tid = next(
        int(task.name)
        for task in Path(f"/proc/{job.pid}/task").iterdir()
        if int(task.name) != job.pid
    )
    return job.residency(tid)


@pytest.mark.short(1)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_cgroup_whose_processes_come_and_go(run: Any, strategy: str) -> None:
    with cgroup("job") as path:
        jobs = [Job("anon", 48, 0, cgroup=path) for _ in range(8)]
        sums = [job.checksum() for job in jobs[2:]]
        leaver, forker = jobs[:2]

        def disturb() -> None:
            forker.say("fork")
            leaver.process.send_signal(signal.SIGKILL)

        disturbance = threading.Timer(0.1, disturb)
        disturbance.start()
        status, report = run(
            "relocate", "--cgroup", path, "--from", 0, "--to", 2, "--strategy", strategy
        )
        disturbance.join()
        assert (status, report["outcome"]) == (0, "complete"), report
        for job in jobs[1:]:
            assert job.share_on(2) >= ENOUGH
        assert [job.checksum() for job in jobs[2:]] == sums
        for job in jobs:
            job.stop()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_relative_placement_is_kept(run: Any, strategy: str) -> None:
    with Job("anon", SMALL, 0) as job:
        job.say(f"touch {SMALL // 2} 1")
        status, report = run(
            "relocate", "--pid", job.pid, "--from", "0,1", "--to", "2-3", "--strategy", strategy
        )
        after = report["processes"][0]["residency_after"]
        assert (status, report["outcome"]) == (0, "complete"), report
        assert report["node_map"] == {"0": 2, "1": 3}
        assert job.share_on(2) >= ENOUGH
        assert after["3"] >= ENOUGH * SMALL // 2 * MIB


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("kind", ["anon", "thp"])
def test_nodes_change_places(run: Any, strategy: str, kind: str) -> None:
    with Job(kind, SMALL, 0) as job:
        job.say(f"touch {SMALL // 2} 1")
        before = anonymous(job)
        assert before[0] >= SMALL * MIB > before[1] >= SMALL // 2 * MIB
        checksum = job.checksum()
        status, report = run(
            "relocate", "--pid", job.pid, "--map", "0:1,1:0", "--strategy", strategy
        )
        after = anonymous(job)
        assert (status, report["outcome"]) == (0, "complete"), report
        assert job.share_on(1) >= ENOUGH
        assert after[0] == pytest.approx(before[1], abs=MIB)
        assert after[1] == pytest.approx(before[0], abs=MIB)
        assert job.checksum() == checksum


def anonymous(job: Job) -> dict[int, int]:
    """Return the bytes on each node of its mappings without a file, as numa_maps counts them."""
    return dict.fromkeys(range(4), 0) | numa_maps_of(job.pid, files=False)


def test_shared_pages_change_places_once(run: Any) -> None:
    """Two processes map the same pages; the sweep of one must not undo that of the other."""
    with cgroup("swap") as path, Job("anon", SMALL, 0, cgroup=path) as job:
        child = int(job.say("fork"))
        status, report = run("relocate", "--cgroup", path, "--map", "0:1,1:0")
        assert (status, report["outcome"]) == (0, "complete"), report
        assert job.share_on(1) >= ENOUGH
        assert job.residency(child).get(1, 0) >= ENOUGH * SMALL * MIB


def test_nodes_in_a_chain(run: Any) -> None:
    with Job("anon", SMALL, 0) as job:
        job.say(f"touch {SMALL // 2} 1")
        status, report = run("relocate", "--pid", job.pid, "--map", "0:1,1:2")
        after = report["processes"][0]["residency_after"]
        assert (status, report["outcome"]) == (0, "complete"), report
        assert job.share_on(1) >= ENOUGH
        assert after["2"] >= SMALL // 2 * MIB


def test_pinned_pages_are_counted_and_the_rest_moves(run: Any) -> None:
    with Job("anon", SMALL, 0) as job:
        job.say("pin")
        began = time.monotonic()
        status, report = run("relocate", "--pid", job.pid, "--from", 0, "--to", 2)
        assert time.monotonic() - began < 60
        assert (status, report["outcome"]) == (3, "partial"), report
        pinned = 16 * mmap.PAGESIZE
        assert report["left_by_reason"] == {"EBUSY": pinned}
        assert job.residency() == {0: pinned, 2: SMALL * MIB - pinned}
        assert report["attempts"] > 1


def test_a_full_destination_is_refused(run: Any) -> None:
    drop_caches()
    with taken(2, leave=250), Job("anon", BIG, 0) as job:
        status, report = run("relocate", "--pid", job.pid, "--from", 0, "--to", 2)
        assert (status, report["outcome"]) == (4, "refused"), report
        assert "no room" in report["notes"][0]
        assert job.share_on(0) == 1


@pytest.mark.short(1)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_full_destination_takes_what_fits_with_force(run: Any, strategy: str) -> None:
    drop_caches()
    with taken(2, leave=250), Job("anon", BIG, 0) as job:
        room = free_bytes(2)
        assert room < job.bytes
        status, report = run(
            "relocate", "--pid", job.pid, "--from", 0, "--to", 2, "--strategy", strategy, "--force"
        )
        assert (status, report["outcome"]) == (3, "partial"), report
        assert report["left_by_reason"].keys() <= {"reserve", "EBUSY"}
        assert report["left_by_reason"]["reserve"] > 0
        assert "the move stopped because node 2 has" in report["notes"][-1]
        assert 0 < report["bytes_moved"] < job.bytes
        after = report["processes"][0]["residency_after"]
        assert after["0"] == report["bytes_left"] + sum(report["bytes_kept"].values())


def test_a_dry_run_moves_nothing(run: Any) -> None:
    with Job("anon", SMALL, 0) as job:
        for command in (["relocate", "--dry-run"], ["plan"]):
            status, report = run(*command, "--pid", job.pid, "--from", 0, "--to", 2)
            assert (status, report["outcome"]) == (0, "planned"), report
            assert report["bytes_planned"] >= SMALL * MIB
            assert job.share_on(0) == 1


def test_a_cpuset_without_the_destination_is_refused(run: Any) -> None:
    with cgroup("fenced") as path:
        (path / "cpuset.mems").write_text("0-1")
        with Job("anon", SMALL, 0, cgroup=path) as job:
            status, report = run("relocate", "--pid", job.pid, "--from", 0, "--to", 2)
            assert (status, report["outcome"]) == (4, "refused"), report
            assert "cpuset" in report["notes"][0]
            assert job.share_on(0) == 1


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_caller_whose_own_cpuset_is_narrow_is_refused(run: Any, strategy: str) -> None:
    """migrate_pages(2) would silently omit the nodes that the caller may not use.

    move_pages(2) fails with ENOMEM although they are empty.
    """
    with cgroup("narrow") as path, Job("anon", SMALL, 0) as job:
        (path / "cpuset.mems").write_text("0-1")
        home = CGROUPS / Path("/proc/self/cgroup").read_text().strip().rpartition(":/")[2]
        try:
            (path / "cgroup.procs").write_text(str(os.getpid()))
            with NativeBackend().attach(job.pid) as target:
                area = next(area for area in target.areas() if area.start == job.start)
                done = target.sweep(
                    area, area.start, area.end, {0: 2}, shared=True, limits=Limits()
                )
            status, report = run(
                "relocate", "--pid", job.pid, "--from", 0, "--to", 2, "--strategy", strategy
            )
        finally:
            (home / "cgroup.procs").write_text(str(os.getpid()))
        assert {failure.errno for failure in done.failures} == {errno.ENOMEM}
        assert (status, report["outcome"]) == (4, "refused"), report
        assert "the calling process" in report["notes"][0]
        assert job.share_on(0) == 1


def test_a_process_that_reuses_the_pid_is_not_touched() -> None:
    first = Job("anon", 4, 0)
    with NativeBackend().attach(first.pid) as target:
        areas = target.areas()
        first.stop()
        Path("/proc/sys/kernel/ns_last_pid").write_text(str(first.pid - 1))
        with Job("anon", 4, 0) as second:
            assert second.pid == first.pid, "the kernel gave another pid"
            assert not target.alive()
            for area in areas:
                with pytest.raises(ProcessGoneError):
                    target.sweep(area, area.start, area.end, {0: 2}, shared=True, limits=Limits())
            with pytest.raises(ProcessGoneError):
                target.migrate(NodeSet({0}), NodeSet({2}))
            assert second.share_on(0) == 1


def test_processors_follow_on_request(run: Any) -> None:
    with Job("anon", SMALL, 0) as job:
        job.say("threads 3")
        os.sched_setaffinity(job.pid, {0})
        status, report = run("relocate", "--pid", job.pid, "--from", 0, "--cpus", 3)
        assert (status, report["outcome"]) == (0, "complete"), report
        assert job.share_on(3) >= ENOUGH
        for task in Path(f"/proc/{job.pid}/task").iterdir():
            assert os.sched_getaffinity(int(task.name)) == {3}


def test_bandwidth_is_bounded(run: Any) -> None:
    with Job("anon", SMALL, 0) as job:
        _, report = run("relocate", "--pid", job.pid, "--from", 0, "--to", 2, "--bandwidth", 20)
        assert report["outcome"] == "complete"
        assert report["bytes_moved"] / report["seconds"] <= 1.1 * 20e6


def test_another_users_process_is_refused_before_anything_moves(run: Any) -> None:
    with Job("anon", SMALL, 0) as job:
        relocation = ("--pid", job.pid, "--from", 0, "--to", 2)
        run("plan", *relocation)  # imports what another user may not be able to read
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            status = 1
            try:
                os.setgroups([])
                os.setresgid(65534, 65534, 65534)
                os.setresuid(65534, 65534, 65534)
                os.dup2(writing, 1)
                sys.stdout = os.fdopen(1, "w")
                words = [str(each) for each in relocation]
                status = main(["relocate", *words, "--json"], standalone_mode=False)
                sys.stdout.flush()
            finally:
                os._exit(status)
        os.close(writing)
        with os.fdopen(reading) as pipe:
            report = json.loads(pipe.read())
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 4
        assert report["outcome"] == "refused"
        assert "not permitted" in report["notes"][0]
        assert job.share_on(0) == 1


def test_show_agrees_with_numa_maps(run: Any) -> None:
    with Job("anon", SMALL, 3) as job:
        status, shown = run("show", "--pid", job.pid)
        assert status == 0
        anonymous_bytes = shown["processes"][0]["kinds"]["anon"]["3"]
        assert job.residency() == {3: SMALL * MIB}
        assert SMALL * MIB <= anonymous_bytes < SMALL * MIB + 2 * MIB
