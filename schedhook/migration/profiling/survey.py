"""Attribute the accesses of a profile to the processes that run now."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from schedhook.host.processes import boot_time, read_areas, read_identity, read_status, thread_ids
from schedhook.host.topology import Topology
from schedhook.host.vanishing import read_living
from schedhook.roles.profile import Accesses, Profile
from schedhook.values.errors import ProcessGoneError
from schedhook.values.sets import CpuSet, NodeSet


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """The accesses of a profile by running process, and those of no such process."""

    accesses: dict[int, Accesses]
    nodes: NodeSet
    """The nodes with memory of all processors that a thread of the processes may use."""
    gone: int
    """Accesses of processes that have exited, also if another process has got the number."""
    others: int
    """Accesses of processes that were not selected."""
    unmapped: int
    """Accesses to addresses at which nothing is mapped (any more)."""


def survey(
    profile: Profile,
    pids: Iterable[int],
    topology: Topology,
    *,
    recorded: float | None = None,
    root: Path = Path("/"),
) -> Survey:
    """Attribute accesses to `pids`.

    `recorded` is when the log ended, in seconds since the epoch; None: unknown. A process or thread
    that started later cannot be in the log: the accesses are those of an earlier one with the same
    number. Processes that exit during the survey count as gone, too.
    """
    boot = boot_time(root)
    accesses: dict[int, Accesses] = {}
    cpus = CpuSet()
    unmapped = 0
    numbers = set(profile.numbers)
    for pid in pids:
        with suppress(ProcessGoneError):
            if recorded is not None and _began(pid, boot, root) > recorded:
                continue
            threads = thread_ids(pid, root)
            found = profile.accesses(numbers & {pid, *threads})
            inside = sum(
                found.count(area.start, area.end)
                for area in read_areas(pid, root, resident_only=False, join=False)
            )
            cpus = cpus | _cpus(threads, root)
            accesses[pid] = found
            unmapped += found.total - inside
            numbers -= {pid, *threads}
    left = {number: profile.total(number) for number in numbers}
    alive = {number for number in numbers if _lived(number, recorded, boot, root)}
    return Survey(
        accesses=accesses,
        nodes=topology.memory_nodes_of(cpus),
        gone=sum(count for number, count in left.items() if number not in alive),
        others=sum(left[number] for number in alive),
        unmapped=unmapped,
    )


def _cpus(threads: Iterable[int], root: Path) -> CpuSet:
    cpus = CpuSet()
    for _, status in read_living(threads, lambda thread: read_status(thread, root)):
        cpus = cpus | status.allowed_cpus
    return cpus


def _lived(number: int, recorded: float | None, boot: float, root: Path) -> bool:
    """Return whether the process or thread runs, and ran when the log ended."""
    try:
        began = _began(number, boot, root)
    except ProcessGoneError:
        return False
    return recorded is None or began <= recorded


def _began(pid: int, boot: float, root: Path) -> float:
    """Return when the process started, in seconds since the epoch."""
    return boot + read_identity(pid, root).start_time / os.sysconf("SC_CLK_TCK")
