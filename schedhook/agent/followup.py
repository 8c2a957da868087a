"""The work on one job for one event: follow it, keep a override, park it and bring it back."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from schedhook.host.processes import read_areas, residency
from schedhook.host.vanishing import call_with_living
from schedhook.journal.columns import json_object
from schedhook.journal.errors import JobLockedError
from schedhook.roles.request import Request
from schedhook.roles.scheduler import EventKind, Scheduler, Task
from schedhook.values.config import OnRelocation
from schedhook.values.errors import SchedhookError
from schedhook.values.model import Event, NodeMap, Outcome, Placement, PlacementOverride, Report
from schedhook.values.sets import CpuSet, NodeSet

if TYPE_CHECKING:
    from schedhook.agent.dispatcher import Dispatcher


_IN_PLACE = "all in place"
_NOBODY = "no processes here"
_OVER = "the job has ended"
_STARTING = "waiting for a step to start"
PARKED = "parked"
"""The note that tells what of a job is parked where."""
_MIB = 1 << 20
_STEP_SECONDS = 0.5
"""Between two looks at whether a step has started."""
_SETTLED = frozenset({Outcome.COMPLETE, Outcome.NOTHING_TO_DO, Outcome.PARTIAL})


@dataclass(frozen=True, slots=True, kw_only=True)
class EventResult:
    """What came of an event."""

    summary: str
    """One line for people and the scheduler's log."""
    ok: bool = True
    acted: bool = True
    """Whether anything was done; if not, the event is logged only at level debug."""
    retry_after: float | None = None
    """Seconds after which the same event may have another outcome."""
    more: tuple[Event, ...] = ()
    """Events of other jobs that follow from this one."""


class JobFollower:
    """The work on one job, for one event."""

    def __init__(self, dispatcher: Dispatcher, adapter: Scheduler, event: Event) -> None:
        self._dispatcher = dispatcher
        self._adapter = adapter
        self._event = event
        self._scheduler = event.scheduler
        self._job = event.job
        self._actions = dispatcher.config.actions
        self._journal = dispatcher.journal
        self._done: list[str] = []
        self._ok = True
        self._acted = True
        self._retry_s = dispatcher.config.agent.retry_s
        self._retry_after: float | None = None

    def act(self, kind: EventKind) -> EventResult:
        ask = self._dispatcher.ask
        if ask(lambda: self._journal.locks.is_locked(self._scheduler, self._job), False):
            raise JobLockedError(f"another process is at work on job {self._job}")
        run = ask(lambda: self._journal.runs.latest(self._scheduler, self._job), None)
        if run is not None and run.ended is not None:
            return EventResult(summary=_OVER, acted=False)
        tasks = self._adapter.tasks(self._job)
        if not tasks:
            return EventResult(summary=_NOBODY, acted=False)
        if kind is EventKind.SUSPENDED:
            self._park(tasks)
        elif kind in (EventKind.RESUMING, EventKind.RESUMED):
            self._return(tasks, kind)
        elif self._note() is None:
            self._look(tasks)
        elif kind is not EventKind.LOOK:
            self._done.append("parked: nothing moves before it goes on")
        return EventResult(
            summary="; ".join(self._done) or _IN_PLACE,
            ok=self._ok,
            acted=self._acted and bool(self._done),
            retry_after=self._retry_after,
        )

    # -- following -------------------------------------------------------------------------------

    def _look(self, tasks: Sequence[Task]) -> None:
        kept = self._keep_override(tasks)
        if kept is None:
            return
        tasks = self._rebind(kept)
        self._follow(tasks)
        if self._event.data.get("repatriate") and self._actions.repatriate:
            self._repatriate(tasks)

    def _keep_override(self, tasks: Sequence[Task]) -> Sequence[Task] | None:
        """Where the scheduler has undone a relocation that was to last, do it again. None where
        that has to wait: until then nothing may follow processors that nobody wished."""
        override = self._dispatcher.ask(
            lambda: self._journal.overrides.get(self._scheduler, self._job), None
        )
        if override is None:
            return tasks
        outside = CpuSet(
            cpu for task in tasks for cpu in task.placement.cpus - override.placement.cpus
        )
        if not outside and not override.under_way:
            return tasks
        if outside - override.was.cpus - (override.leaving or CpuSet()):
            self._journal.overrides.release(self._scheduler, self._job)
            self._done.append(f"somebody has given it processors {outside}: override dropped")
            return tasks
        if not self._adapter.can_reapply:
            return tasks
        starting = self._adapter.starting(self._job)
        if self._dispatcher.waits(self._scheduler, self._job, starting):
            self._done.append(_STARTING)
            self._acted = False
            self._retry_after = _STEP_SECONDS
            return None
        recorder = self._dispatcher.recorder(self._event)
        with self._dispatcher.locked(self._scheduler, self._job):
            # Before anything changes, for whoever has to finish it if this process is killed.
            homes = self._homes()
            new = [
                task
                for task in tasks
                if task.name not in homes and task.placement.cpus <= override.was.cpus
            ]
            self._write_override(replace(override, reapplying=True), new)
            said = self._adapter.reapply(self._job, override, recorder, self._homes())
            self._done.append(said)
            if override.under_way:
                self._done.append("which finishes what was interrupted")
            tasks = self._adapter.tasks(self._job)
            self._write_override(replace(override, leaving=None, reapplying=False), tasks)
        self._remember({task.name: task.placement for task in tasks})
        return tasks

    def _write_override(self, override: PlacementOverride, at_home: Sequence[Task]) -> None:
        """With it, that these tasks' memory is where they are; nothing where it was released, or
        the job has ended, meanwhile."""
        placements = {task.name: task.placement for task in at_home}

        def write() -> None:
            with self._journal.transaction():
                if self._journal.overrides.get(self._scheduler, self._job) is not None:
                    self._journal.overrides.set(self._scheduler, self._job, override)
                    self._journal.placements.record(self._scheduler, self._job, placements)

        self._dispatcher.write_journal("override", write)

    def _rebind(self, tasks: Sequence[Task]) -> Sequence[Task]:
        """A changed cpuset takes a task's own binding away (cgroup v2), without which nobody could
        tell where each task belongs: the adapter may know how to bind them anew."""
        if self._actions.on_relocation is not OnRelocation.FOLLOW:
            return tasks
        names = {task.name for task in tasks}
        bound = self._dispatcher.bindings(self._scheduler, self._job, names)
        if not bound or not self._adapter.rebind(self._job, bound):
            return tasks
        self._done.append("tasks bound anew")
        return self._adapter.tasks(self._job)

    def _homes(self) -> dict[str, Placement]:
        """Where each task's memory was brought to last."""
        known = self._dispatcher.known(self._scheduler, self._job)
        return {name: seen.home for name, seen in known.items()}

    def _follow(self, tasks: Sequence[Task]) -> None:
        known = self._dispatcher.known(self._scheduler, self._job)
        in_place: dict[str, Placement] = {}
        away: dict[str, Placement] = {}
        groups: dict[tuple[NodeSet, NodeSet], list[Task]] = {}
        for task in tasks:
            seen = known.get(task.name)
            new = task.placement.nodes
            if seen is None:
                in_place[task.name] = task.placement
                continue
            old = seen.home.nodes | (seen.visited - new)
            if seen.visited and seen.last.nodes == new:
                # It may have been begun: what lies on nodes old and new may have arrived.
                old = old - new
            moves = bool(old - new and new)
            if moves:
                groups.setdefault((old, new), []).append(task)
            if not moves and new == seen.home.nodes:
                in_place[task.name] = task.placement
            else:
                # Where it came from is its home until its memory has moved, which it need not.
                away[task.name] = task.placement
        # Before anything moves, for whoever comes after a kill: where memory may lie by then, and
        # how all tasks were bound at one time.
        self._remember(in_place, away)
        for (old, new), group in groups.items():
            self._follow_group(old, new, group)

    def _follow_group(self, old: NodeSet, new: NodeSet, group: Sequence[Task]) -> None:
        settled = False
        if self._actions.on_relocation is OnRelocation.FOLLOW:
            report = self._relocate(group, Request(sources=old, destinations=new))
            settled = report is None or report.outcome in _SETTLED
            if not settled:
                self._retry_after = self._retry_s
        if settled:
            self._remember({task.name: task.placement for task in group})

    def _repatriate(self, tasks: Sequence[Task]) -> None:
        least = self._actions.repatriate_least_mb * _MIB
        for task in tasks:
            own = task.placement.nodes
            away = NodeSet(
                node
                for node, size in self._residency(task).items()
                if node not in own and size >= max(least, 1)
            )
            if away and own:
                request = Request(sources=away, destinations=own, mapper="nearest")
                self._relocate([task], request)

    def _residency(self, task: Task) -> dict[int, int]:
        total: dict[int, int] = {}
        for pid in task.pids:
            try:
                its = residency(read_areas(pid, self._dispatcher.root))
            except SchedhookError:
                continue
            for node, size in its.items():
                total[node] = total.get(node, 0) + size
        return total

    # -- parking ---------------------------------------------------------------------------------

    def _park(self, tasks: Sequence[Task]) -> None:
        park = self._actions.park
        if not park or self._note() is not None:
            return
        if self._event.data.get("seen_by") == "watch" and not self._adapter.suspended(self._job):
            return  # frozen for the time of a relocation, perhaps by ourselves
        known = self._dispatcher.known(self._scheduler, self._job)
        parked: dict[str, dict[str, object]] = {}
        for task in tasks:
            seen = known.get(task.name)
            home = seen.home.nodes | seen.visited if seen else task.placement.nodes
            if home - park:
                # Written before it is done: a job must not be forgotten where it was parked.
                parked[task.name] = {"home": str(home), "park": str(park), "pairs": None}
                self._write_note(parked)
                report = self._relocate([task], Request(sources=home - park, destinations=park))
                if report is None or report.outcome is Outcome.REFUSED:
                    del parked[task.name]
                else:
                    pairs = {str(old): new for old, new in report.node_map.pairs.items()}
                    parked[task.name]["pairs"] = pairs
        self._write_note(parked or None)

    def _return(self, tasks: Sequence[Task], kind: EventKind) -> None:
        parked = self._note()
        if parked is None:
            return
        if (
            kind is EventKind.RESUMED
            and self._event.data.get("again")
            and self._adapter.suspended(self._job)
        ):
            return  # it was suspended anew while this return had to wait
        for task in tasks:
            entry = parked.get(task.name)
            new = task.placement.nodes
            if entry is None or not new:
                continue
            request = _way_back(entry, new)
            report = self._relocate([task], request) if request else None
            if report is None or report.outcome in _SETTLED:
                del parked[task.name]
                self._remember({task.name: task.placement})
            else:
                self._retry_after = self._retry_s
        alive = {task.name for task in tasks}
        self._write_note({name: entry for name, entry in parked.items() if name in alive} or None)

    def _note(self) -> dict[str, dict[str, object]] | None:
        return self._dispatcher.ask(
            lambda: self._journal.notes.get(self._scheduler, self._job, PARKED, _read_note), None
        )

    def _write_note(self, parked: Mapping[str, object] | None) -> None:
        if parked:
            self._journal.notes.set(self._scheduler, self._job, PARKED, json.dumps(parked))
        else:
            self._journal.notes.delete(self._scheduler, self._job, PARKED)

    # -- both ------------------------------------------------------------------------------------

    def _remember(
        self, at_home: Mapping[str, Placement], away: Mapping[str, Placement] | None = None
    ) -> None:
        self._dispatcher.remember(self._scheduler, self._job, at_home, away or {})

    def _relocate(self, tasks: Sequence[Task], request: Request) -> Report | None:
        """None where none of the tasks' processes lives any more."""
        pids = [pid for task in tasks for pid in task.pids]
        request = replace(request, job=self._job, scheduler=self._scheduler)

        def relocate(living: tuple[int, ...]) -> Report:
            return self._dispatcher.relocate(replace(request, pids=living), self._scheduler)

        report = call_with_living(pids, relocate, self._dispatcher.root)
        if report is not None:
            names = ", ".join(task.name for task in tasks)
            self._done.append(f"{names}: {describe(report)}")
            self._ok &= report.outcome in _SETTLED
        return report


def describe(report: Report) -> str:
    """One line: `moved 104.0 MiB 0:2, complete`."""
    line = f"moved {report.bytes_moved / _MIB:.1f} MiB {report.node_map}, {report.outcome.value}"
    if report.bytes_left:
        why = ", ".join(report.left_by_reason)
        line += f", {report.bytes_left / _MIB:.1f} MiB left ({why})"
    if report.outcome in (Outcome.REFUSED, Outcome.FAILED) and report.notes:
        line += f": {report.notes[-1]}"
    return line


def _read_note(text: str) -> dict[str, dict[str, object]]:
    """Task → how it was parked. ValueError for what `_write_note` never wrote."""
    note = json_object(text)
    try:
        for entry in note.values():
            _way_back(entry, NodeSet())
    except (KeyError, TypeError) as error:
        raise ValueError(f"no note of what is parked where: {error!r}") from error
    return note


def _way_back(entry: Mapping[str, object], new: NodeSet) -> Request | None:
    """From where it was parked to its nodes of today: exactly as it came where that can be told.
    None where the nodes that it was parked on are its own."""
    home, park = NodeSet.parse(str(entry["home"])), NodeSet.parse(str(entry["park"]))
    pairs = entry["pairs"]
    there = {int(old): int(at) for old, at in pairs.items()} if isinstance(pairs, dict) else {}
    back = {at: old for old, at in there.items()}
    sources = (NodeSet(back) if there else park) - new
    if not sources:
        return None
    if len(back) == len(there) and back and not home & sources and NodeSet(back.values()) <= new:
        return Request(node_map=NodeMap(pairs=back, mapper="parked"))
    return Request(sources=sources, destinations=new)
