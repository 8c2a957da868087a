"""Address spaces that two processes share, and areas that are read again."""

from __future__ import annotations

import pytest

from schedhook.backends.simulated import PAGE
from schedhook.migration.move import Move
from schedhook.migration.selection import Selected
from schedhook.migration.view import _pair
from schedhook.values.model import Area, MemoryKind, Outcome
from tests.unit.relocation.simulation import STRATEGIES, host, residency, run


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("node_map", ["0:2", "0:2,2:0"])
def test_memory_that_two_processes_use_moves_once(strategy: str, node_map: str) -> None:
    """Such are a parent and its child of vfork(2), until the child runs a program."""
    backend = host([0] * 8)
    backend.add_process(101, memory_owner_pid=100)
    report = run(backend, pids=(101, 100), node_map=node_map, strategy=strategy)
    assert report.outcome is Outcome.COMPLETE
    assert residency(backend) == {2: 8}
    assert {each.pid: each.bytes_moved for each in report.processes} == {100: 8 * PAGE, 101: 0}
    assert any("101 has no memory of its own" in note for note in report.notes)


def test_memory_whose_owner_exits_is_counted_with_the_other_process() -> None:
    backend = host([0] * 8)
    backend.add_process(101, memory_owner_pid=100)

    def move(work: Move) -> None:
        backend.end_process(100)
        work.sweep()

    report = run(backend, pids=(100, 101), strategies={"late": move}, strategy="late")
    assert report.outcome is Outcome.COMPLETE
    assert residency(backend, 101) == {2: 8}
    assert run(backend, pids=(101,), node_map="2:0").bytes_moved == 8 * PAGE


def test_areas_that_were_split_or_joined_since_are_found_again() -> None:
    def area(first: int, last: int) -> Area:
        return Area(
            start=first * PAGE,
            end=last * PAGE,
            kind=MemoryKind.ANON,
            page_size=PAGE,
            residency={0: PAGE},
        )

    first, second = (
        Selected(area=each, counted=each.residency, here=each.residency)
        for each in (area(2, 8), area(20, 24))
    )
    now = [area(0, 1), area(1, 4), area(6, 9), area(9, 12), area(18, 30), area(40, 41)]
    assert list(_pair([first, second], now)) == [(first, now[1]), (first, now[2]), (second, now[4])]
