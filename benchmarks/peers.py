"""The kernel's own means to move a process's memory: a cpuset's nodes, and DAMON's schemes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.tools import PAGE, Target
from schedhook.host.frames import node_spans

_KDAMONDS = Path("/sys/kernel/mm/damon/admin/kdamonds")
_NODES = Path("/sys/devices/system/node")
_SECONDS = 120.0
"""How long a scheme may take."""
_MOST = {"sz": (1 << 64) - 1, "nr_accesses": (1 << 32) - 1, "age": (1 << 32) - 1}


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
        _confine(context, old)
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


def _confine(context: Path, node: int) -> None:
    """Monitor the physical memory of this node."""
    spans = [span for span in node_spans() if span[2] == node]
    (context / "targets/nr_targets").write_text("1")
    regions = context / "targets/0/regions"
    (regions / "nr_regions").write_text(str(len(spans)))
    for number, (first, end, _) in enumerate(spans):
        (regions / str(number) / "start").write_text(str(first * PAGE))
        (regions / str(number) / "end").write_text(str(end * PAGE))
