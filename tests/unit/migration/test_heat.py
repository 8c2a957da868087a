"""In which order hot-first moves memory: by a profile, by DAMON's counts, or by size."""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from schedhook.backends.simulated import PAGE, SimulatedArea, SimulatedBackend
from schedhook.backends.simulated.target import SimulatedTarget
from schedhook.control import damon
from schedhook.migration import heat
from schedhook.roles.backend import Sweep
from schedhook.roles.guidance import Guidance
from schedhook.roles.profile import Profile
from schedhook.values.model import Area, Outcome, Report
from schedhook.values.page_sizes import PageSizes
from schedhook.values.sets import NodeSet
from tests.unit.relocation.simulation import AT, QUICK, host, residency, run

WINDOW = 2 << 20
PAGES = WINDOW // PAGE
FAR = 1 << 30
ONE_THREAD = replace(QUICK, relocation=replace(QUICK.relocation, threads=1))


@pytest.fixture
def moved(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Return (the first address, the bytes) of each sweep that has moved any."""
    seen = list[tuple[int, int]]()
    sweep = SimulatedTarget.sweep

    def watched(self: SimulatedTarget, area: Any, start: int, end: int, *rest: Any, **more: Any):
        done: Sweep = sweep(self, area, start, end, *rest, **more)
        if done.moved:
            seen.append((start, sum(done.moved.values())))
        return done

    monkeypatch.setattr(SimulatedTarget, "sweep", watched)
    return seen


def hot_first(backend: SimulatedBackend, **request: Any) -> Report:
    return run(backend, ONE_THREAD, strategy="hot-first", **request)


def guidance(accesses: Mapping[int, Mapping[int, int]]) -> Guidance:
    profile = Profile()
    for pid, its in accesses.items():
        for address, count in its.items():
            profile.add(pid, address, node=2, count=count)
    return Guidance(accesses={pid: profile.accesses([pid]) for pid in accesses}, nodes=NodeSet({2}))


def test_by_a_profile(moved: list[tuple[int, int]]) -> None:
    """Five windows: the fourth is used most, then the second; the others hardly or not at all."""
    known = {100: {AT + 3 * WINDOW + 5 * PAGE: 900, AT + WINDOW: 40, AT + WINDOW + PAGE: 50, AT: 1}}
    report = hot_first(host([0] * 5 * PAGES), guidance=guidance(known))
    assert (report.outcome, report.bytes_left, report.notes) == (Outcome.COMPLETE, 0, ())
    assert moved[:3] == [(AT + 3 * WINDOW, WINDOW), (AT + WINDOW, WINDOW), (AT, WINDOW)]
    assert sum(size for _, size in moved) == 5 * WINDOW


def test_a_window_is_as_large_as_the_page_there(
    monkeypatch: pytest.MonkeyPatch, moved: list[tuple[int, int]]
) -> None:
    """As with base pages of 16 KiB. Two huge pages of 32 MiB; beside them, only small ones."""
    huge, small = 16 * WINDOW, AT + FAR
    backend = SimulatedBackend(page_sizes=PageSizes(base=PAGE, folio=huge))
    areas = [
        SimulatedArea(start=AT, nodes=[0, 0], folio_size=huge),
        SimulatedArea(start=small, nodes=[0] * 16 * PAGES),
    ]
    backend.add_process(100, areas=areas)

    def boundary(_: SimulatedTarget, area: Area, address: int) -> int:
        unit = huge if area.start == AT else PAGE
        return -(-address // unit) * unit

    monkeypatch.setattr(SimulatedTarget, "boundary", boundary)
    inside = AT + huge + 3 * WINDOW
    known = {inside: 30, inside + WINDOW: 30, small + 5 * WINDOW: 50, small + 7 * WINDOW: 40}
    report = hot_first(backend, guidance=guidance({100: known}))
    assert report.outcome is Outcome.COMPLETE
    hot = [(AT + huge, huge), (small + 5 * WINDOW, WINDOW), (small + 7 * WINDOW, WINDOW)]
    assert moved[:3] == hot


def test_a_window_is_not_larger_than_the_page_there() -> None:
    """Pages of 32 MiB are possible; there is one of 8 MiB, the last of these."""
    folio = 4 * WINDOW

    def boundary(address: int) -> int:
        return -(-address // folio) * folio if 3 * folio < address < 4 * folio else address

    span = heat._Span(100, 0, 32 * WINDOW, 0, False, 16 * WINDOW, boundary)
    for address in range(3 * folio, 4 * folio, WINDOW):
        assert span.window(address) == (3 * folio, 4 * folio)
    assert span.window(2 * WINDOW + PAGE) == (2 * WINDOW, 3 * WINDOW)


def test_without_the_right_to_see_pages_a_window_is_as_large_as_one_can_be(
    moved: list[tuple[int, int]],
) -> None:
    backend = SimulatedBackend(page_sizes=PageSizes(base=PAGE, folio=4 * WINDOW))
    backend.add_process(100, areas=[SimulatedArea(start=AT, nodes=[0] * 8 * PAGES)])
    hot_first(backend, guidance=guidance({100: {AT + 5 * WINDOW: 1}}))
    assert moved[0] == (AT + 4 * WINDOW, 4 * WINDOW)


def test_the_hottest_of_all_processes_come_first(moved: list[tuple[int, int]]) -> None:
    backend = host([0] * PAGES, pid=100)
    backend.add_process(101, areas=[SimulatedArea(start=AT + FAR, nodes=[0] * PAGES)])
    known = {100: {AT: 10}, 101: {AT + FAR: 100}, 999: {AT: 5000}}
    hot_first(backend, pids=(100, 101), guidance=guidance(known))
    assert [start for start, _ in moved] == [AT + FAR, AT]


def test_without_a_source_the_largest_areas_come_first(moved: list[tuple[int, int]]) -> None:
    report = hot_first(host([0] * 3, [0] * 300, [1], [0] * 30))
    assert [start for start, _ in moved] == [AT + FAR, AT + 3 * FAR, AT]
    (note,) = report.notes
    assert note.startswith("which pages are used most is not known")


def test_the_steps_of_a_map_have_one_note() -> None:
    report = hot_first(host([0] * 30 + [1] * 10), node_map="0:1,1:2")
    assert report.outcome is Outcome.COMPLETE
    assert [note.startswith("which pages are used") for note in report.notes] == [True]


def test_a_hot_page_that_is_busy_is_tried_again_before_others(moved: list[tuple[int, int]]) -> None:
    backend = host([0] * 3 * PAGES)
    backend.fail(100, AT + 2 * WINDOW, [errno.EBUSY] * 2)
    report = hot_first(backend, guidance=guidance({100: {AT + 2 * WINDOW: 9, AT: 1}}))
    assert report.outcome is Outcome.COMPLETE
    hot = AT + 2 * WINDOW
    assert moved[:3] == [(hot, WINDOW - PAGE), (hot, PAGE), (AT, WINDOW)]


def test_a_page_that_fails_is_tried_again_with_the_rest() -> None:
    backend = host([0] * 2 * PAGES)
    backend.fail(100, AT + WINDOW, [errno.EBUSY] * 3)
    backend.fail(100, AT + WINDOW + PAGE, always=errno.EBUSY)
    report = hot_first(backend, guidance=guidance({100: {AT + WINDOW: 9}}))
    assert (report.outcome, report.left_by_reason) == (Outcome.PARTIAL, {"EBUSY": PAGE})
    assert residency(backend) == {0: 1, 2: 2 * PAGES - 1}


def test_nodes_that_exchange_their_memory_do_so_as_ever() -> None:
    backend = host([0] * 30 + [1] * 10)
    known = guidance({100: {AT: 9}})
    assert hot_first(backend, node_map="0:1,1:0", guidance=known).outcome is Outcome.COMPLETE
    assert residency(backend) == {1: 30, 0: 10}


def test_damon_monitors_parts_of_the_areas(
    monkeypatch: pytest.MonkeyPatch, moved: list[tuple[int, int]]
) -> None:
    asked = dict[int, list[tuple[int, int]]]()

    def count(ranges: Mapping[int, Sequence[tuple[int, int]]], _root: object) -> damon.Counts:
        asked.update({pid: list(its) for pid, its in ranges.items()})
        return {
            pid: [(start, end, 200 if start == AT + 2 * WINDOW else 20) for start, end in its]
            for pid, its in ranges.items()
        }

    monkeypatch.setattr(heat, "count_accesses", count)
    monkeypatch.setattr(SimulatedBackend, "is_simulation", property(lambda _: False))
    report = hot_first(host([0] * 4 * PAGES, [0] * 3, [1] * 9))
    assert (report.outcome, report.notes) == (Outcome.COMPLETE, ())
    windows = [(AT + n * WINDOW, AT + (n + 1) * WINDOW) for n in range(4)]
    assert asked == {100: [*windows, (AT + FAR, AT + FAR + 3 * PAGE)]}
    assert moved[0] == (AT + 2 * WINDOW, WINDOW)


@pytest.mark.parametrize(
    ("sizes", "least"),
    [([3 << 40], 900), ([9 << 20] * 600, 500), ([5 << 40, *[8 << 20] * 200], 600)],
    ids=["one", "many", "one and many"],
)
def test_the_ranges_for_damon_are_bounded(
    monkeypatch: pytest.MonkeyPatch, sizes: list[int], least: int
) -> None:
    asked = []

    def count(ranges: Mapping[int, Sequence[tuple[int, int]]], _root: object) -> damon.Counts:
        asked.append(sum(map(len, ranges.values())))
        return {pid: [(*bounds, 1) for bounds in its] for pid, its in ranges.items()}

    monkeypatch.setattr(heat, "count_accesses", count)
    spans = [
        heat._Span(100, index << 45, (index << 45) + size, size, False, WINDOW, lambda at: at)
        for index, size in enumerate(sizes)
    ]
    work = SimpleNamespace(is_simulation=False, root=Path("/"))
    heat._by_damon(spans, work)  # type: ignore[arg-type]
    assert least <= asked[0] <= damon.MOST_RANGES
