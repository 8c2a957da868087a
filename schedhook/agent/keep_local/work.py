"""keep_local at work on one job: read its page tables, decide, move gently, record."""

from __future__ import annotations

import time
from collections.abc import Sequence

from schedhook.agent.job import SETTLED, Job, move
from schedhook.agent.keep_local.gentle import gently
from schedhook.agent.keep_local.reading import Reading, read_job
from schedhook.agent.keep_local.record import describe_move, is_news, write_decision
from schedhook.agent.keep_local.trade import trade_places
from schedhook.agent.keeper.decision import MUCH_LATER, Decision, Situation, Verdict
from schedhook.agent.keeper.keeper import JobKey, Keeper
from schedhook.agent.results import Step
from schedhook.roles.request import Request
from schedhook.roles.scheduler import Task
from schedhook.values.sizes import MIB

KEEPS_LOCAL = "keep_local"
"""In the data of an event that asks for it."""


def keep_local(job: Job, tasks: Sequence[Task]) -> list[Step]:
    """Bring a running job's off-node memory home if that pays, and is allowed at this moment."""
    keeper, key = job.keeper, job.key
    if keeper is None or keeper.turn != key or job.adapter.suspended(job.name):
        return []
    if not job.actions.keep_local:
        return _leave_alone(job, keeper, key)
    began = time.monotonic()
    reading = read_job(job, tasks)
    if reading is None:
        return []
    now, state = time.monotonic(), keeper.state(key)
    decision = keeper.decide(key, reading.situation, now, reading.room)
    keeper.took(key, now - began, now)
    traded = trade_places(job, reading, keeper) if decision.verdict is Verdict.NO_ROOM else None
    if traded and traded.has_moved:
        return [Step(lines=(f"keep_local: {traded.text}",))]
    if not is_news(state, decision, reading.situation):
        return []
    result = decision.why
    if traded:
        result += f"; {traded.text}"
    if decision.verdict is Verdict.MOVE:
        result += f"; {_move(job, reading)}"
    write_decision(job.records, key, state, reading.situation, result)
    return [Step(lines=(f"keep_local: {result}",))]


def _leave_alone(job: Job, keeper: Keeper, key: JobKey) -> list[Step]:
    """Note that the job is not wanted to be kept local; say so if the job has chosen that."""
    state = keeper.state(key)
    size = state.last.off_node if state.last else 0
    why = f"{size / MIB:.1f} MiB off-node: left alone, {job.actions.reason}"
    decision = Decision(verdict=Verdict.OFF, why=why, again=MUCH_LATER)
    keeper.decided(key, decision, time.monotonic())
    situation = Situation(off_node=size, resident=0, fitting=0)
    if not job.actions.is_off or not is_news(state, decision, situation):
        return []
    write_decision(job.records, key, state, situation, why)
    return [Step(lines=(f"keep_local: {why}",))]


def _move(job: Job, reading: Reading) -> str:
    """Bring home what fits, and return what came of it; what stayed is decided about again."""
    keeper, key = job.keeper, job.key
    assert keeper is not None
    began = time.monotonic()
    request = Request(home=True, sources=reading.sources)
    report, _ = move(job, reading.tasks, gently(request, keeper.rules))
    now = time.monotonic()
    moved = report.bytes_moved if report else 0
    if key in keeper.jobs:  # it has not ended meanwhile
        keeper.moved(key, reading.situation, moved, now - began, now)
    if report is None:
        return "its processes have ended"
    if report.outcome not in SETTLED:
        return report.summary()
    return describe_move(report, now - began)
