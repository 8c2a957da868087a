"""Each page counts once: with frames, without them, and where nothing tells pages apart."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import pytest

from schedhook.backends.simulated import PAGE, SimulatedArea, SimulatedBackend
from schedhook.backends.simulated.target import SimulatedTarget
from schedhook.migration.census import Census, find_common, mapped_twice
from schedhook.roles.backend import Part
from schedhook.values.model import Area, MemoryKind, Outcome
from schedhook.values.objects import ObjectId
from tests.unit.relocation.simulation import AT, STRATEGIES, residency, run

OBJECT = ObjectId("0:1", 7)
MANY = 30_000


def area(
    start: int = AT,
    pages: int = 16,
    *,
    offset: int = 0,
    mappers: int = 2,
    object_id: ObjectId | None = OBJECT,
    copied: int = 0,
    kind: MemoryKind = MemoryKind.SHMEM,
) -> Area:
    return Area(
        start=start,
        end=start + pages * PAGE,
        kind=kind,
        page_size=PAGE,
        residency={0: pages * PAGE},
        is_shared=object_id is not None,
        object_id=object_id,
        offset=offset * PAGE,
        copied=copied,
        most_mappers=mappers,
    )


@pytest.fixture
def family() -> SimulatedBackend:
    """Return a host: process 100 has forked 101, which shares its heap and its segment."""
    backend = SimulatedBackend()
    segment = SimulatedArea(start=2 * AT, nodes=[0] * 6 + [1] * 2, name="segment")
    heap = SimulatedArea(start=AT, nodes=[0] * 10)
    backend.add_process(100, areas=[heap, segment], fork_after=1, child=101)
    with backend.attach(100) as target:
        target.areas()
    return backend


def without_frames(backend: SimulatedBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(backend), "page_set", lambda _: None)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_pages_that_fork_shares_move_once(family: SimulatedBackend, strategy: str) -> None:
    report = run(family, pids=(100, 101), strategy=strategy)
    assert (report.outcome, report.bytes_moved) == (Outcome.COMPLETE, 16 * PAGE)
    assert residency(family) == residency(family, 101) == {1: 2, 2: 16}
    assert [each.bytes_moved for each in report.processes] == [16 * PAGE, 0]
    assert [each.residency_before[0] for each in report.processes] == [16 * PAGE] * 2
    assert not report.notes


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_swap_of_what_fork_shares_happens_once(family: SimulatedBackend, strategy: str) -> None:
    report = run(family, pids=(100, 101), strategy=strategy, node_map="0:1,1:0")
    assert report.bytes_moved == 18 * PAGE
    assert residency(family) == {0: 2, 1: 16}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_room_is_for_physical_pages(strategy: str) -> None:
    """More than half of a node, mapped by two processes, fits on another one."""
    backend = SimulatedBackend()
    pages = (600 << 20) // PAGE
    heap = SimulatedArea(start=AT, nodes=[0] * pages)
    backend.add_process(100, areas=[heap], fork_after=1, child=101)
    with backend.attach(100) as target:
        target.areas()
    report = run(backend, pids=(100, 101), strategy=strategy)
    assert (report.outcome, report.bytes_moved) == (Outcome.COMPLETE, pages * PAGE)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_without_frames_the_numbers_are_upper_bounds(
    family: SimulatedBackend, strategy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The segment's pages are known by their offsets, those of the heap by nothing."""
    without_frames(family, monkeypatch)
    report = run(family, pids=(100, 101), strategy=strategy, dry_run=True)
    assert report.bytes_planned == (2 * 10 + 6) * PAGE
    assert any("upper bounds" in note for note in report.notes)
    assert run(family, pids=(100, 101), strategy=strategy).outcome is Outcome.COMPLETE
    assert residency(family) == {1: 2, 2: 16}


def test_nothing_is_looked_at_if_no_page_has_a_second_mapping(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Most jobs share nothing, and cost no more than one reading of numa_maps."""
    backend = SimulatedBackend()
    for pid in (100, 101):
        backend.add_process(pid, areas=[SimulatedArea(start=AT, nodes=[0] * 10)])
    for name in ("page_set", "survey"):
        owner = SimulatedBackend if name == "page_set" else SimulatedTarget
        monkeypatch.setattr(owner, name, lambda *_: pytest.fail("looked at single pages"))
    report = run(backend, pids=(100, 101))
    assert (report.outcome, report.bytes_moved) == (Outcome.COMPLETE, 20 * PAGE)


def test_one_process_alone_has_no_upper_bounds(
    family: SimulatedBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_frames(family, monkeypatch)
    report = run(family, pids=(101,))
    assert (report.bytes_moved, report.notes) == (16 * PAGE, ())


@pytest.mark.parametrize("frames", [True, False])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_one_object_that_a_process_maps_three_times(
    strategy: str, frames: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = SimulatedBackend()
    heap = [SimulatedArea(start=AT << view, nodes=[0] * 9 + [1], name="heap") for view in range(3)]
    backend.add_process(100, areas=heap)
    if not frames:
        without_frames(backend, monkeypatch)
    report = run(backend, strategy=strategy)
    assert (report.outcome, report.bytes_planned, report.bytes_moved) == (
        Outcome.COMPLETE,
        9 * PAGE,
        9 * PAGE,
    )
    assert report.processes[0].residency_before == {0: 9 * PAGE, 1: PAGE}
    assert report.processes[0].residency_after == {1: PAGE, 2: 9 * PAGE}


def test_a_swap_of_what_one_process_maps_three_times() -> None:
    backend = SimulatedBackend()
    heap = [SimulatedArea(start=AT << view, nodes=[0] * 9 + [1], name="heap") for view in range(3)]
    backend.add_process(100, areas=heap)
    report = run(backend, node_map="0:1,1:0")
    assert report.bytes_moved == 10 * PAGE
    assert residency(backend) == {0: 3, 1: 27}  # each view shows all pages


def common(*areas: Area) -> list[int]:
    """Return which of these areas of one process can have a page of another one."""
    found = find_common({1: areas})
    return [index for index, each in enumerate(areas) if (1, each.start) in found]


@pytest.mark.parametrize(
    ("areas", "expected"),
    [
        ([area(AT), area(2 * AT)], [0, 1]),
        ([area(AT), area(2 * AT, offset=15)], [0, 1]),
        ([area(AT), area(2 * AT, offset=16)], []),
        ([area(AT), area(2 * AT, mappers=1)], [0, 1]),
        ([area(AT, mappers=1), area(2 * AT, mappers=1)], []),
        ([area(AT, mappers=1), area(2 * AT, offset=16)], []),
        ([area(AT, 100), area(2 * AT, 2), area(3 * AT, 2, offset=90)], [0, 1, 2]),
        ([area(AT), area(2 * AT, object_id=ObjectId("0:1", 8))], []),
        ([area(AT, object_id=None)], [0]),
        ([area(AT, object_id=None, mappers=1)], []),
        ([area(AT, copied=PAGE)], []),
        ([area(AT, copied=PAGE), area(2 * AT, object_id=None)], [0, 1]),
        ([area(AT, mappers=1, kind=MemoryKind.HUGE)] * 2, [0, 1]),
    ],
)
def test_areas_that_may_have_pages_in_common(areas: list[Area], expected: list[int]) -> None:
    assert common(*areas) == expected


def test_areas_of_a_family_of_which_numa_maps_shows_one_mapping() -> None:
    """One has huge pages, of which it maps the first page alone, and another one maps the rest."""
    whole, parts = area(object_id=None, mappers=1), area(object_id=None)
    elsewhere = area(2 * AT, object_id=None, mappers=1)
    assert find_common({1: [whole], 2: [parts], 3: [elsewhere]}) == {(1, AT), (2, AT)}
    assert find_common({1: [whole], 2: [whole]}) == set()


def test_only_objects_are_mapped_twice_by_one_process() -> None:
    heap = area(3 * AT, object_id=None)
    assert mapped_twice([area(AT), area(2 * AT, offset=8), heap]) == {AT, 2 * AT}
    assert mapped_twice([area(AT), heap]) == set()


class _Unmapped(SimulatedBackend):
    """Holds no process, as for the files of another host."""


def counts(*areas: Area) -> list[int]:
    census = Census(_Unmapped(), lambda _: None)
    shares = [census.count(pid, each) for pid, each in enumerate(areas)]
    return [sum(share.residency.values()) // PAGE for share in shares]


def test_without_processes_one_part_of_an_object_counts_once() -> None:
    assert counts(area(AT), area(AT), area(2 * AT, 4, offset=3)) == [16, 0, 0]
    assert counts(area(AT), area(AT, 4, offset=15)) == [16, 4]
    assert counts(area(AT), area(AT, object_id=ObjectId("0:1", 8))) == [16, 16]


def test_many_mappings_of_one_object() -> None:
    """Each is compared with all that were counted, and time must not grow with their number."""
    census = Census(SimulatedBackend(), lambda _: None)
    began = time.process_time()
    for index in range(MANY):
        for part in (2 * index, 2 * (MANY - index)):
            census.count(1, area(AT + part * PAGE, 1, offset=part))
    assert time.process_time() - began < 10
    assert census.count(2, area(offset=1, pages=2)).residency == {0: 2 * PAGE}
    assert census.count(2, area(offset=MANY, pages=1)).residency == {}


def test_pages_of_an_object_are_known_by_their_offset(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three windows of one object, each with other pages present."""
    backend = SimulatedBackend()
    without_frames(backend, monkeypatch)

    def pages(*present: int) -> list[int | None]:
        return [0 if page in present else None for page in range(8)]

    layouts: Sequence[list[int | None]] = [pages(0, 1, 2, 6), pages(1, 2, 3), pages(2, 3, 4, 6, 7)]
    for pid, layout in enumerate(layouts):
        backend.add_process(pid, areas=[SimulatedArea(start=AT, nodes=layout)])
    targets = [backend.attach(pid) for pid in range(3)]
    census = Census(backend, lambda pid: targets[pid])
    shares = [
        census.count(pid, replace(area(AT, 8), residency={0: 8 * PAGE - layout.count(None) * PAGE}))
        for pid, layout in enumerate(layouts)
    ]
    assert [[(start - AT) // PAGE for start, _ in share.only or ()] for share in shares] == [
        [0, 6],
        [3],
        [4, 7],
    ]
    assert [share.residency for share in shares] == [{0: 4 * PAGE}, {0: PAGE}, {0: 2 * PAGE}]
    assert census.is_exact


def test_a_process_that_has_exited_has_no_pages(family: SimulatedBackend) -> None:
    target = family.attach(101)
    (heap, _) = target.areas()
    family.end_process(101)
    census = Census(family, lambda _: target)
    for share in (census.count(101, heap), census.count_alone(101, heap, Part.ALL)):
        assert share is not None
        assert share.only is not None
        assert (share.residency, len(share.only)) == ({}, 0)
