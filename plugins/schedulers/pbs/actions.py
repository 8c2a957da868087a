"""What is done at each of PBS's events; docs/pbs.md says it for administrators.

Nothing here decides whether PBS goes on: its hook accepts, whatever is returned or raised.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from schedhook.control.cpu_move import CpusetChange, move_processors
from schedhook.control.cpusets import write_cpus, write_nodes
from schedhook.host import cgroups
from schedhook.host.cgroups import Cgroup
from schedhook.host.topology import Topology, read_topology
from schedhook.roles.request import Relocate, Request
from schedhook.values.errors import RefusedError, SchedhookError
from schedhook.values.log import get_logger
from schedhook.values.model import Event, NodeMap, Outcome, Report
from schedhook.values.sets import CpuSet, NodeSet
from schedhook_plugins.schedulers.pbs.free_nodes import (
    Place,
    find_place,
    neighbours,
    park_nodes,
)
from schedhook_plugins.schedulers.pbs.state import JobState, Parked, Replacing

if TYPE_CHECKING:
    from schedhook.journal.journal import Journal
    from schedhook_plugins.schedulers.pbs.adapter import PbsScheduler


_MIB = 1 << 20
_RESERVE = 64 * _MIB
"""Bytes that stay free on a node that is chosen here; the pipeline has its own bound."""
_STRAY_BYTES = 16 * _MIB
_STRAY_SHARE = 0.01
"""Memory on other nodes than the job's is fetched back where it is more than both."""
_MOVED = (Outcome.COMPLETE, Outcome.NOTHING_TO_DO)

_log = get_logger()


class Resize(StrEnum):
    FOLLOW = "follow"
    LEAVE = "leave"


class Postsuspend(StrEnum):
    LEAVE = "leave"
    PARK = "park"


class Preresume(StrEnum):
    REPORT = "report"
    REPLACE = "replace"
    LEAVE = "leave"


class Periodic(StrEnum):
    REPATRIATE = "repatriate"
    REPORT = "report"
    LEAVE = "leave"


@dataclass(frozen=True, slots=True, kw_only=True)
class Actions:
    """The hook's configuration, schedhook.CF, as far as it says what to do."""

    resize: Resize = Resize.FOLLOW
    postsuspend: Postsuspend = Postsuspend.LEAVE
    park_nodes: NodeSet = field(default_factory=NodeSet)
    """Where to park; any other node where none is named."""
    preresume: Preresume = Preresume.REPORT
    periodic: Periodic = Periodic.REPATRIATE

    @classmethod
    def read(cls, told: Any) -> Actions:
        """What is wrong is logged, and its default holds: a job is not to wait for a typing error
        in a file that its user cannot see."""
        if not isinstance(told, Mapping):
            return cls()
        kinds: Mapping[str, Callable[[str], Any]] = {
            "resize": Resize,
            "postsuspend": Postsuspend,
            "park_nodes": NodeSet.parse,
            "preresume": Preresume,
            "periodic": Periodic,
        }
        values = {}
        for key, value in told.items():
            try:
                values[key] = kinds[key](str(value))
            except KeyError:
                _log.warning("schedhook.CF: unknown action", key=key, known=", ".join(kinds))
            except ValueError as error:
                _log.warning("schedhook.CF: action not understood", key=key, why=str(error))
        return cls(**values)


class PbsActions:
    """Acts on one event."""

    def __init__(
        self, scheduler: PbsScheduler, event: Event, journal: Journal | None, relocate: Relocate
    ) -> None:
        self._pbs = scheduler
        self._event = event
        self._journal = journal
        self._relocate = relocate
        self._actions = Actions.read(event.data.get("actions"))

    def act(self) -> str:
        """One line for people. SchedhookError."""
        job = self._event.job
        act: Mapping[str, Callable[[], str]] = {
            "begin": lambda: self._begin(job),
            "launch": lambda: self._remember(job),
            "attach": lambda: self._remember(job),
            "resize": lambda: self._resize(job),
            "postsuspend": lambda: self._postsuspend(job),
            "preresume": lambda: self._preresume(job),
            "end": lambda: self._end(job),
            "startup": lambda: self._forget_the_dead(()),
            "periodic": self._periodic,
        }
        return act.get(self._event.point, str)()

    # -- remembering -----------------------------------------------------------------------------

    def _begin(self, job: str) -> str:
        self._pbs.states.put(JobState(job=job))  # nothing of an earlier run of the job holds
        return self._remember(job)

    def _remember(self, job: str) -> str:
        state = self._told(job, self._event.data.get("job") or {})
        placement = self._pbs.placement(job)
        if placement is None:
            return "no cgroup and no processes here yet"
        if state.nodes is None:
            self._pbs.states.update(job, nodes=placement.nodes)
        return f"processors {placement.cpus} on node {placement.nodes}"

    def _end(self, job: str) -> str:
        self._pbs.states.forget(job)
        return ""

    def _told(self, job: str, told: Mapping[str, Any]) -> JobState:
        """Put down what PBS says of the job now."""
        state = self._pbs.states.get(job) or JobState(job=job)
        changes: dict[str, Any] = {}
        if isinstance(text := told.get("exec_vnode"), str):
            changes["exec_vnode"] = text
        if self._event.host:
            changes["host"] = self._event.host
        if job == self._event.job and self._event.user is not None:
            changes["user"] = self._event.user
        sessions = {*state.sessions, *self._sessions(told)}
        changes["sessions"] = tuple(sorted(sessions))
        return self._pbs.states.update(job, **changes)

    def _sessions(self, told: Mapping[str, Any]) -> Iterable[int]:
        """The sessions that the event speaks of; 1 and less are no job's."""
        session, pid = told.get("session_id"), self._event.data.get("pid")
        found = [session]
        if self._event.point == "attach" and type(pid) is int:
            found.append(self._pbs.session_of(pid))
        return [each for each in found if type(each) is int and each > 1]

    def _settled(self, job: str) -> None:
        """The memory lies where the job is now."""
        placement = self._pbs.placement(job)
        if placement is not None:
            self._pbs.states.update(job, nodes=placement.nodes, following=None)
            if self._journal is not None:
                self._journal.placements.record(self._pbs.name, job, {"job": placement})

    # -- resize ----------------------------------------------------------------------------------

    def _resize(self, job: str) -> str:
        before = self._pbs.states.get(job)
        self._told(job, self._event.data.get("job") or {})
        finished = self._finish_interrupted(job)
        followed = self._follow(job, before if before and before.nodes is not None else None)
        return "; ".join(filter(None, [finished, followed]))

    def _follow(self, job: str, state: JobState | None) -> str:
        """Bring the memory to the nodes that the job has now, from all nodes where nobody knows on
        which it was."""
        placement = self._pbs.placement(job)
        if placement is None or not self._pbs.pids(job):
            return "no process here"
        everywhere = read_topology(self._pbs.root).memory_nodes
        old = state.nodes if state else None
        if state and old is not None and state.following is not None:
            # Whoever did it was killed: it is on the old nodes, and on those where it was to go.
            begun = state.following == placement.nodes
            old = old - placement.nodes if begun else old | state.following
        sources = (everywhere if old is None else old) - placement.nodes
        if not sources or not placement.nodes:
            return f"stays on node {placement.nodes}"
        if self._actions.resize is Resize.LEAVE:
            return f"left alone, as configured: node {sources} to {placement.nodes}"
        self._pbs.states.update(job, following=placement.nodes)
        report = self._relocate(
            Request(
                job=job,
                scheduler=self._pbs.name,
                sources=sources if old is None else old,
                destinations=placement.nodes,
                # Where the old nodes are not known there is no relative place to keep.
                mapper="nearest" if old is None else None,
            )
        )
        if report.outcome in _MOVED:
            self._settled(job)
        return line_of(report)

    # -- suspend and resume ----------------------------------------------------------------------

    def _postsuspend(self, job: str) -> str:
        self._told(job, self._event.data.get("job") or {})
        self._finish_interrupted(job)
        state = self._pbs.states.update(job, suspended=True)
        if self._actions.postsuspend is not Postsuspend.PARK or state.parked:
            return "suspended"
        topology = read_topology(self._pbs.root)
        needed = self._substantial(job)
        if not needed:
            return "suspended; no memory to park"
        occupied = topology.nodes_of(
            cpu for other in neighbours(self._pbs, job) for cpu in other.cpus
        )
        candidates = (self._actions.park_nodes or topology.memory_nodes) & topology.memory_nodes
        node_map = park_nodes(occupied, needed, candidates, topology, _RESERVE)
        if node_map is None:
            return (
                f"suspended, not parked: no room of its own on node {candidates} for what lies on"
                f" node {NodeSet(needed)}"
            )
        return "parked: " + self._park(job, node_map)

    def _park(self, job: str, node_map: Mapping[int, int]) -> str:
        cpuset = self._pbs.cpuset(job)
        before = cgroups.configured_nodes(cpuset) if cpuset else NodeSet()
        # Put down first: should we die on the way, the way back is known.
        parked = Parked(node_map=node_map, mems=str(before))
        self._pbs.states.update(job, parked=parked)
        if cpuset and before:
            write_nodes(cpuset, before | NodeSet(node_map.values()))
        report = self._move(job, node_map)
        if report.outcome is Outcome.REFUSED:
            self._unwiden(job, before)
            self._pbs.states.update(job, parked=None)
        return line_of(report)

    def _preresume(self, job: str) -> str:
        # First of all: the job goes on even if we are killed, and then its memory comes home later.
        self._pbs.states.update(job, suspended=False)
        self._told(job, self._event.data.get("job") or {})
        lines = [self._finish_interrupted(job)]
        state = self._pbs.states.get(job) or JobState(job=job)
        lines.append(self._mend_sharing(job, state))
        state = self._pbs.states.get(job) or state
        if state.parked:
            lines.append("back: " + self._return(job, state.parked))
        return "; ".join(filter(None, lines)) or "nothing to mend"

    def _return(self, job: str, parked: Parked) -> str:
        report = self._move(job, {new: old for old, new in parked.node_map.items()})
        if report.outcome not in _MOVED:
            # The cpuset stays wide: narrower than the memory, version 2 might kill the job.
            return f"{line_of(report)}; tried again at the next exechost_periodic"
        self._unwiden(job, NodeSet.parse(parked.mems))
        self._pbs.states.update(job, parked=None)
        self._settled(job)
        return line_of(report)

    def _unwiden(self, job: str, mems: NodeSet) -> None:
        cpuset = self._pbs.cpuset(job)
        if cpuset and mems:
            write_nodes(cpuset, mems)

    def _mend_sharing(self, job: str, state: JobState) -> str:
        """Where other jobs run on the job's processors, give it free ones, or say so."""
        cpuset = self._pbs.cpuset(job)
        cpus = cgroups.configured_cpus(cpuset) if cpuset else CpuSet()
        if self._actions.preresume is Preresume.LEAVE or cpuset is None or not cpus:
            return ""
        others = neighbours(self._pbs, job)
        rivals = [other for other in others if other.running and other.cpus & cpus]
        if not rivals:
            return ""
        shared = CpuSet(cpu for rival in rivals for cpu in rival.cpus & cpus)
        names = ", ".join(rival.job for rival in rivals)
        said = f"processors {shared} are shared with {names}"
        taken = [cpu for other in others for cpu in other.cpus]
        place = self._find_place(job, state, cpuset, cpus, taken)
        if place is None:
            return f"{said}; no node is free for it"
        where = f"{CpuSet(place.cpus.values())} of node {NodeSet(place.nodes.values())}"
        if self._actions.preresume is Preresume.REPORT:
            return f'{said}, {where} are free: "preresume": "replace" would use them'
        return f"{said}, gets {where}: {self._replace(job, cpuset, place)}"

    def _find_place(
        self, job: str, state: JobState, cpuset: Cgroup, cpus: CpuSet, taken: Iterable[int]
    ) -> Place | None:
        needed = self._substantial(job)
        if state.parked:
            back = {new: old for old, new in state.parked.node_map.items()}
            needed = {back.get(node, node): size for node, size in needed.items()}
        return find_place(
            cpus,
            needed,
            taken,
            cgroups.effective_cpus(_above(cpuset), self._pbs.root),
            read_topology(self._pbs.root),
            _RESERVE,
        )

    def _replace(self, job: str, cpuset: Cgroup, place: Place) -> str:
        replacing = Replacing(
            cpus=place.cpus,
            nodes=place.nodes,
            was=str(cgroups.configured_cpus(cpuset)),
            mems=str(cgroups.configured_nodes(cpuset)),
        )
        state = self._pbs.states.update(job, replacing=replacing)
        return self._carry_out(job, state, cpuset, replacing)

    def _finish_interrupted(self, job: str) -> str:
        """What was put down and not carried out to its end: whoever did it was killed."""
        state = self._pbs.states.get(job)
        if state is None or state.replacing is None:
            return ""
        cpuset = self._pbs.cpuset(job)
        if cpuset is None:
            self._pbs.states.update(job, replacing=None)
            return ""
        done = self._carry_out(job, state, cpuset, state.replacing)
        return f"finished what was interrupted: {done}"

    def _carry_out(self, job: str, state: JobState, cpuset: Cgroup, place: Replacing) -> str:
        """Give a stopped job other processors, and bring its memory there: both places are allowed
        until it has left the old one. All of it or nothing."""
        old_cpus, mems = CpuSet.parse(place.was), NodeSet.parse(place.mems)
        new_cpus = CpuSet(place.cpus.get(cpu, cpu) for cpu in old_cpus)
        lies = dict(state.parked.node_map) if state.parked else {}
        said = ""

        def move() -> None:
            nonlocal said
            if mems:
                write_nodes(cpuset, mems | NodeSet(place.nodes.values()))
            node_map = {lies.get(old, old): new for old, new in place.nodes.items()}
            report = self._move(job, node_map)
            said = line_of(report)
            if report.outcome not in _MOVED:
                raise RefusedError(said)

        def bind(_pid: int, had: CpuSet) -> CpuSet:
            # A rank that was bound to one of the old processors gets the one in its place.
            if had <= new_cpus:
                return had
            kept = had & old_cpus
            bound = kept != old_cpus and bool(kept)
            return CpuSet(place.cpus.get(cpu, cpu) for cpu in kept) if bound else new_cpus

        level = CpusetChange(cgroup=cpuset, cpus=new_cpus)
        done = move_processors([level], lambda: self._pbs.pids(job), bind, move, self._pbs.root)
        if not done.done:
            write_cpus(cpuset, old_cpus)
            if mems:
                write_nodes(cpuset, mems)
            self._pbs.states.update(job, replacing=None)
            return f"not done: {done.failure}"
        home = NodeSet.parse(state.parked.mems) if state.parked else mems
        if home and home != cgroups.effective_nodes(_above(cpuset), self._pbs.root):
            home = NodeSet(place.nodes.get(node, node) for node in home)
        write_nodes(cpuset, home)
        self._pbs.states.update(job, parked=None, replacing=None)
        self._settled(job)
        return said

    # -- periodic --------------------------------------------------------------------------------

    def _periodic(self) -> str:
        told = {
            job["id"]: job
            for job in self._event.data.get("jobs") or ()
            if isinstance(job, dict) and isinstance(job.get("id"), str)
        }
        lines = [self._forget_the_dead(told)]
        here = self._pbs.jobs()
        for job in sorted({*told, *here}):
            try:
                with self._held(job):
                    if job in told:
                        self._told(job, told[job])
                    line = self._look(job)
            except SchedhookError as error:  # one job's trouble is not the others'
                line = str(error)
            if line:
                lines.append(f"{job}: {line}")
        return "; ".join(filter(None, lines))

    def _held(self, job: str) -> contextlib.AbstractContextManager[None]:
        if self._journal is None:
            return contextlib.nullcontext()
        return self._journal.locks.acquire(self._pbs.name, job)

    def _look(self, job: str) -> str:
        """Compare where a job's memory is with where the job is."""
        if finished := self._finish_interrupted(job):
            return finished
        state = self._pbs.states.get(job)
        placement = self._pbs.placement(job)
        if placement is None or state is None or state.suspended or not self._pbs.pids(job):
            return ""
        if state.parked:
            return "back: " + self._return(job, state.parked)
        if state.nodes is None:
            self._pbs.states.update(job, nodes=placement.nodes)
        elif state.nodes - placement.nodes or state.following:
            return self._follow(job, state)
        return self._strays(job, placement.nodes)

    def _strays(self, job: str, nodes: NodeSet) -> str:
        sources = read_topology(self._pbs.root).memory_nodes - nodes
        granted = self._pbs.granted_nodes(job)
        if self._actions.periodic is Periodic.LEAVE or granted is None or not sources:
            return ""
        # Looked up first: reading where a job's memory is costs much less than moving it.
        request = Request(
            job=job,
            scheduler=self._pbs.name,
            sources=sources,
            destinations=nodes,
            mapper="nearest",
        )
        astray = self._relocate(_dry(request)).bytes_planned
        total = sum(self._residency(job).values())
        if astray <= max(_STRAY_BYTES, _STRAY_SHARE * total):
            return ""
        said = f"{astray / _MIB:.1f} MiB lie outside of node {nodes}"
        if self._actions.periodic is Periodic.REPORT:
            return said
        report = self._relocate(request)
        if report.outcome in _MOVED:
            self._settled(job)
        return f"{said}: {line_of(report)}"

    def _forget_the_dead(self, told: Iterable[str]) -> str:
        """Drop what is known of jobs that nobody knows any more; their end was missed."""
        alive = {*told, *self._pbs.jobs()}
        gone = [job for job in self._pbs.states.jobs() if job not in alive]
        for job in gone:
            self._pbs.states.forget(job)
        self._pbs.states.clear()
        return f"forgot {', '.join(gone)}" if gone else ""

    # -- moving ----------------------------------------------------------------------------------

    def _move(self, job: str, node_map: Mapping[int, int]) -> Report:
        return self._relocate(
            Request(job=job, scheduler=self._pbs.name, node_map=NodeMap(pairs=dict(node_map)))
        )

    def _substantial(self, job: str) -> dict[int, int]:
        """Bytes per node that count: not the few pages that every process has somewhere else."""
        residency = self._residency(job)
        least = max(_MIB, int(_STRAY_SHARE * sum(residency.values())))
        return {node: size for node, size in residency.items() if size >= least}

    def _residency(self, job: str) -> dict[int, int]:
        """Bytes of the job per node that a relocation would move."""
        topology: Topology = read_topology(self._pbs.root)
        found: dict[int, int] = {}
        nodes = list(topology.memory_nodes)
        if len(nodes) < 2:
            return found
        # A map from every node, so that the plan tells what lies on each of them.
        ring = dict(zip(nodes, [*nodes[1:], nodes[0]], strict=True))
        report = self._relocate(
            _dry(
                Request(
                    job=job,
                    scheduler=self._pbs.name,
                    node_map=NodeMap(pairs=ring),
                    force=True,
                )
            )
        )
        if report.plan is not None:
            for (old, _new), size in report.plan.moves.items():
                found[old] = found.get(old, 0) + size
        return found


def act(scheduler: PbsScheduler, event: Event, journal: Journal | None, relocate: Relocate) -> str:
    """Do what the event asks for; see PbsActions.act."""
    return PbsActions(scheduler, event, journal, relocate).act()


def _above(cgroup: Cgroup) -> Cgroup:
    return Cgroup(path=cgroup.path.parent, version=cgroup.version, mount=cgroup.mount)


def line_of(report: Report) -> str:
    """A report in a line."""
    pairs = ",".join(f"{old}:{new}" for old, new in report.node_map.moves.items())
    text = f"{report.bytes_moved / _MIB:.1f} MiB moved ({pairs}), {report.outcome}"
    if report.bytes_left:
        reasons = ", ".join(report.left_by_reason)
        text += f", {report.bytes_left / _MIB:.1f} MiB left ({reasons})"
    if report.outcome in (Outcome.REFUSED, Outcome.FAILED) and report.notes:
        text += f": {report.notes[-1]}"
    return text


def _dry(request: Request) -> Request:
    return replace(request, dry_run=True)
