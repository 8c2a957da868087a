"""[actions] of the configuration: what to do when something has happened to a job."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any

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


class Choice(StrEnum):
    """What a job, or the site for it, wants of relocations that nobody commands."""

    OFF = "off"
    """None: no memory of the job moves unless an administrator's command names it."""
    GENTLE = "gentle"
    """Its memory follows, with short system calls and one thread."""
    FOLLOW = "follow"
    """Its memory follows."""


class ChoiceFrom(StrEnum):
    """How a job says what it wants."""

    ENVIRONMENT = "environment"
    """SCHEDHOOK in the environment of its first process, or of a step that starts later."""
    SCHEDULER = "scheduler"
    """`schedhook=WORD` in Slurm's comment or extra field, or PBS's resource `schedhook`."""


class OnSharedProcessors(StrEnum):
    """What to do before a job resumes on CPUs that other jobs use by now."""

    LEAVE = "leave"
    REPORT = "report"
    """Say so in the scheduler's log, with the CPUs that are free."""
    REPLACE = "replace"
    """Give the job free CPUs of its own, and move its memory to their nodes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerActions:
    """A table of [actions] for some jobs. None: as in [actions]."""

    choice: Choice | None = None
    """What applies to jobs that choose nothing themselves."""
    job_choices: tuple[Choice, ...] | None = None
    on_relocation: OnRelocation | None = None
    park: AnyNode | NodeSet | None = None
    park_after_s: float | None = between(0, 86_400, None)
    repatriate: Repatriate | None = None
    repatriate_least_mb: int | None = between(0, 1 << 30, None)
    keep_local: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PbsActions(SchedulerActions):
    """[actions.pbs]: what differs for OpenPBS, and what only its hooks make possible."""

    on_shared_processors: OnSharedProcessors = OnSharedProcessors.REPORT


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionRule(SchedulerActions):
    """An entry of [[actions.rules]]: what differs for the jobs that every list names.

    An empty list names every job.
    """

    schedulers: tuple[str, ...] = ()
    partitions: tuple[str, ...] = ()
    """Of Slurm; `queues` means the same, for OpenPBS."""
    queues: tuple[str, ...] = ()
    accounts: tuple[str, ...] = ()
    users: tuple[str, ...] = ()
    """Names or numbers."""

    def fits(self, job: JobFacts) -> bool:
        """Return whether the rule is for this job; not if what it asks for is unknown."""
        return (
            (not self.schedulers or job.scheduler in self.schedulers)
            and (not self.partitions + self.queues or job.queue in self.partitions + self.queues)
            and (not self.accounts or job.account in self.accounts)
            and (not self.users or not job.user.isdisjoint(self.users))
        )

    def explain_wrong(self) -> str | None:
        """Return why the rule is of no use, None if it is of some."""
        named = [each.name for each in fields(self) if each.name not in _KEYS]
        if not any(getattr(self, name) for name in named):
            return f"names no jobs: set at least one of {', '.join(named)}"
        if all(getattr(self, key) is None for key in _KEYS):
            return f"changes nothing: set at least one of {', '.join(_KEYS)}"
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFacts:
    """What rules ask of a job, as the scheduler's hooks or the kernel told it, never its user."""

    scheduler: str = ""
    queue: str | None = None
    """Slurm's partition, PBS's queue; None if it is unknown."""
    account: str | None = None
    user: AbstractSet[str] = frozenset()
    """The user's name and number; empty if they are unknown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Actions:
    """What to do for one job; see `ActionsSection`."""

    choice: Choice | None = None
    """OFF: nothing of the job is moved, and no other field says anything else."""
    job_choices: tuple[Choice, ...] = tuple(Choice)
    is_jobs_own: bool = False
    """The job itself has made the choice."""
    on_relocation: OnRelocation = OnRelocation.FOLLOW
    park: AnyNode | NodeSet = field(default_factory=NodeSet)
    park_after_s: float = 0.0
    repatriate: Repatriate = Repatriate.GRANTED
    repatriate_least_mb: int = 16
    keep_local: bool = False
    on_shared_processors: OnSharedProcessors = OnSharedProcessors.LEAVE

    @property
    def is_off(self) -> bool:
        """Whether nothing of the job is moved unless a command names it."""
        return self.choice is Choice.OFF

    @property
    def is_gentle(self) -> bool:
        """Whether the job's relocations are gentle, whatever [relocation] says."""
        return self.choice is Choice.GENTLE

    @property
    def reason(self) -> str:
        """Why the job is treated so, for people."""
        if self.is_jobs_own:
            return f"as the job chose (SCHEDHOOK={self.choice})"
        return f'as configured (choice = "{self.choice}")' if self.choice else "as configured"

    def without_moves(self) -> Actions:
        """Return the actions of a job of which nothing is moved."""
        shared = self.on_shared_processors
        return Actions(  # by default, what this does not name does nothing
            choice=self.choice,
            job_choices=self.job_choices,
            is_jobs_own=self.is_jobs_own,
            on_relocation=OnRelocation.NONE,
            repatriate=Repatriate.NEVER,
            on_shared_processors=OnSharedProcessors.REPORT
            if shared is OnSharedProcessors.REPLACE
            else shared,
        )


_KEYS = tuple(each.name for each in fields(SchedulerActions))
"""The keys that tables for some jobs have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionsSection:
    """[actions]: what to do when something has happened."""

    job_choices: tuple[Choice, ...] = tuple(Choice)
    """What a job may choose; empty: nothing."""
    choice_from: ChoiceFrom = ChoiceFrom.ENVIRONMENT
    on_relocation: OnRelocation = OnRelocation.FOLLOW
    park: AnyNode | NodeSet = field(default_factory=NodeSet)
    """Nodes to which a suspended job's memory moves, such as `"2-3"`; empty: it stays."""
    park_after_s: float = between(0, 86_400, 0.0)
    """Seconds for which a job must have been suspended before; more than a slice of gang
    scheduling, whose jobs are suspended again and again."""
    repatriate: Repatriate = Repatriate.GRANTED
    repatriate_least_mb: int = between(0, 1 << 30, 16)
    """The least memory of one task on a node that is worth it, in units of 1,048,576 bytes."""
    keep_local: bool = False
    """Whether the agent looks for off-node memory by itself and brings it home; [keep_local]."""
    pbs: PbsActions = field(default_factory=PbsActions)
    slurm: SchedulerActions = field(default_factory=SchedulerActions)
    rules: tuple[ActionRule, ...] = ()
    """All that fit a job apply; of two that set one key, the later one wins."""

    @property
    def may_keep_local(self) -> bool:
        """Whether some jobs' memory is kept local, so that jobs are worth a look."""
        tables: tuple[SchedulerActions, ...] = (self.pbs, self.slurm, *self.rules)
        return self.keep_local or any(table.keep_local for table in tables)

    def of(self, job: JobFacts, own: Choice | None = None) -> Actions:
        """Return the actions for this job, which has chosen `own`, if it may.

        They are those of [actions], of the scheduler's table, and of the rules that fit.
        """
        tables = [{"pbs": self.pbs, "slurm": self.slurm}.get(job.scheduler, SchedulerActions())]
        tables += [rule for rule in self.rules if rule.fits(job)]
        values: dict[str, Any] = {key: getattr(self, key, None) for key in _KEYS}
        for table in tables:
            given = {each.name: getattr(table, each.name, None) for each in fields(Actions)}
            values |= {name: value for name, value in given.items() if value is not None}
        if own in values["job_choices"]:
            values |= {"choice": own, "is_jobs_own": True}
        if values["choice"] in (Choice.GENTLE, Choice.FOLLOW):
            values["on_relocation"] = OnRelocation.FOLLOW
        actions = Actions(**values)
        return actions.without_moves() if actions.is_off else actions
