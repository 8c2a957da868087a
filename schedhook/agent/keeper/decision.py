"""The decision whether a job's off-node memory is brought home now, from figures alone."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from schedhook.values.sizes import MIB

LEAST_REMAINING = 60.0
"""Seconds. A job that ends earlier is left alone."""
REMOTE_PENALTY = 0.2
"""The share of its time that a job would save if all of its memory were off-node and came home.

A careful figure: memory two hops away often costs more, but programs that live in their caches lose
less.
"""
_SHORTLY = 60.0
_LATER = 600.0
MUCH_LATER = 3600.0


class Verdict(StrEnum):
    """What is done about a job's off-node memory."""

    MOVE = "move"
    AT_HOME = "at-home"
    """There is too little of it, although the cgroup's figures looked like more."""
    OFF = "off"
    """The job, or the configuration, wants no memory to be moved."""
    POLICY = "policy"
    """Memory policies name the nodes on which it is."""
    ENDING = "ending"
    YOUNG = "young"
    """Nothing tells when the job ends, and it has only just started."""
    COST = "cost"
    """It costs more than the job would gain."""
    LEAVES = "leaves"
    """It has left again after earlier moves, or did not come along."""
    JOB_BUDGET = "job-budget"
    HOST_BUDGET = "host-budget"
    NO_ROOM = "no-room"


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """A job's memory as its page tables show it. Sizes are bytes."""

    off_node: int
    """What is off-node and worth a move, without what policies bind there."""
    bound: int = 0
    """What memory policies bind off-node."""
    resident: int
    fitting: int
    """The part of `off_node` for which there is room at home."""
    remaining: float | None = None
    """Seconds until the job ends at the latest, None if unknown."""
    age: float = 0.0
    """Seconds since the job started."""
    details: str = ""
    """Which policies bind it, or why it does not fit, for people."""

    @property
    def expected(self) -> float:
        """The seconds for which the job is expected to run.

        If nothing tells, a job is taken to run for as long again as it has run.
        """
        return self.age if self.remaining is None else self.remaining


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What limits moves at this moment. Sizes are bytes."""

    rate: float
    """Bytes per second at which memory moves."""
    wait: float = 0.0
    """Seconds for which memory that keeps leaving stays where it is."""
    failures: int = 0
    """How often it left again."""
    job_left: int | None = None
    """What may still be moved for this job within the day; None: no limit."""
    host_left: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What is done, why, and after how many seconds to look at the page tables again."""

    verdict: Verdict
    why: str
    again: float


def decide(now: Situation, limits: Limits) -> Decision:
    """Return what to do about a job's off-node memory."""
    for objection in _OBJECTIONS:
        if decision := objection(now, limits):
            return decision
    size = now.fitting
    why = f"{_off_node(now)}, {size / MIB:.1f} MiB come home: {_price(size, now, limits)}"
    return Decision(verdict=Verdict.MOVE, why=why, again=_SHORTLY)


def _is_at_home(now: Situation, _: Limits) -> Decision | None:
    if now.off_node:
        return None
    if now.bound:
        why = f"{now.bound / MIB:.1f} MiB are bound off-node by memory policies: {now.details}"
        return Decision(verdict=Verdict.POLICY, why=why, again=MUCH_LATER)
    why = "no memory that is worth a move is off-node, page by page"
    return Decision(verdict=Verdict.AT_HOME, why=why, again=_LATER)


def _may_end_soon(now: Situation, _: Limits) -> Decision | None:
    if now.expected >= LEAST_REMAINING:
        return None
    if now.remaining is None:
        why = f"{_off_node(now)}: the job has run for {now.age:.0f} s only, and may end soon"
        return Decision(verdict=Verdict.YOUNG, why=why, again=LEAST_REMAINING - now.age)
    why = f"{_off_node(now)}: the job ends in {now.remaining:.0f} s"
    return Decision(verdict=Verdict.ENDING, why=why, again=_LATER)


def _keeps_leaving(now: Situation, limits: Limits) -> Decision | None:
    if limits.wait <= 0:
        return None
    why = (
        f"{_off_node(now)} left again or did not come along, {limits.failures} times in a row;"
        f" left alone for {limits.wait:.0f} s"
    )
    return Decision(verdict=Verdict.LEAVES, why=why, again=limits.wait)


def _does_not_pay(now: Situation, limits: Limits) -> Decision | None:
    size = _wanted(now)
    if _cost(size, limits) <= _gain(size, now):
        return None
    why = f"{_off_node(now)}: {_price(size, now, limits)}; it does not pay"
    # Without a limit of time, what a job is expected to run for grows with its age.
    again = _SHORTLY if now.remaining is None else _LATER
    return Decision(verdict=Verdict.COST, why=why, again=again)


def _exceeds_budget(now: Situation, limits: Limits) -> Decision | None:
    for left, verdict, whose in (
        (limits.job_left, Verdict.JOB_BUDGET, "this job"),
        (limits.host_left, Verdict.HOST_BUDGET, "this host"),
    ):
        if left is not None and _wanted(now) > left:
            may = max(left, 0) / MIB
            why = f"{_off_node(now)}: only {may:.1f} MiB may still move today for {whose}"
            return Decision(verdict=verdict, why=why, again=_LATER)
    return None


def _finds_no_room(now: Situation, _: Limits) -> Decision | None:
    if now.fitting:
        return None
    why = f"{_off_node(now)} wait for room: {now.details}"
    return Decision(verdict=Verdict.NO_ROOM, why=why, again=_LATER)


_OBJECTIONS = (
    _is_at_home,
    _may_end_soon,
    _keeps_leaving,
    _does_not_pay,
    _exceeds_budget,
    _finds_no_room,
)
"""In this order, why memory may be left where it is."""


def _wanted(now: Situation) -> int:
    return now.fitting or now.off_node


def _cost(size: int, limits: Limits) -> float:
    return size / limits.rate


def _gain(size: int, now: Situation) -> float:
    return REMOTE_PENALTY * now.expected * size / max(now.resident, size)


def _off_node(now: Situation) -> str:
    share = now.off_node / max(now.resident, now.off_node)
    return f"{now.off_node / MIB:.1f} MiB off-node ({share:.0%})"


def _price(size: int, now: Situation, limits: Limits) -> str:
    known = "left" if now.remaining is not None else "expected, its age"
    return (
        f"{_cost(size, limits):.1f} s at {limits.rate / 1e6:.0f} MB/s against a gain of"
        f" {_gain(size, now):.1f} s ({now.expected:.0f} s {known})"
    )
