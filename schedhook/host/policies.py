"""Memory policies of a process's threads, from /proc/PID/task/TID/numa_maps.

The kernel shows a thread's policy on each area that has none of its own; see show_numa_map() in
fs/proc/task_mmu.c. It fills a buffer area by area and stops once the read that was asked for is
served, so a short read tells a thread's policy without a walk through all page tables.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

from schedhook.host._numa_maps import policy_text
from schedhook.host._proc import proc_path, task_file, thread_ids, translated
from schedhook.host.bounded import call_bounded
from schedhook.values.errors import ProcessGoneError
from schedhook.values.model import Area, MemoryKind
from schedhook.values.policy import Policy

_FIRST_AREAS = 64
"""Areas among which one is looked for that certainly has no policy of its own."""
_READ_BYTES = 256
_MOST_BYTES = 64 << 10
_SECONDS = 1.0
_SECONDS_EACH = 0.01
"""Time for all threads of one process, and more for each; those that are left are not read."""


@functools.lru_cache(maxsize=256)
def parse_policy(text: str) -> Policy | None:
    """Return the policy that numa_maps shows as `text`; None for one that is not known here."""
    try:
        return Policy.parse(text)
    except ValueError:
        return None


def find_task_area(areas: Sequence[Area]) -> Area | None:
    """Return an area, near the beginning, that shows the policy of the thread that was read.

    No program gives its own text and libraries a policy. If all those lie far up in the address
    space, return the first area that has the same policy as they. None without any area.
    """
    program = next((at for at, area in enumerate(areas) if _is_program(area)), 0)
    if program < _FIRST_AREAS:
        return areas[program] if areas else None
    text = areas[program].policy
    return next(area for area in areas if area.policy == text)


def _is_program(area: Area) -> bool:
    # Huge pages and /dev/zero have a path too, and programs do give those a policy.
    on_file = area.kind in (MemoryKind.FILE, MemoryKind.SHMEM)
    return on_file and bool(area.path) and not area.is_shared


def read_thread_policies(
    pid: int, areas: Sequence[Area], root: Path = Path("/")
) -> dict[int, Policy | None]:
    """Return the policy of each thread, by its number.

    `areas` are the process's areas as just read. The policy is None for a thread that could not be
    read in the time that all threads together have, or whose policy is not known here. Raise
    ProcessGoneError if the process has exited, NoPermissionError without ptrace read access,
    NotAnsweringError if the process keeps its memory's lock.
    """
    threads = thread_ids(pid, root)
    shown = find_task_area(areas)
    if shown is None:
        return {}
    if len(threads) == 1:
        return {threads[0]: parse_policy(shown.policy)}
    # One call for all: handing each to another thread costs more than the reading.
    return call_bounded(pid, lambda: _read_policies(pid, threads, shown.start, root), root)


def _read_policies(
    pid: int, threads: Sequence[int], start: int, root: Path
) -> dict[int, Policy | None]:
    """Return the policy that each thread's area at `start` shows."""
    found: dict[int, Policy | None] = {}
    end = time.monotonic() + _SECONDS + _SECONDS_EACH * len(threads)
    for thread in threads:
        name = task_file("numa_maps", thread)
        text: str | None = ""
        try:
            if time.monotonic() < end:
                with translated(pid, name, root):
                    text = _find_policy(proc_path(pid, name, root), start)
        except ProcessGoneError:  # that thread has exited
            continue
        if text is not None:
            found[thread] = parse_policy(text)
    return found


def _find_policy(numa_maps: Path, start: int) -> str | None:
    """Return the policy that the area at `start` shows; None if the thread has no memory any more.

    The text is empty if there is no such area near the beginning.
    """
    file = os.open(numa_maps, os.O_RDONLY | os.O_CLOEXEC)
    try:
        lines = _lines(file)
        first = next(lines, None)
        if first is None:
            return None
        for line in chain((first,), lines):
            at, _, _ = line.partition(b" ")
            if int(at, 16) >= start:
                return policy_text(line) if int(at, 16) == start else ""
    finally:
        os.close(file)
    return ""


def _lines(file: int) -> Iterator[bytes]:
    """Yield the file's first lines, reading no more of it than needed."""
    rest, total = b"", 0
    while total < _MOST_BYTES and (data := os.read(file, _READ_BYTES)):
        total += len(data)
        *whole, rest = (rest + data).split(b"\n")
        yield from whole
