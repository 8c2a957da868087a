"""[actions] of the configuration: what to do when something has happened to a job."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from enum import StrEnum

from schedhook.values.sections import between
from schedhook.values.sets import NodeSet


class OnRelocation(StrEnum):
    """What to do when a job has other nodes."""

    FOLLOW = "follow"
    """Move its memory there."""
    NONE = "none"
    """Only write it down."""


class AnyNode(StrEnum):
    """A value of `park`."""

    ANY = "any"
    """The agent chooses nodes that have room; see schedhook.agent.park_nodes."""


class Repatriate(StrEnum):
    """Which memory outside of a job's nodes to bring to them, and when."""

    NEVER = "never"
    REPORT = "report"
    """Only say how much memory is outside of the nodes that the scheduler granted."""
    GRANTED = "granted"
    """At the scheduler's periodic event: what is outside of the nodes that it granted."""
    ALL = "all"
    """Also when another job ends, and for jobs whose nodes follow only from their CPUs."""


class OnSharedProcessors(StrEnum):
    """What to do before a job resumes on CPUs that other jobs use by now."""

    LEAVE = "leave"
    REPORT = "report"
    """Say so in the scheduler's log, with the CPUs that are free."""
    REPLACE = "replace"
    """Give the job free CPUs of its own, and move its memory to their nodes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerActions:
    """A table of [actions] for one scheduler's jobs. None: as in [actions]."""

    on_relocation: OnRelocation | None = None
    park: AnyNode | NodeSet | None = None
    park_after_s: float | None = between(0, 86_400, None)
    repatriate: Repatriate | None = None
    repatriate_least_mb: int | None = between(0, 1 << 30, None)


@dataclass(frozen=True, slots=True, kw_only=True)
class PbsActions(SchedulerActions):
    """[actions.pbs]: what differs for OpenPBS, and what only its hooks make possible."""

    on_shared_processors: OnSharedProcessors = OnSharedProcessors.REPORT


@dataclass(frozen=True, slots=True, kw_only=True)
class Actions:
    """What to do for one scheduler's jobs; see `ActionsSection`."""

    on_relocation: OnRelocation = OnRelocation.FOLLOW
    park: AnyNode | NodeSet = field(default_factory=NodeSet)
    park_after_s: float = 0.0
    repatriate: Repatriate = Repatriate.GRANTED
    repatriate_least_mb: int = 16
    on_shared_processors: OnSharedProcessors = OnSharedProcessors.LEAVE


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionsSection:
    """[actions]: what to do when something has happened."""

    on_relocation: OnRelocation = OnRelocation.FOLLOW
    park: AnyNode | NodeSet = field(default_factory=NodeSet)
    """Nodes to which a suspended job's memory moves, such as `"2-3"`; empty: it stays."""
    park_after_s: float = between(0, 86_400, 0.0)
    """Seconds for which a job must have been suspended before; more than a slice of gang
    scheduling, whose jobs are suspended again and again."""
    repatriate: Repatriate = Repatriate.GRANTED
    repatriate_least_mb: int = between(0, 1 << 30, 16)
    """The least memory of one task on a node that is worth it, in units of 1,048,576 bytes."""
    pbs: PbsActions = field(default_factory=PbsActions)
    slurm: SchedulerActions = field(default_factory=SchedulerActions)

    def of(self, scheduler: str) -> Actions:
        """Return the actions for this scheduler's jobs: its own table, completed by [actions]."""
        own = {"pbs": self.pbs, "slurm": self.slurm}.get(scheduler, SchedulerActions())
        keys = [each.name for each in fields(SchedulerActions)]
        common = {key: getattr(self, key) for key in keys}
        given = {each.name: getattr(own, each.name) for each in fields(own)}
        return Actions(**common | {key: value for key, value in given.items() if value is not None})
