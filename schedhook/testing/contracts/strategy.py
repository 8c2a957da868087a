"""What every strategy that moves processes must do, as tests."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import Any

from schedhook.backends.simulated import PAGE, SimulatedArea, SimulatedBackend
from schedhook.testing.contracts.plugin import PluginContract
from schedhook.testing.relocations import relocate_simulated
from schedhook.values.model import Outcome, Report

_AT = 0x7F0000000000
_PID = 100


class StrategyContract(PluginContract):
    """For every strategy that moves all pages it is asked to move, over the simulated backend."""

    def relocate(self, backend: SimulatedBackend, node_map: str = "0:2", **request: Any) -> Report:
        return relocate_simulated(
            backend, self.plugin, node_map=node_map, strategy=self.name, **request
        )

    def test_it_has_a_summary(self) -> None:
        assert self.loaded().strategy(self.name).summary

    def test_only_memory_on_old_nodes_moves(self) -> None:
        backend = _host([0] * 50 + [1] * 7, [3, 0, None, 0])
        report = self.relocate(backend)
        assert report.outcome is Outcome.COMPLETE
        assert pages_by_node(backend) == {1: 7, 2: 52, 3: 1}

    def test_every_process_moves(self) -> None:
        backend = _host([0] * 5)
        backend.add_process(101, areas=[SimulatedArea(start=_AT, nodes=[0] * 9)])
        assert self.relocate(backend).outcome is Outcome.COMPLETE
        assert (pages_by_node(backend), pages_by_node(backend, 101)) == ({2: 5}, {2: 9})

    def test_nodes_change_places(self) -> None:
        backend = _host([0] * 30 + [1] * 10, [1, 0] * 6)
        assert self.relocate(backend, "0:1,1:0").outcome is Outcome.COMPLETE
        assert pages_by_node(backend) == {0: 16, 1: 36}

    def test_memory_of_several_processes_moves_once(self) -> None:
        backend = SimulatedBackend()
        for pid in (_PID, 101):
            area = SimulatedArea(start=_AT, nodes=[0] * 9 + [1] * 4, name="segment")
            backend.add_process(pid, areas=[area])
        report = self.relocate(backend, "0:1,1:0")
        assert (report.outcome, report.bytes_moved) == (Outcome.COMPLETE, 13 * PAGE)
        assert pages_by_node(backend) == {0: 4, 1: 9}

    def test_busy_pages_are_tried_again(self) -> None:
        backend = _host([0] * 10)
        backend.fail(_PID, _AT + 3 * PAGE, [errno.EBUSY])
        assert self.relocate(backend).outcome is Outcome.COMPLETE

    def test_pages_that_never_move_have_a_reason(self) -> None:
        backend = _host([0] * 10)
        backend.fail(_PID, _AT, always=errno.EBUSY)
        report = self.relocate(backend)
        assert report.outcome is Outcome.PARTIAL
        assert report.left_by_reason == {"EBUSY": PAGE}
        assert pages_by_node(backend) == {0: 1, 2: 9}

    def test_a_dry_run_moves_nothing(self) -> None:
        backend = _host([0] * 10)
        assert self.relocate(backend, dry_run=True).outcome is Outcome.PLANNED
        assert pages_by_node(backend) == {0: 10}

    def test_no_memory_on_old_nodes_is_nothing_to_do(self) -> None:
        assert self.relocate(_host([1] * 5)).outcome is Outcome.NOTHING_TO_DO

    def test_a_process_may_exit_at_any_call(self) -> None:
        for call in range(1, 8):
            backend = SimulatedBackend()
            area = SimulatedArea(start=_AT, nodes=[0] * 10)
            backend.add_process(_PID, areas=[area], exit_after=call)
            backend.add_process(101, areas=[area])
            report = self.relocate(backend)
            assert report.outcome is Outcome.COMPLETE, report.notes
            assert pages_by_node(backend, 101) == {2: 10}


def _host(*nodes_of_areas: Sequence[int | None]) -> SimulatedBackend:
    backend = SimulatedBackend()
    areas = [
        SimulatedArea(start=_AT + index * (1 << 30), nodes=nodes)
        for index, nodes in enumerate(nodes_of_areas)
    ]
    backend.add_process(_PID, areas=areas)
    return backend


def pages_by_node(backend: SimulatedBackend, pid: int = _PID) -> dict[int, int]:
    """Return the process's base pages per node, found without the report."""
    total: dict[int, int] = {}
    with backend.attach(pid) as target:
        for area in target.areas():
            for node, size in area.residency.items():
                total[node] = total.get(node, 0) + size // PAGE
    return {node: pages for node, pages in sorted(total.items()) if pages}
