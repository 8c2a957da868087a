"""A request to relocate memory, as every entry point makes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from schedhook.values.model import MemoryKind, NodeMap, Policies, Report, Shared
from schedhook.values.sets import CpuSet, NodeSet

if TYPE_CHECKING:
    from schedhook.roles.guidance import Guidance


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What to relocate, and where to. None means: as configured.

    The processes are `pids`, those of `cgroup` and below, and those of `job`, as the adapter
    `scheduler` finds them (None: the adapter that knows the job). With `job` and `scheduler`,
    processes of `pids` that no longer belong to the job are left alone.

    The node map is `node_map`, or what the mapper makes of `sources` and `destinations`; with
    `cpus` these default to the nodes of the processes' old and new processors. Without `sources`
    and `cpus` memory comes from all nodes but the destinations, to the nearest of them unless a
    mapper is named.

    With `home` the off-node memory of each process (that on `sources`, if given) goes to the nodes
    of its own processors, and neither a map nor destinations are named.
    """

    pids: tuple[int, ...] = ()
    cgroup: str | None = None
    job: str | None = None
    scheduler: str | None = None
    node_map: NodeMap | None = None
    sources: NodeSet | None = None
    destinations: NodeSet | None = None
    cpus: CpuSet | None = None
    home: bool = False
    strategy: str | None = None
    mapper: str | None = None
    backend: str | None = None
    kinds: frozenset[MemoryKind] | None = None
    shared: Shared | None = None
    threads: int | None = None
    bandwidth_mb_s: float | None = None
    gentle: bool | None = None
    freeze: bool | None = None
    policies: Policies | None = None
    reserve: int | None = None
    """Bytes."""
    sweep_leftovers: bool = True
    force: bool = False
    dry_run: bool = False
    guidance: Guidance | None = None
    """A profile of the processes' accesses, for strategies that use one."""


Relocate = Callable[[Request], Report]
"""Carries out, or only plans, a request; see schedhook.relocation.pipeline.relocate."""

Progress = Callable[[int, int], None]
"""Called with (bytes moved so far, bytes planned) by several threads, one at a time."""
