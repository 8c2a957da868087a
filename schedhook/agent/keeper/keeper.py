"""What keep_local knows of each job, and when it looks closer, decides and moves.

Nothing here reads the host or a clock: the agent and a simulation hand in what they see. Times are
seconds of one clock.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Self

from schedhook.agent.keeper.back_off import BackOff
from schedhook.agent.keeper.budget import ByteBudget
from schedhook.agent.keeper.decision import Decision, Limits, Situation, Verdict, decide
from schedhook.values.config import Config

JobKey = tuple[str, str]
"""(scheduler, job)."""

SETTLE_SECONDS = 10.0
"""How long memory must have been off-node: a job that starts is still filling it."""
_MOST_CHANGE = 0.25
"""The share by which off-node memory changes before its page tables are read again."""
_PAUSE_FACTOR = 50.0
"""A job's page tables are read again after at least this many times as long as it took."""
_VAGUE_SHARE = 0.0005
"""The share of the time that reading the page tables of jobs at home may take, all together: those
whose figures do not tell all."""
_RATE_WEIGHT = 0.3
"""The weight of a large move in the rate that the next one is expected to have."""
_LARGE = 1 << 30
"""Bytes. A smaller move has less weight: it takes time to plan, whatever its size."""
_FIRST_RATE = 500e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What the configuration says. Sizes are bytes."""

    least: int = 16 << 20
    """Less off-node memory of a job is not looked at."""
    rate: float = _FIRST_RATE
    """Bytes per second; 0: no limit."""
    host_daily: int = 0
    """What may move on the host within a day; 0: no limit."""
    job_daily: float = 4.0
    """The same for a job, as a multiple of its memory; 0: no limit."""

    @classmethod
    def read(cls, config: Config) -> Self:
        """Return the rules of a configuration."""
        return cls(
            least=max(1, config.actions.repatriate_least_mb << 20),
            rate=config.keep_local.bandwidth_mb_s * 1e6,
            host_daily=config.keep_local.host_daily_gb << 30,
            job_daily=config.keep_local.job_daily,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Glance:
    """A job's memory as its cgroups' own figures show it. Sizes are bytes."""

    off_node: int
    local: int
    complete: bool = True
    """Whether no memory can be off-node besides this."""


@dataclass(slots=True, kw_only=True)
class JobState:
    """What is known of one job."""

    since: float | None = None
    """When its memory was first seen off-node, None while it is not."""
    read_off: int = 0
    """What was off-node at the latest reading, as the cgroups showed it."""
    verdict: Verdict | None = None
    again: float = 0.0
    """When to read its page tables again although nothing seems to have changed."""
    awaited: Mapping[int, int] = field(default_factory=dict)
    """Room, by node, that there was when memory found none."""
    back_off: BackOff = field(default_factory=BackOff)
    budget: ByteBudget = field(default_factory=ByteBudget)
    kept: int = 0
    """What was brought home, and is there still."""
    avoided: float = 0.0
    """`kept` times seconds: what would have been off-node for how long."""
    counted: float = 0.0
    """The part of it that the counters have."""
    accrued: float | None = None
    """Up to when `avoided` counts."""
    written: tuple[Verdict, int] | None = None
    """The latest decision in the journal, with what was off-node."""
    last: Glance | None = None

    def accrue(self, now: float) -> None:
        """Count what is kept up to now."""
        if self.accrued is not None:
            self.avoided += self.kept * max(0.0, now - self.accrued)
        self.accrued = now

    def take_gain(self) -> float:
        """Return the byte-seconds that the counters do not have yet; they have them then."""
        gain = self.avoided - self.counted
        self.counted = self.avoided
        return gain


class Keeper:
    """Decides about all jobs of a host. Not thread-safe: one job is dealt with at a time."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.jobs: dict[JobKey, JobState] = {}
        self.turn: JobKey | None = None
        """The job that is being dealt with."""
        self._host = ByteBudget()
        self._rate = rules.rate or _FIRST_RATE

    def state(self, key: JobKey) -> JobState:
        """Return the job's state, an empty one if it is new."""
        return self.jobs.setdefault(key, JobState())

    def forget(self, key: JobKey) -> JobState | None:
        """Drop a job that has ended, and return what was known of it."""
        return self.jobs.pop(key, None)

    def forget_unseen(self, before: float, present: Collection[JobKey]) -> None:
        """Drop the jobs that are not `present` and were last seen before a time."""
        for key, state in tuple(self.jobs.items()):
            if key not in present and (state.accrued or 0.0) < before:
                self.forget(key)

    # -- looks -----------------------------------------------------------------------------------

    def wants_reading(
        self, key: JobKey, glance: Glance, now: float, room: Mapping[int, int]
    ) -> bool:
        """Return whether the job's page tables are worth reading after this glance.

        `room` is that of each node for which memory waits.
        """
        state = self.state(key)
        state.accrue(now)
        if glance.complete or glance.local:
            state.kept = min(state.kept, glance.local)  # it may have freed some
        state.last = glance
        little = glance.off_node < self.rules.least
        if little and glance.complete:
            state.since = state.verdict = None
            return False
        if state.since is None:
            state.since = now
        if now - state.since < SETTLE_SECONDS:
            return False
        if little:
            return now >= state.again
        if state.verdict is None or now >= state.again:
            return True
        if state.verdict is Verdict.NO_ROOM and self._has_grown(state.awaited, room):
            return True
        change = abs(glance.off_node - state.read_off)
        return change > max(self.rules.least, _MOST_CHANGE * state.read_off)

    def _has_grown(self, before: Mapping[int, int], room: Mapping[int, int]) -> bool:
        return any(room.get(node, 0) - size >= self.rules.least for node, size in before.items())

    # -- decisions -------------------------------------------------------------------------------

    def decide(
        self, key: JobKey, situation: Situation, now: float, room: Mapping[int, int]
    ) -> Decision:
        """Decide about a job whose page tables were read; `room` is that of its own nodes."""
        state = self.state(key)
        local = situation.resident - situation.off_node - situation.bound
        if state.back_off.note_reading(situation.off_node, local, now):
            state.kept = max(0, state.kept - situation.off_node)
        job_daily = int(self.rules.job_daily * situation.resident)
        host_daily = self.rules.host_daily
        limits = Limits(
            rate=self._rate,
            wait=max(0.0, state.back_off.until - now),
            failures=state.back_off.failures,
            job_left=job_daily - state.budget.spent(now) if job_daily else None,
            host_left=host_daily - self._host.spent(now) if host_daily else None,
        )
        decision = decide(situation, limits)
        self.decided(key, decision, now)
        state.awaited = room if decision.verdict is Verdict.NO_ROOM else {}
        return decision

    def waiting(self) -> list[JobKey]:
        """Return the jobs whose memory found no room at home."""
        jobs = tuple(self.jobs.items())  # another thread drops a job that ends
        return [key for key, state in jobs if state.verdict is Verdict.NO_ROOM]

    def may_move(self, size: int, now: float) -> bool:
        """Return whether the host's budget allows `size` bytes now."""
        return not self.rules.host_daily or self._host.spent(now) + size <= self.rules.host_daily

    def decided(self, key: JobKey, decision: Decision, now: float) -> None:
        """Note a decision about what the latest glance has shown."""
        state = self.state(key)
        state.verdict, state.again = decision.verdict, now + decision.again
        state.read_off = state.last.off_node if state.last else 0

    def took(self, key: JobKey, seconds: float, now: float) -> None:
        """Note how long the latest reading of page tables took, for the time of the next one."""
        state = self.state(key)
        pause = _PAUSE_FACTOR * seconds
        if state.verdict is Verdict.AT_HOME and state.last and not state.last.complete:
            pause = max(pause, len(self.jobs) * seconds / _VAGUE_SHARE)
        state.again = max(state.again, now + pause)

    def moved(
        self, key: JobKey, situation: Situation, moved: int, seconds: float, now: float
    ) -> None:
        """Note that `moved` of the bytes that fitted came home, in so many seconds."""
        state = self.state(key)
        state.budget.spend(moved, now)
        self._host.spend(moved, now)
        if moved and seconds > 0:
            weight = _RATE_WEIGHT * min(1.0, moved / _LARGE)
            self._rate += weight * (moved / seconds - self._rate)
        local = situation.resident - situation.off_node - situation.bound + moved
        state.back_off.note_move(moved, max(0, situation.fitting - moved), local, now)
        state.accrue(now)
        state.kept += moved
        # What the cgroups show at the next look is new: what stayed, or what has been allocated.
        state.verdict, state.since = None, now

    # -- gains -----------------------------------------------------------------------------------

    def take_gains(self) -> dict[str, float]:
        """Return byte-seconds by scheduler that were avoided and are not in the counters yet."""
        gains: dict[str, float] = {}
        for (scheduler, _), state in tuple(self.jobs.items()):
            if gain := state.take_gain():
                gains[scheduler] = gains.get(scheduler, 0.0) + gain
        return gains
