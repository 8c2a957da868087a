"""Trade places: bring memory home that finds room there only once that of another job has left."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

from schedhook.agent.job import Job
from schedhook.agent.keep_local.gentle import gently
from schedhook.agent.keep_local.reading import Reading, read_job
from schedhook.agent.keep_local.record import describe_move, write_decision
from schedhook.agent.keeper.decision import Verdict
from schedhook.agent.keeper.keeper import Keeper
from schedhook.agent.parking import read_parked
from schedhook.journal.errors import JobLockedError
from schedhook.roles.request import Request
from schedhook.values.errors import PLUGIN_ERRORS
from schedhook.values.log import get_logger
from schedhook.values.model import Report
from schedhook.values.sizes import MIB
from schedhook.values.text import describe_error, join_some

_log = get_logger()


@dataclass(frozen=True, slots=True)
class _Partner:
    """A job whose memory waits for room, held for the trade."""

    job: Job
    reading: Reading

    def request(self, keeper: Keeper) -> Request:
        pids = tuple(pid for task in self.reading.astray for pid in task.pids)
        request = Request(job=self.job.name, scheduler=self.job.scheduler, pids=pids)
        return gently(request, keeper.rules)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Trade:
    """What became of a trade."""

    seconds: float
    moved: int
    """Bytes of all jobs."""
    names: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What came of a trade for the job that asked for it."""

    has_moved: bool
    text: str
    """For people; if nothing of the job has moved, why."""


def trade_places(job: Job, reading: Reading, keeper: Keeper) -> Result | None:
    """Bring the job's memory home together with that of other jobs that wait for room.

    Record what moved, for each of them. Return None if no other job waits.
    """
    with ExitStack() as stack:
        partners = [_Partner(job, reading), *_find_partners(job, reading, keeper, stack)]
        if len(partners) < 2:
            return None
        began = time.monotonic()
        reports = job.rebalance([each.request(keeper) for each in partners])
        seconds = time.monotonic() - began
        trade = _Trade(
            seconds=seconds,
            moved=sum(report.bytes_moved for report in reports),
            names=[each.job.name for each in partners],
        )
        results = [
            _record(partner, report, keeper, trade)
            for partner, report in zip(partners, reports, strict=True)
        ]
    if results[0] is not None:
        return Result(has_moved=True, text=results[0])
    keeper.took(job.key, seconds, time.monotonic())
    text = f"a trade with {join_some(trade.names[1:])}: {reports[0].summary()}"
    return Result(has_moved=False, text=text)


def _find_partners(
    job: Job, reading: Reading, keeper: Keeper, stack: ExitStack
) -> Iterator[_Partner]:
    """Yield other jobs that wait for room and may move, as far as the host's budget allows.

    The stack holds these, and no others. A job that cannot be read does not keep the others from
    trading.
    """
    size = reading.situation.off_node
    for scheduler, name in keeper.waiting():
        if (scheduler, name) == job.key:
            continue
        with ExitStack() as held:  # until it is known whether the job takes part
            try:
                other = held.enter_context(job.open_other(scheduler, name))
                found = _read(other, keeper)
            except JobLockedError:
                continue
            except PLUGIN_ERRORS as error:
                _log.error("job takes no part in a trade", job=name, problem=describe_error(error))
                continue
            both = size + (found.reading.situation.off_node if found else 0)
            if found and keeper.may_move(both, time.monotonic()):
                size = both
                stack.enter_context(held.pop_all())
                yield found


def _read(job: Job, keeper: Keeper) -> _Partner | None:
    """Read a job's page tables, and decide again; return None if its memory stays for now."""
    run = job.records.run(job.scheduler, job.name)
    ended = run is not None and run.ended is not None
    if ended or not job.actions.keep_local or job.adapter.suspended(job.name) or read_parked(job):
        return None
    tasks = job.tasks()
    reading = read_job(job, tasks) if tasks else None
    if reading is None:
        return None
    decision = keeper.decide(job.key, reading.situation, time.monotonic(), reading.room)
    moves = decision.verdict in (Verdict.MOVE, Verdict.NO_ROOM)
    return _Partner(job, reading) if moves else None


def _record(partner: _Partner, report: Report, keeper: Keeper, trade: _Trade) -> str | None:
    """Record what has moved of a job's memory, and return it in words; None if nothing has."""
    moved, situation = report.bytes_moved, partner.reading.situation
    if not moved:
        return None
    others = join_some([name for name in trade.names if name != partner.job.name])
    size = f"{situation.off_node / MIB:.1f} MiB off-node"
    result = f"{size}: traded places with {others}; {describe_move(report, trade.seconds)}"
    if state := keeper.jobs.get(partner.job.key):  # it has not ended meanwhile
        situation = replace(situation, fitting=situation.off_node)
        # The rate is that of all jobs together.
        seconds = trade.seconds * moved / trade.moved
        keeper.moved(partner.job.key, situation, moved, seconds, time.monotonic())
        write_decision(partner.job.records, partner.job.key, state, situation, result)
    return result
