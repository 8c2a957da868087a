"""Room on the real kernel: nodes full of page cache, clean or dirty, and of files in memory."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.numa.dirt import (
    LITTLE,
    PageCache,
    count_killed,
    fill_with_files,
    nothing_written_back,
    page_cache_on,
    taken,
    tmpfs,
)
from tests.numa.disks import Slow, compressed_disk
from tests.numa.jobs import MIB, Job, cgroup, drop_caches, free_bytes, node_bytes, until

pytestmark = pytest.mark.nodes(4)

STRATEGIES = ["move-pages", "migrate-process"]
BIG, SMALL = 300, 64
"""MiB of the job."""
DISK = 2048
"""MiB of a disk for BIG dirty pages: ext4 begins to write them once they are half of what is free
on it, ext4_nonda_switch()."""


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("kind", ["anon", "thp"])
def test_clean_page_cache_makes_room(
    run: Any, page_cache: PageCache, kind: str, strategy: str
) -> None:
    with Job(kind, BIG, 0) as job:
        before = job.checksum()
        assert page_cache.fill(2) > 2 * BIG
        assert free_bytes(2) < 2 * LITTLE * MIB
        arguments = ("--pid", job.pid, "--from", 0, "--to", 2, "--strategy", strategy)
        _, plan = run("plan", *arguments)
        assert plan["outcome"] == "planned", plan["notes"]
        assert plan["plan"]["would_reclaim"]["2"] >= (BIG - 2 * LITTLE) * MIB
        free = free_bytes(2)  # on Linux 7.3 kswapd goes on after the filling, and frees some more
        status, report = run("relocate", *arguments)
        assert (status, report["outcome"]) == (0, "complete"), report["notes"]
        assert job.share_on(2) >= 0.999, job.residency()
        assert report["bytes_moved"] >= 0.99 * job.bytes
        assert report["bytes_reclaimed"] >= BIG * MIB - max(2 * LITTLE * MIB, free)
        assert job.checksum() == before


@pytest.mark.short(1)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_node_full_of_files_in_memory_has_no_room(
    run: Any, tmp_path: Path, strategy: str
) -> None:
    drop_caches()
    killed = count_killed()
    with (
        taken(2, leave=BIG + 2 * LITTLE),
        tmpfs(tmp_path / "tmpfs") as files,
        Job("anon", BIG, 0) as job,
    ):
        before = job.checksum()
        assert fill_with_files(files, 2) > BIG
        status, report = run(
            "relocate", "--pid", job.pid, "--from", 0, "--to", 2, "--strategy", strategy
        )
        assert (status, report["outcome"]) == (4, "refused")
        assert "node 2 has no room" in report["notes"][-1]
        assert job.share_on(0) == 1
        assert job.checksum() == before
    assert count_killed() == killed


@pytest.fixture
def written_late() -> Iterator[None]:
    with nothing_written_back():
        yield


@pytest.mark.usefixtures("written_late")
def test_dirty_cache_is_no_room_until_it_is_written(run: Any, page_cache: PageCache) -> None:
    with taken(2, leave=BIG * 5 // 3), Job("anon", BIG, 0) as job:
        page_cache.dirty(2, BIG)
        arguments = ("--pid", job.pid, "--from", 0, "--to", 2)
        status, report = run("relocate", *arguments)
        assert (status, report["outcome"]) == (4, "refused"), report
        assert "of cache are dirty: run sync" in report["notes"][-1]
        os.sync()
        status, report = run("relocate", *arguments)
        assert (status, report["outcome"]) == (0, "complete"), report["notes"]
        assert job.share_on(2) >= 0.999


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_job_that_has_nearly_reached_its_memory_limit(run: Any, strategy: str) -> None:
    """The kernel charges a new page before it frees the old one, and does not enforce the limit."""
    with cgroup("limited") as path, Job("anon", SMALL, 0, cgroup=path) as job:
        before = job.checksum()
        (path / "memory.max").write_text(str(int((path / "memory.current").read_text()) + MIB))
        status, report = run(
            "relocate", "--cgroup", path, "--from", 0, "--to", 2, "--strategy", strategy
        )
        assert (status, report["outcome"]) == (0, "complete"), report
        assert job.share_on(2) >= 0.999
        assert job.checksum() == before
        events = dict(line.split() for line in (path / "memory.events").read_text().splitlines())
        assert events["oom_kill"] == "0"
        assert job.residency() == {2: SMALL * MIB}, "a part was swapped out"


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[tuple[Slow, PageCache]]:
    """A disk that can be stopped, and page cache of it."""
    drop_caches()
    with compressed_disk(DISK) as fast:
        slow = Slow(fast, DISK)
        try:
            with page_cache_on(slow.device, tmp_path / "slow") as cache:
                yield slow, cache
                cache.remove()
        finally:
            slow.remove()


@pytest.mark.short(1)
@pytest.mark.usefixtures("written_late")
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_dirty_cache_of_a_disk_that_does_not_answer_is_not_waited_for(
    run: Any, slow: tuple[Slow, PageCache], strategy: str
) -> None:
    """Nothing writes it back: the plan says so at once, and --force moves what fits."""
    disk, cache = slow
    with taken(2, leave=BIG * 5 // 3), Job("anon", BIG, 0) as job:
        before = job.checksum()
        cache.dirty(2, BIG)
        # Each processor adds what it has counted now and then.
        until(lambda: node_bytes(2, "Dirty") >= BIG * MIB)
        with disk.stopped():
            arguments = ("--pid", job.pid, "--from", 0, "--to", 2, "--strategy", strategy)
            began = time.monotonic()
            status, report = run("relocate", *arguments)
            assert (status, report["outcome"]) == (4, "refused"), report
            assert "of cache are dirty: run sync" in report["notes"][-1]
            status, report = run("relocate", *arguments, "--force")
            assert time.monotonic() - began < 60
            assert status in (0, 3), report["notes"]
            assert job.residency().get(0, 0) <= report["bytes_left"]
            assert job.checksum() == before
