"""Decisions in the journal: each once, with its figures, until another one is made."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from schedhook.agent.keeper.decision import Decision, Situation, Verdict
from schedhook.agent.keeper.keeper import JobKey, JobState
from schedhook.agent.records import Records
from schedhook.journal.gains import KEEP_LOCAL, Gain
from schedhook.values.model import Event, Report
from schedhook.values.sizes import GIB, MIB

_MOST_CHANGE = 0.25
"""The share by which off-node memory changes before the same decision is written again."""


def is_news(state: JobState, decision: Decision, situation: Situation) -> bool:
    """Return whether the decision differs from the one that the journal has."""
    if decision.verdict is Verdict.MOVE or state.written is None:
        # That there is nothing to decide is no decision.
        return decision.verdict is not Verdict.AT_HOME or state.written is not None
    verdict, size = state.written
    now = situation.off_node + situation.bound
    return verdict is not decision.verdict or abs(now - size) > _MOST_CHANGE * max(size, now)


def write_decision(
    records: Records, key: JobKey, state: JobState, situation: Situation, summary: str
) -> None:
    """Write the latest decision about a job in the journal."""
    verdict = state.verdict or Verdict.MOVE
    size = situation.off_node + situation.bound
    state.written = (verdict, size)
    figures = {
        "verdict": verdict.value,
        "off_node": situation.off_node,
        "bound": situation.bound,
        "resident": situation.resident,
        "fitting": situation.fitting,
        "remaining_s": situation.remaining,
        "age_s": round(situation.age, 1),
    }
    _put(records, key, figures | _gain(state), summary, time.time())


def describe_move(report: Report, seconds: float) -> str:
    """Return what moved and what did not, for people."""
    result = f"moved {report.bytes_moved / MIB:.1f} MiB in {seconds:.1f} s"
    if report.left_by_reason:
        reasons = ", ".join(report.left_by_reason)
        result += f", left {report.bytes_left / MIB:.1f} MiB ({reasons})"
    return result


def write_end(records: Records, key: JobKey, state: JobState, at: float) -> None:
    """Write in the journal what was avoided for a job that has ended at `at`."""
    state.accrue(time.monotonic() - max(0.0, time.time() - at))
    if state.avoided:
        hours = state.avoided / GIB / 3600
        summary = f"{hours:.3f} GiB-hours off-node avoided"
        _put(records, key, {"verdict": "ended", **_gain(state), "kept": 0}, summary, at)
    count_gains(records, {key[0]: state.take_gain()})


def count_gains(records: Records, gains: Mapping[str, float]) -> None:
    """Add byte-seconds by scheduler to the journal's counters."""
    gains = {scheduler: gain for scheduler, gain in gains.items() if gain}
    if gains:
        records.write(lambda: records.journal.counters.add_avoided(gains))


def restore(records: Records, key: JobKey, state: JobState) -> None:
    """Continue with what an earlier agent has written of the job's open run."""
    run = records.run(*key)
    if run is None or run.ended is not None:
        return
    events = records.journal.events
    found = records.ask(lambda: events.latest(*key, KEEP_LOCAL, run.started), None)
    if found is None:
        return
    gain = Gain.parse(found.at, found.event.data)
    state.kept, state.avoided = gain.kept, gain.avoided
    state.counted = state.avoided
    data = found.event.data
    if data.get("verdict") in tuple(Verdict):
        sizes = (data.get("off_node"), data.get("bound"))
        state.written = (Verdict(data["verdict"]), sum(n for n in sizes if isinstance(n, int)))


def _gain(state: JobState) -> dict[str, Any]:
    return Gain(kept=state.kept, avoided=state.avoided).to_dict()


def _put(
    records: Records, key: JobKey, figures: Mapping[str, Any], summary: str, at: float
) -> None:
    scheduler, job = key
    event = Event(scheduler=scheduler, point=KEEP_LOCAL, job=job, data=dict(figures))
    records.write(lambda: records.journal.events.add_handled(event, at, summary))
