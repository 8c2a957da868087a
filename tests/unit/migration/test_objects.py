"""Pages of shared-memory objects that no process maps, on a simulated host.

The object's pages are those of a simulated process that no request names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import pytest

from schedhook.backends.simulated import PAGE, SimulatedArea, SimulatedBackend
from schedhook.migration.move import Move
from schedhook.roles.backend import Limits, PageRun, SharedObject, Sweep, Target
from schedhook.values.errors import (
    BackendError,
    NoPermissionError,
    ProcessGoneError,
    SchedhookError,
)
from schedhook.values.extents import Extents
from schedhook.values.model import Area, MemoryKind, Outcome, Report
from schedhook.values.objects import ObjectId, ObjectKind
from tests.unit.relocation.simulation import AT, STRATEGIES, residency, run

JOB, OBJECT = 100, 999
MIB = 1 << 20
NOWHERE = 1 << 24
"""No process of this host: numbers are smaller."""


class FakeObject(SharedObject):
    """An object of which process OBJECT has the pages that no process maps."""

    def __init__(self, pages: Target, pids: Sequence[int]) -> None:
        self._pages = pages
        self._pids = pids
        self.mapped = 0
        """Bytes that processes map."""
        self.error: SchedhookError | None = None
        self.readings = 0

    object_id = ObjectId("0:1", 7, ObjectKind.MEMFD)
    name = "/memfd:object (deleted)"
    span = 64 * PAGE

    @property
    def pids(self) -> Sequence[int]:
        return self._pids

    def alive(self) -> bool:
        return self._pages.alive()

    def allocated(self) -> int:
        if self.error:
            raise self.error
        return self.mapped + sum(area.resident for area in self._pages.areas())

    def areas(self) -> tuple[Area, ...]:
        self.readings += 1
        return tuple(
            replace(area, kind=MemoryKind.SHMEM, is_shared=True, object_id=self.object_id, offset=0)
            for area in self._pages.areas()
        )

    def locate(self, area: Area, start: int, end: int) -> Sequence[PageRun]:
        return self._pages.locate(area, start, end)

    def sweep(
        self,
        area: Area,
        start: int,
        end: int,
        destinations: Mapping[int, int],
        *,
        shared: bool,
        limits: Limits,
        only: Extents | None = None,
    ) -> Sweep:
        return self._pages.sweep(
            area, start, end, destinations, shared=shared, limits=limits, only=only
        )


class Host(SimulatedBackend):
    """A host with a process and an object that it maps."""

    def __init__(self, pid: int = JOB) -> None:
        super().__init__()
        self.add_process(pid, areas=[SimulatedArea(start=AT, nodes=[0] * 8)])
        self.add_process(OBJECT, areas=[SimulatedArea(start=AT, nodes=[0, 0, 0, 1])])
        self.object = FakeObject(self.attach(OBJECT), [pid])

    def shared_objects(self, targets: Iterable[Target]) -> Sequence[SharedObject]:
        there = {target.pid for target in targets}
        return [self.object] if there.intersection(self.object.pids) else []


def only_process(report: Report) -> tuple[int, int]:
    """Return the bytes that the report's only process has moved and left."""
    (process,) = report.processes
    return process.bytes_moved, process.bytes_left


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("node_map", ["0:2", "0:2,2:0"])
def test_objects_move_and_count_with_the_process(strategy: str, node_map: str) -> None:
    host = Host()
    plan = run(host, node_map=node_map, strategy=strategy, dry_run=True)
    assert plan.bytes_planned == 11 * PAGE
    report = run(host, node_map=node_map, strategy=strategy)
    assert report.outcome is Outcome.COMPLETE
    assert (report.bytes_planned, report.bytes_left) == (11 * PAGE, 0)
    assert only_process(report) == (11 * PAGE, 0)
    assert report.processes[0].residency_before == {0: 11 * PAGE, 1: PAGE}
    assert report.processes[0].residency_after == {2: 11 * PAGE, 1: PAGE}
    assert residency(host, OBJECT) == {2: 3, 1: 1}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_objects_move_in_each_step_of_a_map_and_count_once(strategy: str) -> None:
    host = Host()
    report = run(host, node_map="0:1,1:2", strategy=strategy)
    assert report.outcome is Outcome.COMPLETE
    assert only_process(report) == (12 * PAGE, 0)
    assert report.processes[0].residency_after == {1: 11 * PAGE, 2: PAGE}
    assert residency(host, OBJECT) == {1: 3, 2: 1}


def test_pages_that_the_kernel_moved_along_are_counted() -> None:
    """As with a huge page of which the process maps a part."""
    host = Host()

    def move(work: Move) -> None:
        host.attach(OBJECT).migrate(work.node_map.sources, work.node_map.destinations)
        work.sweep()

    report = run(host, node_map="0:2", strategies={"along": move}, strategy="along")
    assert (report.outcome, report.bytes_moved) == (Outcome.COMPLETE, 11 * PAGE)


def test_an_object_that_a_process_maps_whole_is_not_read() -> None:
    """Also if it maps a part of it twice."""
    host = Host()
    parts = [SimulatedArea(start=AT + n * MIB, nodes=[0] * 4, name="object") for n in (0, 1)]
    host.add_process(JOB, areas=parts)
    found = host.attach(JOB).areas()[0].object_id
    assert found
    host.object.object_id = found
    host.object.mapped = PAGE
    run(host, node_map="0:2")
    assert host.object.readings
    host.object.readings, host.object.mapped = 0, 0
    run(host, node_map="2:0")
    assert host.object.readings == 0


def test_kinds_that_the_request_leaves_alone() -> None:
    host = Host()
    report = run(host, node_map="0:2", kinds=frozenset({MemoryKind.ANON}))
    assert (report.outcome, report.bytes_moved) == (Outcome.COMPLETE, 8 * PAGE)
    assert report.kept == {"shmem": 3 * PAGE}


def test_objects_are_left_if_leftovers_are_only_reported() -> None:
    host = Host()
    report = run(host, node_map="0:2", strategy="migrate-process", sweep_leftovers=False)
    assert report.outcome is Outcome.PARTIAL
    assert report.left_by_reason == {"skipped": 3 * PAGE}


def test_an_object_that_may_not_be_opened() -> None:
    """No cgroup tells how much of it there is."""
    host = Host(pid=NOWHERE)
    host.object.error = NoPermissionError("not permitted; run as root")
    report = run(host, pids=(NOWHERE,), node_map="0:2")
    assert report.outcome is Outcome.PARTIAL
    assert report.left_by_reason == {"unmapped": 64 * PAGE}
    assert only_process(report) == (8 * PAGE, 64 * PAGE)
    (note,) = [note for note in report.notes if "no process maps" in note]
    assert note.endswith("not permitted; run as root")


def test_an_object_that_is_larger_than_its_mapping_and_cannot_be_mapped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    host = Host(pid=NOWHERE)
    monkeypatch.setattr(host.object, "span", PAGE)
    monkeypatch.setattr(host.object, "areas", refuse)
    report = run(host, pids=(NOWHERE,), node_map="0:2")
    assert report.left_by_reason == {"unmapped": 4 * PAGE}


def refuse() -> tuple[Area, ...]:
    raise BackendError("cannot map it")


def test_an_object_that_ends_meanwhile() -> None:
    host = Host()

    def move(work: Move) -> None:
        host.end_process(OBJECT)
        work.sweep()

    report = run(host, node_map="0:2", strategies={"late": move}, strategy="late")
    assert (report.outcome, report.bytes_moved) == (Outcome.COMPLETE, 8 * PAGE)


def test_an_object_ends_before_it_is_read() -> None:
    host = Host()
    host.object.error = ProcessGoneError("no process maps it")
    report = run(host, node_map="0:2")
    assert (report.outcome, report.bytes_moved) == (Outcome.COMPLETE, 8 * PAGE)
