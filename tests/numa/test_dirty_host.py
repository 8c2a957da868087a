"""Relocations on a host that has been up for long: nodes full of page cache and of tmpfs files."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.numa.jobs import MIB, Job, drop_caches, free_bytes

pytestmark = pytest.mark.nodes(4)

STRATEGIES = ["move-pages", "migrate-process"]
LITTLE = 60
"""MiB that stay free on a node that is full otherwise: less than any job here."""
BIG = 300
"""MiB of the job."""


@contextmanager
def compressed_disk(directory: Path, mib: int = 2048) -> Iterator[Path]:
    """Mount a file system on a zram device, where zeros take no memory."""
    subprocess.run(["modprobe", "zram", "num_devices=0"], check=True, timeout=60)
    number = Path("/sys/class/zram-control/hot_add").read_text().strip()
    device, point = f"/dev/zram{number}", directory / f"zram{number}"
    Path(f"/sys/block/zram{number}/disksize").write_text(f"{mib}M")
    point.mkdir()
    try:
        subprocess.run(["mkfs.ext4", "-q", "-F", "-m0", device], check=True, timeout=60)
        subprocess.run(["mount", device, str(point)], check=True, timeout=60)
        try:
            yield point
        finally:
            subprocess.run(["umount", str(point)], check=True, timeout=120)
    finally:
        Path("/sys/class/zram-control/hot_remove").write_text(number)


@contextmanager
def tmpfs(directory: Path) -> Iterator[Path]:
    """Mount a tmpfs."""
    point = directory / "tmpfs"
    point.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2G", "none", point], check=True, timeout=60)
    try:
        yield point
    finally:
        subprocess.run(["umount", point], check=True, timeout=60)


def fill(node: int, directory: Path, name: str = "cache", leave: int = LITTLE) -> int:
    """Write zeros to a file until the node has `leave` MiB free; return the MiB written."""
    mib = free_bytes(node) // MIB - leave
    command = ["numactl", f"--membind={node}", "dd", "if=/dev/zero", "bs=1M", f"count={mib}"]
    subprocess.run(
        [*command, f"of={directory / name}"], check=True, timeout=300, stderr=subprocess.DEVNULL
    )
    return mib


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    drop_caches()
    with compressed_disk(tmp_path) as point:
        yield point
    drop_caches()


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("kind", ["anon", "thp"])
def test_clean_page_cache_makes_room(run: Any, disk: Path, kind: str, strategy: str) -> None:
    with Job(kind, BIG, 0) as job:
        before = job.checksum()
        assert fill(2, disk) > 2 * BIG
        os.sync()
        assert free_bytes(2) < 2 * LITTLE * MIB
        arguments = ("--pid", job.pid, "--from", 0, "--to", 2, "--strategy", strategy)
        _, plan = run("plan", *arguments)
        assert plan["outcome"] == "planned", plan["notes"]
        assert plan["plan"]["would_reclaim"]["2"] >= (BIG - 2 * LITTLE) * MIB
        status, report = run("relocate", *arguments)
        assert (status, report["outcome"]) == (0, "complete"), report["notes"]
        assert job.share_on(2) >= 0.999, job.residency()
        assert report["bytes_moved"] >= 0.99 * job.bytes
        assert report["bytes_reclaimed"] >= (BIG - 2 * LITTLE) * MIB
        assert job.checksum() == before


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_node_full_of_tmpfs_has_no_room(run: Any, tmp_path: Path, strategy: str) -> None:
    drop_caches()
    with tmpfs(tmp_path) as files, Job("anon", BIG, 0) as job:
        before = job.checksum()
        assert fill(2, files) > 2 * BIG
        status, report = run(
            "relocate", "--pid", job.pid, "--from", 0, "--to", 2, "--strategy", strategy
        )
        assert (status, report["outcome"]) == (4, "refused")
        assert "node 2 has no room" in report["notes"][-1]
        assert job.share_on(0) == 1
        assert job.checksum() == before


@pytest.fixture
def nothing_is_written_back() -> Iterator[None]:
    """Let dirty pages lie: the kernel neither writes them for their number nor for their age."""
    wanted = {
        "dirty_background_ratio": "99",
        "dirty_ratio": "100",
        "dirty_writeback_centisecs": "0",
        "dirty_expire_centisecs": "360000",
    }
    files = {Path("/proc/sys/vm") / name: value for name, value in wanted.items()}
    before = {file: file.read_text() for file in files}
    for file, value in files.items():
        file.write_text(value)
    yield
    for file, text in before.items():
        file.write_text(text)


@pytest.mark.usefixtures("nothing_is_written_back")
def test_dirty_cache_is_no_room_until_it_is_written(run: Any, disk: Path) -> None:
    with tmpfs(disk) as files, Job("anon", BIG, 0) as job:
        fill(2, files, leave=2 * BIG)
        fill(2, disk, leave=BIG // 2)  # dirty, and more than half of the job
        arguments = ("--pid", job.pid, "--from", 0, "--to", 2)
        status, report = run("relocate", *arguments)
        assert (status, report["outcome"]) == (4, "refused"), report
        assert "of cache are dirty: run sync" in report["notes"][-1]
        os.sync()
        status, report = run("relocate", *arguments)
        assert (status, report["outcome"]) == (0, "complete"), report["notes"]
        assert job.share_on(2) >= 0.999
