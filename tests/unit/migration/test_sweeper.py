"""Which failures are retried, and how failures are counted."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from schedhook.backends.simulated import PAGE
from schedhook.backends.simulated.target import SimulatedTarget
from schedhook.migration.headroom import Headroom
from schedhook.values.config import Config
from schedhook.values.errors import BackendError
from schedhook.values.model import Area, Outcome
from tests.unit.relocation.simulation import AT, QUICK, STRATEGIES, host, residency, run


def test_busy_pages_are_retried_until_they_move() -> None:
    backend = host([0] * 10)
    backend.fail(100, AT + 3 * PAGE, [errno.EBUSY, errno.EBUSY])
    report = run(backend)
    assert (report.outcome, report.attempts) == (Outcome.COMPLETE, 3)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_pages_that_never_move_are_counted(strategy: str) -> None:
    backend = host([0] * 10)
    backend.fail(100, AT, always=errno.EBUSY)
    backend.fail(100, AT + 5 * PAGE, always=errno.EACCES)
    report = run(backend, strategy=strategy)
    assert report.outcome is Outcome.PARTIAL
    assert report.left_by_reason == {"EBUSY": PAGE, "shared": PAGE}
    assert residency(backend) == {0: 2, 2: 8}


def test_remapped_pages_are_retried() -> None:
    backend = host([0] * 10)
    backend.fail(100, AT, [errno.EFAULT, 0])
    report = run(backend)
    assert (report.outcome, report.attempts) == (Outcome.COMPLETE, 2)


def test_permanent_failures_are_not_retried() -> None:
    backend = host([0] * 10)
    backend.fail(100, AT, [errno.EACCES, 0])
    report = run(backend)
    assert (report.attempts, report.left_by_reason) == (1, {"shared": PAGE})


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("most", [0, 1])
def test_fewer_threads_than_wanted_do_the_work(
    monkeypatch: pytest.MonkeyPatch, strategy: str, most: int
) -> None:
    """RLIMIT_NPROC, pids.max: pthread_create(3) fails."""
    start = threading.Thread.start
    started = 0

    def limited(thread: threading.Thread) -> None:
        nonlocal started
        started += 1
        if started > most:
            raise RuntimeError("can't start new thread")
        start(thread)

    backend = host([0] * 10, [0] * 10, [1] * 10)
    monkeypatch.setattr(threading.Thread, "start", limited)
    report = run(backend, strategy=strategy, threads=4)
    assert report.outcome is Outcome.COMPLETE, report.notes
    assert residency(backend) == {2: 20, 1: 10}
    assert started > most


LIMITED = replace(QUICK, relocation=replace(QUICK.relocation, bandwidth_mb_s=4 * 50 * PAGE / 1e6))
"""A piece is at most 50 pages."""


SPARSE: list[int | None] = ([0] + [None] * 999) * 200
"""200 pages, each of them before 999 pages of hole."""
HOLES = {
    "alone": ([SPARSE], "move-pages", 4),
    "beside small areas": ([[0] * 5, SPARSE, [0] * 5], "move-pages", 6),
    "two": ([SPARSE, SPARSE], "move-pages", 8),
    "by heat": ([SPARSE, [0] * 5], "hot-first", 12),
}


def limit_rate(monkeypatch: pytest.MonkeyPatch) -> Config:
    """Allow 50 pages at a time. By addresses, an area would take 4,000 pieces."""
    monkeypatch.setattr("schedhook.migration.throttle.time.sleep", lambda _: None)
    return LIMITED


def limit_room(monkeypatch: pytest.MonkeyPatch, room: int = 60 * PAGE) -> Config:
    """Have room for 60 pages at a time, or another number of bytes."""
    take = Headroom.take

    def little(self: Headroom, moves: Any, wanted: int, least: int) -> int:
        return take(self, moves, min(wanted, room), least)

    monkeypatch.setattr(Headroom, "take", little)
    return QUICK


@pytest.mark.parametrize("limit", [limit_rate, limit_room])
@pytest.mark.parametrize(("areas", "strategy", "most"), HOLES.values(), ids=HOLES)
def test_a_limit_is_no_reason_to_visit_each_hole(
    areas: list[list[int | None]],
    strategy: str,
    most: int,
    limit: Callable[[pytest.MonkeyPatch], Config],
    monkeypatch: pytest.MonkeyPatch,
    sweeps: list[tuple[int, int]],
) -> None:
    report = run(host(*areas), limit(monkeypatch), strategy=strategy)
    assert report.outcome is Outcome.COMPLETE
    assert report.bytes_moved == sum(area.count(0) for area in areas) * PAGE
    assert len(sweeps) <= most, sweeps


@pytest.mark.parametrize(
    ("pages", "shift", "pieces"),
    [([0] * (24 << 8), 1, 6), (([0] * 512 + [None] * 1536) * 12, 0, 6)],
    ids=["shifted", "scattered"],
)
def test_where_room_is_short_no_folio_is_cut(
    pages: list[int | None],
    shift: int,
    pieces: int,
    monkeypatch: pytest.MonkeyPatch,
    sweeps: list[tuple[int, int]],
) -> None:
    """24 MiB in folios of 2 MiB, `shift` MiB beside a multiple of their size; room for 5 MiB."""
    mib, room = 1 << 20, 5 << 20

    def boundary(_target: SimulatedTarget, _area: Area, address: int) -> int:
        return -(-(address - shift * mib) // (2 * mib)) * 2 * mib + shift * mib

    monkeypatch.setattr(SimulatedTarget, "boundary", boundary)
    report = run(host(pages), limit_room(monkeypatch, room), strategy="move-pages")
    assert report.bytes_moved == 24 * mib
    assert all(end % (2 * mib) == shift * mib for _, end in sweeps[:-1])
    assert len(sweeps) == pieces


def test_without_the_right_to_see_folios_pieces_stay_small(sweeps: list[tuple[int, int]]) -> None:
    """Nodes that exchange every second page: each part that moves is one page of 4 KiB."""
    report = run(host([0, 1] * 2048), LIMITED, strategy="move-pages", node_map="0:1,1:0")
    assert report.outcome is Outcome.COMPLETE
    assert max(end - start for start, end in sweeps) <= (2 << 20) + PAGE


@pytest.fixture
def unreadable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `locate` fail, as it does for an object once there is a swap area."""

    def locate(*_: Any) -> Any:
        raise BackendError("the kernel does not say which pages are in swap", errno.EPERM)

    monkeypatch.setattr(SimulatedTarget, "locate", locate)


@pytest.mark.usefixtures("unreadable")
def test_an_object_that_cannot_be_looked_into_is_swept_all_the_same() -> None:
    report = run(host(SPARSE), LIMITED, strategy="move-pages")
    assert (report.outcome, report.bytes_moved) == (Outcome.COMPLETE, 200 * PAGE)


@pytest.mark.usefixtures("unreadable")
def test_an_object_that_cannot_be_looked_into_and_has_no_room_is_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Headroom, "take", lambda *_, **__: 0)
    report = run(host([0] * 10), strategy="move-pages")
    assert (report.outcome, report.left_by_reason) == (Outcome.PARTIAL, {"reserve": 10 * PAGE})


def test_a_page_that_appears_in_a_hole_is_retried(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = host(SPARSE)
    backend.fail(100, AT + 1000 * PAGE, [errno.EBUSY])
    locate = SimulatedTarget.locate

    def early(self: SimulatedTarget, *arguments: Any) -> Any:
        return [run for run in locate(self, *arguments) if run.start != AT + 1000 * PAGE]

    monkeypatch.setattr(SimulatedTarget, "locate", early)
    report = run(backend, LIMITED, strategy="move-pages")
    assert (report.outcome, report.attempts) == (Outcome.COMPLETE, 2)
    assert residency(backend) == {2: 200}


def test_a_process_that_exits_before_its_holes_are_known_is_gone(
    monkeypatch: pytest.MonkeyPatch, sweeps: list[tuple[int, int]]
) -> None:
    backend = host(SPARSE)
    locate = SimulatedTarget.locate

    def late(self: SimulatedTarget, *arguments: Any) -> Any:
        backend.end_process(100)
        return locate(self, *arguments)

    monkeypatch.setattr(SimulatedTarget, "locate", late)
    report = run(backend, LIMITED, strategy="move-pages")
    assert (report.outcome, report.bytes_moved) == (Outcome.NOTHING_TO_DO, 0)
    assert not sweeps
