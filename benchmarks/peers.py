"""The kernel's own means to move a process's memory: a cpuset's nodes, and DAMON's schemes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from benchmarks.tools import Target

_CGROUPS = Path("/sys/fs/cgroup")
_KDAMONDS = Path("/sys/kernel/mm/damon/admin/kdamonds")
_NODES = Path("/sys/devices/system/node")
_SECONDS = 120.0
"""How long a scheme may take."""
_MOST = {"sz": (1 << 64) - 1, "nr_accesses": (1 << 32) - 1, "age": (1 << 32) - 1}


@contextmanager
def cgroup() -> Iterator[Path]:
    """Make a cgroup, of version 2, whose memory a scheme can be confined to."""
    (_CGROUPS / "cgroup.subtree_control").write_text("+cpuset +memory")
    directory = _CGROUPS / "schedhook-bench"
    directory.mkdir()
    try:
        yield directory
    finally:
        for pid in (directory / "cgroup.procs").read_text().split():
            with suppress(OSError):  # it has just ended
                (_CGROUPS / "cgroup.procs").write_text(pid)
        directory.rmdir()


def by_cpuset(directory: Path, new: int) -> float:
    """Give the cgroup the node alone, which moves its memory there; cgroup-v2, cpuset.mems.

    Return the seconds that the write takes: it waits for the move.
    """
    mems = directory / "cpuset.mems"
    began = time.monotonic()
    mems.write_text(str(new))
    took = time.monotonic() - began
    mems.write_text((_NODES / "has_memory").read_text())  # it may not be empty again
    return took


def has_migrating_schemes() -> bool:
    """Return whether DAMON knows the action migrate_cold (Linux 6.11)."""
    try:
        with _scheme():
            return True
    except OSError:
        return False


def by_scheme(target: Target, directory: Path, old: int, new: int) -> float:
    """Have a scheme move all memory of the cgroup that is on the node `old`.

    Return the seconds until it has arrived; see Documentation/admin-guide/mm/damon/usage.rst.
    Raise RuntimeError if it does not arrive.
    """
    with _scheme() as (context, scheme):
        _confine(context, _ranges(old))
        (scheme / "target_nid").write_text(str(new))
        for name, most in _MOST.items():
            (scheme / "access_pattern" / name / "min").write_text("0")
            (scheme / "access_pattern" / name / "max").write_text(str(most))
        (scheme / "filters/nr_filters").write_text("1")
        only = scheme / "filters/0"
        (only / "type").write_text("memcg")
        (only / "memcg_path").write_text(f"/{directory.name}")
        (only / "matching").write_text("N")  # leave out what does not match
        state = _KDAMONDS / "0/state"
        began = time.monotonic()
        state.write_text("on")
        try:
            while target.share_on(new) < 0.999:
                if time.monotonic() - began > _SECONDS:
                    raise RuntimeError("the scheme left memory behind")
                time.sleep(0.02)
            return time.monotonic() - began
        finally:
            state.write_text("off")


@contextmanager
def _scheme() -> Iterator[tuple[Path, Path]]:
    """Make a context that monitors physical memory, and one scheme in it."""
    number = _KDAMONDS / "nr_kdamonds"
    number.write_text("1")
    try:
        (_KDAMONDS / "0/contexts/nr_contexts").write_text("1")
        context = _KDAMONDS / "0/contexts/0"
        (context / "operations").write_text("paddr")
        (context / "schemes/nr_schemes").write_text("1")
        scheme = context / "schemes/0"
        (scheme / "action").write_text("migrate_cold")
        yield context, scheme
    finally:
        number.write_text("0")


def _confine(context: Path, ranges: list[tuple[int, int]]) -> None:
    """Monitor these ranges of physical memory."""
    (context / "targets/nr_targets").write_text("1")
    regions = context / "targets/0/regions"
    (regions / "nr_regions").write_text(str(len(ranges)))
    for number, (start, end) in enumerate(ranges):
        (regions / str(number) / "start").write_text(str(start))
        (regions / str(number) / "end").write_text(str(end))


def _ranges(node: int) -> list[tuple[int, int]]:
    """Return the node's physical memory as ascending (first byte, one past the last)."""
    size = int(Path("/sys/devices/system/memory/block_size_bytes").read_text(), 16)
    blocks = sorted(
        int(path.name.removeprefix("memory"))
        for path in (_NODES / f"node{node}").glob("memory*[0-9]")
    )
    ranges: list[tuple[int, int]] = []
    for block in blocks:
        start, end = block * size, (block + 1) * size
        if ranges and ranges[-1][1] == start:
            ranges[-1] = ranges[-1][0], end
        else:
            ranges.append((start, end))
    return ranges
