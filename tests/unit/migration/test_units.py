"""Node maps whose old and new nodes overlap, and any others; calls for many areas."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schedhook.backends.simulated import PAGE, SimulatedArea, SimulatedBackend
from schedhook.migration import runs, units
from schedhook.migration.processes import MovingProcess
from schedhook.migration.selection import ProcessSelection, Selected
from schedhook.migration.units import map_units
from schedhook.values.extents import Extents
from schedhook.values.model import Area, MemoryKind, NodeMap, Outcome
from schedhook.values.nodemap import parse_map
from tests.unit.relocation.simulation import AT, QUICK, STRATEGIES, host, residency, run


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_swap_is_a_swap(strategy: str) -> None:
    backend = host([0] * 30 + [1] * 10, [1, 0] * 6)
    report = run(backend, strategy=strategy, node_map="0:1,1:0")
    assert report.outcome is Outcome.COMPLETE
    assert residency(backend) == {1: 36, 0: 16}
    assert bool(report.notes) == (strategy == "migrate-process")


def test_a_swap_of_shared_memory_happens_once() -> None:
    backend = SimulatedBackend()
    for pid in (100, 101):
        backend.add_process(
            pid, areas=[SimulatedArea(start=AT, nodes=[0] * 9 + [1] * 4, name="segment")]
        )
    report = run(backend, pids=(100, 101), node_map="0:1,1:0")
    assert report.outcome is Outcome.COMPLETE
    assert residency(backend) == {1: 9, 0: 4}


@given(
    pages=st.lists(st.sampled_from([None, 0, 1, 2, 3]), min_size=1, max_size=60),
    targets=st.lists(st.integers(0, 3), min_size=4, max_size=4),
    failing=st.dictionaries(st.integers(0, 59), st.lists(st.just(errno.EBUSY), max_size=4)),
    strategy=st.sampled_from(STRATEGIES),
)
@settings(max_examples=150)
def test_any_map_moves_every_page_as_it_says(
    pages: list[int | None], targets: list[int], failing: dict[int, list[int]], strategy: str
) -> None:
    backend = host(pages)
    stubborn = 0
    for index, errnos in failing.items():
        if index < len(pages) and pages[index] is not None:
            backend.fail(100, AT + index * PAGE, errnos)
            stubborn += (
                len(errnos) >= QUICK.retry.attempts and targets[pages[index]] != pages[index]
            )
    report = run(
        backend, strategy=strategy, node_map=",".join(f"{o}:{n}" for o, n in enumerate(targets))
    )
    with backend.attach(100) as target:
        (area,) = target.areas() or (None,)
        where = {
            run.start + offset: run.node
            for run in (target.locate(area, area.start, area.end) if area else ())
            for offset in range(0, run.end - run.start, PAGE)
        }
    wrong = [
        index
        for index, node in enumerate(pages)
        if node is not None and where[AT + index * PAGE] != targets[node]
    ]
    assert len(wrong) * PAGE == report.bytes_left
    if strategy == "move-pages":
        assert len(wrong) == stubborn
    assert (report.outcome is Outcome.PARTIAL) == bool(wrong)


@pytest.mark.parametrize("node_map", ["0:2", "0:2,2:0", "0:2,1:3", "0:1,1:0,2:3"])
def test_one_call_moves_pages_of_many_areas(node_map: str, sweeps: list[tuple[int, int]]) -> None:
    backend = host(*[[0], [2, 0], [1]] * 100)
    report = run(backend, node_map=node_map)
    moves = parse_map(node_map)
    assert report.outcome is Outcome.COMPLETE
    expected: dict[int, int] = {}
    for old, count in {0: 200, 1: 100, 2: 100}.items():
        new = moves.pairs.get(old, old)
        expected[new] = expected.get(new, 0) + count
    assert residency(backend) == expected
    assert len(sweeps) <= len(moves.pairs)


@given(
    parts=st.sets(st.integers(0, 60_000), min_size=1, max_size=200),
    unit_pages=st.sampled_from([1, 7, 8192]),
)
@settings(max_examples=50)
def test_units_of_joined_areas_have_each_page_once(parts: set[int], unit_pages: int) -> None:
    areas = [joined_area(AT, parts), joined_area(AT + (1 << 30), parts)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "UNIT_BYTES", unit_pages * PAGE)
        patch.setattr(units, "UNIT_BYTES", unit_pages * PAGE)
        found = list(map_units([moving(*areas)], NodeMap(pairs={0: 2})))
    pages = [
        (first, last) for unit in found for first, last in unit.only or [(unit.start, unit.end)]
    ]
    assert all(last <= first for (_, last), (first, _) in pairwise(pages))
    assert list(Extents(pages)) == [bounds for area in areas for bounds in area.ranges]
    assert sum(unit.size for unit in found) <= sum(area.resident for area in areas)


def test_joined_areas_are_not_looked_at_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    process = moving(joined_area(AT, range(0, 60_000, 2)))
    added, add = list[int](), Extents.add

    def counted(self: Extents, start: int, end: int) -> None:
        added.append(start)
        add(self, start, end)

    monkeypatch.setattr(Extents, "add", counted)
    monkeypatch.setattr(Extents, "within", lambda *_: pytest.fail("range by range"))
    sizes = [
        unit.only.overlap(unit.start, unit.end)
        for unit in map_units([process], NodeMap(pairs={0: 2}))
        if unit.only
    ]
    assert sum(sizes) == 30_000 * PAGE
    assert len(added) < 10


def joined_area(start: int, pages: Iterable[int]) -> Area:
    """Return an area of the pages with these numbers, all on node 0."""
    parts = Extents((start + page * PAGE, start + (page + 1) * PAGE) for page in sorted(pages))
    *_, (_, end) = parts
    return Area(
        start=next(iter(parts))[0],
        end=end,
        kind=MemoryKind.ANON,
        page_size=PAGE,
        residency={0: parts.size},
        parts=parts,
    )


def moving(*areas: Area) -> MovingProcess:
    """Return a process of which these areas are selected."""
    selected = tuple(
        Selected(area=area, counted=area.residency, here=area.residency) for area in areas
    )
    target = host([0]).attach(100)
    return MovingProcess(target=target, selection=ProcessSelection(selected=selected))


def test_a_page_plan_takes_one_call_for_many_areas(sweeps: list[tuple[int, int]]) -> None:
    backend = host(*[[0, 0, 1]] * 100)
    report = run(backend, choose=lambda pages: [2, None][: len(pages.addresses)])
    assert (report.outcome, report.bytes_moved) == (Outcome.COMPLETE, 100 * PAGE)
    assert residency(backend) == {0: 100, 1: 100, 2: 100}
    assert len(sweeps) == 1


def test_only_what_failed_is_tried_again(sweeps: list[tuple[int, int]]) -> None:
    backend = host(*[[0]] * 100)
    at = AT + 50 * (1 << 30)
    backend.fail(100, at, [errno.EBUSY])
    report = run(backend)
    assert (report.outcome, report.attempts) == (Outcome.COMPLETE, 2)
    assert sweeps[1:] == [(at, at + PAGE)]


def test_a_call_does_not_mix_page_sizes(sweeps: list[tuple[int, int]]) -> None:
    backend = SimulatedBackend()
    sizes = [PAGE, 16 * PAGE] * 20
    areas = [
        SimulatedArea(start=AT + index * (1 << 30), nodes=[0], page_size=size)
        for index, size in enumerate(sizes)
    ]
    backend.add_process(100, areas=areas)
    assert run(backend).bytes_moved == sum(sizes)
    assert len(sweeps) == 2


def test_memory_of_two_processes_is_not_mixed(sweeps: list[tuple[int, int]]) -> None:
    backend = host(*[[0]] * 50)
    areas = [SimulatedArea(start=AT + index * (1 << 30), nodes=[0]) for index in range(50)]
    backend.add_process(101, areas=areas)
    report = run(backend, pids=(100, 101))
    assert {each.pid: each.bytes_moved for each in report.processes} == dict.fromkeys(
        (100, 101), 50 * PAGE
    )
    assert len(sweeps) == 2
