"""Jobs to be moved (job.c), and the nodes of their memory according to the kernel."""

from __future__ import annotations

import os
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

import pytest

from tests.balancing import setting
from tests.numa.programs import program

MIB = 1 << 20
CGROUPS = Path("/sys/fs/cgroup")


class Job:
    """A running job.c. `prefix`: words before its command line; `options`: those of Popen."""

    def __init__(
        self,
        kind: str,
        mib: int,
        node: int,
        path: str = "",
        cgroup: Path | None = None,
        binary: Path | None = None,
        prefix: Sequence[str] = (),
        **options: Any,
    ) -> None:
        command = [*prefix, str(binary or program("job")), kind, str(mib), str(node), path]
        if cgroup is not None:
            join = f'echo $$ > {cgroup}/cgroup.procs && exec "$@"'
            command = ["/bin/sh", "-c", join, "sh", *command]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            **options,
        )
        self.pid = self.process.pid
        word, start, size = self._line().split()
        assert word == "ready"
        self.start, self.bytes = int(start, 16), int(size)

    def say(self, line: str) -> str:
        """Send a command and return the answer."""
        assert self.process.stdin
        self.process.stdin.write(line + "\n")
        return self._line()

    def checksum(self) -> str:
        return self.say("sum")

    def residency(self, pid: int | None = None) -> dict[int, int]:
        """Return bytes per node of the memory that it filled.

        They come from numa_maps, without the project's readers.
        """
        return numa_maps_of(pid or self.pid, self.start, self.start + self.bytes)

    def share_on(self, node: int) -> float:
        """Return the share of its memory that is on `node`."""
        residency = self.residency()
        return residency.get(node, 0) / max(sum(residency.values()), 1)

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream:
                stream.close()

    def __enter__(self) -> Job:
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def _line(self) -> str:
        assert self.process.stdout
        line: str = self.process.stdout.readline()
        assert line, f"the job ended with {self.process.wait()}"
        return line.strip()


@contextmanager
def cgroup(name: str, controllers: str = "+cpuset +memory") -> Iterator[Path]:
    """Make a cgroup v2 with controllers; remove it at the end with its processes."""
    (CGROUPS / "cgroup.subtree_control").write_text(controllers)
    path = CGROUPS / name
    path.mkdir()
    try:
        yield path
    finally:
        (path / "cgroup.kill").write_text("1")
        for _ in range(100):
            if not (path / "cgroup.procs").read_text():
                break
            subprocess.run(["sleep", "0.1"], check=True)
        for child in sorted(path.rglob("*"), reverse=True):
            if child.is_dir():
                child.rmdir()
        path.rmdir()


def is_at_least(*version: int) -> bool:
    """Return whether the running kernel is of this version, such as 6, 12, or a later one."""
    return tuple(map(int, re.findall(r"\d+", os.uname().release)[: len(version)])) >= version


def khugepaged_at_rest() -> AbstractContextManager[None]:
    """Let the kernel make no huge pages of small ones in the background during the block."""
    return setting("/sys/kernel/mm/transparent_hugepage/khugepaged/scan_sleep_millisecs", 3_600_000)


def cannot_run(why: str) -> NoReturn:
    """Skip on a developer's host; fail if the tier must run."""
    if {"CI", "TESTS_IN_VM"} & set(os.environ):
        pytest.fail(why)
    pytest.skip(why)


@contextmanager
def cpuset_v1(directory: Path) -> Iterator[Path]:
    """Mount the cpuset controller in a hierarchy of version 1."""
    controlled = CGROUPS.rglob("cgroup.subtree_control")
    for path in sorted(controlled, key=lambda path: -len(path.parts)):  # those below first
        with suppress(OSError):
            path.write_text("-cpuset")
    mount = directory / "cpuset"
    mount.mkdir()
    for _ in range(100):  # the kernel holds on to cgroups of earlier tests for a while
        done = subprocess.run(
            ["mount", "-t", "cgroup", "-o", "cpuset", "cpuset", mount],
            check=False,
            capture_output=True,
            text=True,
        )
        # While it is in use, EBUSY. util-linux 2.39 and later repeats the kernel's own words.
        is_unknown = any(why in done.stderr for why in ("wrong fs type", "Unknown subsys name"))
        if is_unknown or not done.returncode:
            break
        time.sleep(0.2)
    if done.returncode:
        (CGROUPS / "cgroup.subtree_control").write_text("+cpuset")
        if is_unknown:
            pytest.skip("this kernel has no cpuset of version 1 (CONFIG_CPUSETS_V1)")
        cannot_run(f"no cpuset of version 1 to be had: {done.stderr.strip()}")
    try:
        yield mount
    finally:
        # A removed cgroup lives on for a moment, and a hierarchy that is unmounted before its end
        # stays, with its controllers, for good.
        until(lambda: cgroups_with("cpuset") == 1)
        until(lambda: subprocess.run(["umount", mount], check=False).returncode == 0)
        until(lambda: "cpuset" in (CGROUPS / "cgroup.controllers").read_text().split())
        (CGROUPS / "cgroup.subtree_control").write_text("+cpuset")


def cgroups_with(controller: str) -> int:
    """Return the count in /proc/cgroups, which includes the root and removed ones in use."""
    rows = [line.split() for line in Path("/proc/cgroups").read_text().splitlines()]
    return next(int(row[2]) for row in rows if row[0] == controller)


def numa_maps_of(
    pid: int, start: int = 0, end: int = 1 << 64, *, files: bool = True
) -> dict[int, int]:
    """Return bytes per node of the mappings that begin in [start, end), from numa_maps."""
    total: dict[int, int] = {}
    for line in Path(f"/proc/{pid}/numa_maps").read_text().splitlines():
        if not start <= int(line.split()[0], 16) < end or (not files and " file=" in line):
            continue
        unit = int(line.partition("kernelpagesize_kB=")[2].split()[0]) << 10 if " N" in line else 0
        for node, pages in re.findall(r" N(\d+)=(\d+)", line):
            total[int(node)] = total.get(int(node), 0) + int(pages) * unit
    return total


def numa_stat(path: Path, *kinds: str) -> dict[int, int]:
    """Return bytes by node of a cgroup, as the kernel counts them in rows of memory.numa_stat."""
    # A read of numa_stat may leave out what changed on each processor in the last two seconds, up
    # to 256 KiB each (mm/memcontrol.c). A read of cpu.stat first adds everything up.
    (path / "cpu.stat").read_bytes()
    total: dict[int, int] = {}
    for line in (path / "memory.numa_stat").read_text().splitlines():
        if line.split()[0] in kinds:
            for node, size in re.findall(r"N(\d+)=(\d+)", line):
                total[int(node)] = total.get(int(node), 0) + int(size)
    return total


def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


@contextmanager
def repeating(look: Callable[[], object], seconds: float) -> Iterator[None]:
    """Call `look` again and again during the block, in a thread, that long after one another."""
    ended = threading.Event()

    def repeat() -> None:
        while not ended.wait(seconds):
            look()

    thread = threading.Thread(target=repeat)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def free_bytes(node: int) -> int:
    """Return MemFree of a node in bytes."""
    return node_bytes(node, "MemFree")


def node_bytes(node: int, name: str) -> int:
    """Return a value of a node's meminfo in bytes."""
    text = Path(f"/sys/devices/system/node/node{node}/meminfo").read_text()
    return int(text.partition(f" {name}:")[2].split()[0]) << 10


def drop_caches() -> None:
    """Drop the page cache, which could fill a node."""
    Path("/proc/sys/vm/drop_caches").write_text("3")


@contextmanager
def disk(mib: int) -> Iterator[Path]:
    """Make a disk in memory."""
    load = ["modprobe", "brd", "rd_nr=1", f"rd_size={mib << 10}"]
    subprocess.run(load, check=True, timeout=60)
    try:
        yield Path("/dev/ram0")
    finally:
        subprocess.run(["modprobe", "-r", "brd"], check=True, timeout=60)


@contextmanager
def mounted_disk(directory: Path, mib: int, file_system: str = "ext4") -> Iterator[Path]:
    """Mount a real file system on a disk in memory."""
    options = {"ext4": ["-q", "-F", "-m0"], "minix": ["-3"], "xfs": ["-q"]}
    point = directory / "mnt"
    point.mkdir()
    with disk(mib) as device:
        make = [f"mkfs.{file_system}", *options[file_system], str(device)]
        subprocess.run(make, check=True, capture_output=True, timeout=60)
        subprocess.run(["mount", device, point], check=True, timeout=60)
        try:
            yield point
        finally:
            subprocess.run(["umount", point], check=True, timeout=60)
