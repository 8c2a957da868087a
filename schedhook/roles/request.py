"""What to relocate, as every entry says it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from schedhook.values.model import MemoryKind, NodeMap, Report, Shared
from schedhook.values.sets import CpuSet, NodeSet

if TYPE_CHECKING:
    from schedhook.roles.guidance import Guidance


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What to relocate, and where. None means: as the configuration says.

    Processes are `pids`, those of `cgroup` and below, and those of `job`, as the adapter
    `scheduler` finds them (None: whichever knows the job). With `job` and `scheduler`, those of
    `pids` that the job does not have any more are left alone. The map is `node_map`, or what the
    mapper makes of `sources` and `destinations`; with `cpus` these default to the nodes of the
    processes' old and new processors.
    """

    pids: tuple[int, ...] = ()
    cgroup: str | None = None
    job: str | None = None
    scheduler: str | None = None
    node_map: NodeMap | None = None
    sources: NodeSet | None = None
    destinations: NodeSet | None = None
    cpus: CpuSet | None = None
    strategy: str | None = None
    mapper: str | None = None
    backend: str | None = None
    kinds: frozenset[MemoryKind] | None = None
    shared: Shared | None = None
    threads: int | None = None
    bandwidth_mb_s: float | None = None
    gentle: bool | None = None
    freeze: bool | None = None
    reserve: int | None = None
    """Bytes."""
    sweep_leftovers: bool = True
    force: bool = False
    dry_run: bool = False
    guidance: Guidance | None = None
    """A profile of the processes' accesses, for strategies that go by it."""


Relocate = Callable[[Request], Report]
"""Carry out, or only plan, what a request asks for; see schedhook.relocation.pipeline.relocate."""
