"""Giving a stopped job other CPUs, because other jobs run on its own by now.

Only CPUs that PBS granted the job: it gives all others to other jobs, and kills running ones if
that fails. Both places are allowed until the memory has left the old one. All of it is done, or
nothing. What is being done is a note in the journal, written before anything changes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache

from schedhook.control.cpu_move import CpusetChange, move_processors
from schedhook.control.cpusets import write_cpus, write_nodes
from schedhook.host.cgroups import (
    Cgroup,
    configured_cpus,
    configured_nodes,
    effective_cpus,
    effective_nodes,
)
from schedhook.host.processes import read_status
from schedhook.host.topology import read_cores, read_topology
from schedhook.host.vanishing import read_living
from schedhook.roles.request import Relocate, Request
from schedhook.roles.scheduler import Replacement
from schedhook.values.errors import RefusedError, SchedhookError
from schedhook.values.model import NodeMap, Outcome
from schedhook.values.sets import CpuSet, NodeSet
from schedhook.values.text import join_some
from schedhook_plugins.schedulers.pbs.events import NAME
from schedhook_plugins.schedulers.pbs.fence import changed_policies
from schedhook_plugins.schedulers.pbs.free_nodes import (
    Neighbour,
    Occupancy,
    Place,
    find_place,
    free_cpus,
)
from schedhook_plugins.schedulers.pbs.jobs import PbsJobs
from schedhook_plugins.schedulers.pbs.notes import Replacing

_MIB = 1 << 20
_RESERVE = 64 * _MIB
"""Bytes that stay free on a node that is chosen here; the pipeline has its own bound."""
_LEAST_SHARE = 0.01
_Find = Callable[[CpuSet], Place | None]
_ARRIVED = (Outcome.COMPLETE, Outcome.NOTHING_TO_DO)


class Replacer:
    """Works on jobs that are stopped; `relocate` is the pipeline."""

    def __init__(self, jobs: PbsJobs, relocate: Relocate) -> None:
        self._jobs = jobs
        self._relocate = relocate

    def resolve(self, job: str, parked: Mapping[int, int], *, replace: bool) -> Replacement | None:
        """See Scheduler.resolve_sharing."""
        cpuset = self._jobs.cpuset(job)
        cpus = configured_cpus(cpuset) if cpuset else CpuSet()
        if cpuset is None or not cpus:
            return None
        others = find_neighbours(self._jobs, job)
        rivals = [other for other in others if other.running and other.cpus & cpus]
        if not rivals:
            return None
        shared = CpuSet(cpu for rival in rivals for cpu in rival.cpus & cpus)
        found = f"CPUs {shared} are shared with {', '.join(rival.job for rival in rivals)}"
        mems = NodeSet.parse(self._mems_before(job, cpuset))
        try:
            place = self._choose(job, self._finder(job, cpuset, parked, shared, others))
            self._check_policies(job, cpuset, mems, place)
        except RefusedError as error:
            return Replacement(summary=f"{found}; {error}")
        where = self._describe(place)
        if not replace:
            wanted = 'on_shared_processors = "replace"'
            return Replacement(summary=f"{found}; {where} are free: {wanted} would use them")
        replacing = Replacing(
            cpus=place.cpus,
            nodes=place.nodes,
            cpus_before=str(cpus),
            mems_before=str(mems),
        )
        self._jobs.notes.set_replacing(job, replacing)
        done = self._carry_out(job, cpuset, replacing, parked)
        return Replacement(summary=f"{found}; gets {where}: {done.summary}", moved=done.moved)

    def _choose(self, job: str, find: _Find) -> Place:
        """Return CPUs that PBS granted the job. Raise RefusedError, with the reason, for none."""
        place = find(self._jobs.granted_cpus(job))
        if place is not None:
            return place
        elsewhere = find(read_topology(self._jobs.root).cpus)
        if elsewhere is None:
            raise RefusedError("no others are free for it")
        where = self._describe(elsewhere)
        raise RefusedError(f"{where} are free, but PBS has not granted the job their vnode")

    def _check_policies(self, job: str, cpuset: Cgroup, mems: NodeSet, place: Place) -> None:
        """Raise RefusedError if the kernel would change memory policies of the job there."""
        after = self._new_mems(cpuset, mems, place.nodes)
        if changes := changed_policies(self._jobs, job, mems, after, place.nodes):
            raise RefusedError(
                f"{self._describe(place)} are free, but the kernel would change its memory"
                f" policies: {join_some(sorted(changes), 3)}"
            )

    def _finder(
        self,
        job: str,
        cpuset: Cgroup,
        parked: Mapping[int, int],
        shared: CpuSet,
        others: Sequence[Neighbour],
    ) -> _Find:
        """Return what finds other CPUs for the job among those that it is given."""
        topology = read_topology(self._jobs.root)
        cores = read_cores(topology.cpus, self._jobs.root)
        cpus, confined = configured_cpus(cpuset), effective_cpus(_parent(cpuset), self._jobs.root)
        used = [*cpus, *(cpu for other in others for cpu in other.cpus)]

        @cache
        def needed() -> Mapping[int, int]:
            return self._needed(job, parked)

        def find(granted: CpuSet) -> Place | None:
            free = free_cpus(granted & confined, used, cores)
            occupancy = Occupancy(cpus=cpus, shared=shared, free=free, cores=cores)
            return find_place(occupancy, needed, topology, _RESERVE)

        return find

    def _describe(self, place: Place) -> str:
        cpus = CpuSet(place.cpus.values())
        return f"{cpus} of node {read_topology(self._jobs.root).nodes_of(cpus)}"

    def finish(self, job: str, parked: Mapping[int, int]) -> Replacement | None:
        """See Scheduler.finish_interrupted."""
        replacing, cpuset = self._jobs.notes.replacing(job), self._jobs.cpuset(job)
        if replacing is not None and cpuset is not None:
            return self._carry_out(job, cpuset, replacing, parked)
        self._jobs.notes.set_replacing(job, None)
        return None

    def _mems_before(self, job: str, cpuset: Cgroup) -> str:
        """Return the cpuset.mems that PBS wrote, without the nodes of parked memory."""
        now = str(configured_nodes(cpuset))
        widened = self._jobs.notes.fence(job)
        return widened.before if widened is not None and widened.wide == now else now

    def _carry_out(
        self, job: str, cpuset: Cgroup, place: Replacing, parked: Mapping[int, int]
    ) -> Replacement:
        old_cpus, mems = CpuSet.parse(place.cpus_before), NodeSet.parse(place.mems_before)
        new_cpus = CpuSet(place.cpus.get(cpu, cpu) for cpu in old_cpus)
        ends = {old: place.nodes.get(old, old) for old in (*parked, *place.nodes)}
        node_map = {at: new for old, new in ends.items() if (at := parked.get(old, old)) != new}
        wide = mems | NodeSet(node_map) | NodeSet(place.nodes.values())
        said, is_moved = "no memory has to move", False

        def move() -> None:
            nonlocal said, is_moved
            if not node_map:
                return
            if mems:
                write_nodes(cpuset, wide)
            report = self._relocate(_request(job, node_map))
            said = report.summary()
            is_moved = report.bytes_moved > 0
            if report.outcome not in _ARRIVED:
                raise RefusedError(said)

        def bind(_pid: int, had: CpuSet) -> CpuSet:
            # A rank that was bound to one of the old CPUs gets the one in its place.
            if had <= new_cpus:
                return had
            kept = had & old_cpus
            bound = kept != old_cpus and bool(kept)
            return CpuSet(place.cpus.get(cpu, cpu) for cpu in kept) if bound else new_cpus

        change = CpusetChange(cgroup=cpuset, cpus=new_cpus)
        done = move_processors([change], lambda: self._jobs.pids(job), bind, move, self._jobs.root)
        if not done.done:
            write_cpus(cpuset, old_cpus)
            back = self._move_back(job, node_map) if is_moved else ""
            if mems:
                self._narrow(job, cpuset, mems, parked)
            self._jobs.notes.set_replacing(job, None)
            return Replacement(summary=f"not done: {done.failure}{back}")
        write_nodes(cpuset, self._new_mems(cpuset, mems, place.nodes))
        self._jobs.notes.set_fence(job, None)
        self._jobs.notes.set_replacing(job, None)
        return Replacement(summary=said, moved=True)

    def _move_back(self, job: str, node_map: Mapping[int, int]) -> str:
        """Move what had moved by this map back again, and return a word about it."""
        back = {new: old for old, new in node_map.items() if old != new}
        try:
            return f"; back again: {self._relocate(_request(job, back)).summary()}"
        except SchedhookError as error:
            return f"; memory stays on nodes {NodeSet(back)}: {error}"

    def _new_mems(self, cpuset: Cgroup, mems: NodeSet, nodes: Mapping[int, int]) -> NodeSet:
        """Return the cpuset.mems for the new place; as it was if it does not confine the job."""
        if mems == effective_nodes(_parent(cpuset), self._jobs.root):
            return mems
        return NodeSet(nodes.get(node, node) for node in mems)

    def _narrow(self, job: str, cpuset: Cgroup, mems: NodeSet, parked: Mapping[int, int]) -> None:
        """Allow what was allowed before, and the nodes of parked memory, which is still there."""
        widened = self._jobs.notes.fence(job)
        write_nodes(cpuset, NodeSet.parse(widened.wide) if widened and parked else mems)

    def _needed(self, job: str, parked: Mapping[int, int]) -> dict[int, int]:
        """Return the bytes that the job has on each node, parked ones counted at their home.

        A few pages, such as every process has on some other node, do not count, nor does memory on
        nodes without processors, which stays there.
        """
        topology = read_topology(self._jobs.root)
        nodes = list(topology.memory_nodes)
        if len(nodes) < 2:
            return {}
        # A map from every node, so that the plan tells what is on each of them.
        ring = dict(zip(nodes, [*nodes[1:], nodes[0]], strict=True))
        plan = self._relocate(_request(job, ring, dry_run=True)).plan
        home = {at: old for old, at in parked.items()}
        held: dict[int, int] = {}
        for old, size in plan.bytes_by_source.items() if plan else ():
            held[home.get(old, old)] = held.get(home.get(old, old), 0) + size
        least = max(_MIB, int(_LEAST_SHARE * sum(held.values())))
        return {
            node: size
            for node, size in held.items()
            if size >= least and node in topology.default_nodes
        }


def find_neighbours(jobs: PbsJobs, job: str) -> list[Neighbour]:
    """Return the other jobs here whose cpuset names CPUs of its own."""
    found = []
    for other in jobs.names():
        cpuset = jobs.cpuset(other) if other != job else None
        cpus = configured_cpus(cpuset) if cpuset else CpuSet()
        if cpus:
            states = read_living(jobs.pids(other), lambda pid: read_status(pid, jobs.root).state)
            running = any(state not in "TtZX" for _, state in states)
            found.append(Neighbour(job=other, cpus=cpus, running=running))
    return found


def _request(job: str, pairs: Mapping[int, int], *, dry_run: bool = False) -> Request:
    node_map = NodeMap(pairs=dict(pairs))
    return Request(job=job, scheduler=NAME, node_map=node_map, dry_run=dry_run, force=dry_run)


def _parent(cgroup: Cgroup) -> Cgroup:
    return Cgroup(path=cgroup.path.parent, version=cgroup.version, mount=cgroup.mount)
