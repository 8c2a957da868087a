"""What every strategy, mapper and scheduler adapter must do, as tests for their authors.

    class TestLargestFirst(StrategyContract):
        plugin = my_package.plugin
        name = "largest-first"

Backends have a contract of their own, `schedhook.testing.BackendContract`.
"""

from __future__ import annotations

import errno
from abc import ABC
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from schedhook.backends.simulated import PAGE, SimulatedArea, SimulatedBackend
from schedhook.host.topology import Node, Topology
from schedhook.plugins.manager import Plugins
from schedhook.roles.scheduler import Scheduler
from schedhook.testing.hosts import FakeNode, write_cgroup_mounts, write_host
from schedhook.testing.relocations import load_given, relocate_simulated
from schedhook.values.errors import UsageError
from schedhook.values.model import Event, NodeMap, Outcome, Report
from schedhook.values.sets import NodeSet

_AT = 0x7F0000000000
_PID = 100


class PluginContract(ABC):
    """`plugin` is the module, or object, with hooks; `name` what it is chosen by."""

    plugin: object
    name: str

    def loaded(self) -> Plugins:
        return load_given(self.plugin)


class StrategyContract(PluginContract):
    """For a strategy that moves all that it is asked to move, over the simulated backend."""

    def relocate(self, backend: SimulatedBackend, node_map: str = "0:2", **request: Any) -> Report:
        return relocate_simulated(
            backend, self.plugin, node_map=node_map, strategy=self.name, **request
        )

    def test_it_is_found_by_its_name(self) -> None:
        assert self.loaded().strategy(self.name).summary

    def test_memory_of_old_nodes_moves_and_no_other(self) -> None:
        backend = _host([0] * 50 + [1] * 7, [3, 0, None, 0])
        report = self.relocate(backend)
        assert report.outcome is Outcome.COMPLETE
        assert _pages(backend) == {1: 7, 2: 52, 3: 1}

    def test_every_process_moves(self) -> None:
        backend = _host([0] * 5)
        backend.add_process(101, areas=[SimulatedArea(start=_AT, nodes=[0] * 9)])
        assert self.relocate(backend).outcome is Outcome.COMPLETE
        assert (_pages(backend), _pages(backend, 101)) == ({2: 5}, {2: 9})

    def test_nodes_change_places(self) -> None:
        backend = _host([0] * 30 + [1] * 10, [1, 0] * 6)
        assert self.relocate(backend, "0:1,1:0").outcome is Outcome.COMPLETE
        assert _pages(backend) == {0: 16, 1: 36}

    def test_memory_of_several_processes_moves_once(self) -> None:
        backend = SimulatedBackend()
        for pid in (_PID, 101):
            area = SimulatedArea(start=_AT, nodes=[0] * 9 + [1] * 4, name="segment")
            backend.add_process(pid, areas=[area])
        report = self.relocate(backend, "0:1,1:0")
        assert (report.outcome, report.bytes_moved) == (Outcome.COMPLETE, 13 * PAGE)
        assert _pages(backend) == {0: 4, 1: 9}

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
        assert _pages(backend) == {0: 1, 2: 9}

    def test_a_dry_run_moves_nothing(self) -> None:
        backend = _host([0] * 10)
        assert self.relocate(backend, dry_run=True).outcome is Outcome.PLANNED
        assert _pages(backend) == {0: 10}

    def test_nothing_there_is_nothing_to_do(self) -> None:
        assert self.relocate(_host([1] * 5)).outcome is Outcome.NOTHING_TO_DO

    def test_a_process_may_exit_at_any_call(self) -> None:
        for call in range(1, 8):
            backend = SimulatedBackend()
            area = SimulatedArea(start=_AT, nodes=[0] * 10)
            backend.add_process(_PID, areas=[area], exit_after=call)
            backend.add_process(101, areas=[area])
            report = self.relocate(backend)
            assert report.outcome is Outcome.COMPLETE, report.notes
            assert _pages(backend, 101) == {2: 10}


class MapperContract(PluginContract):
    """For every mapper: what the pipeline relies on."""

    def map(self, old: str, new: str) -> NodeMap:
        topology = Topology(
            nodes={
                number: Node(number=number, distances={number: 10}) for number in (*range(9), 63)
            }
        )
        mapper = self.loaded().mapper(self.name)
        return mapper.map(NodeSet.parse(old), NodeSet.parse(new), topology)

    def test_it_is_found_by_its_name(self) -> None:
        assert self.loaded().mapper(self.name).summary

    @pytest.mark.parametrize(
        ("old", "new"),
        [("0", "1"), ("0-1", "2-3"), ("0-3", "2"), ("1", "4-7"), ("0-3", "2-5"), ("3,63", "0,5")],
    )
    def test_every_old_node_leads_to_a_new_one_or_stays(self, old: str, new: str) -> None:
        pairs = self.map(old, new).pairs
        assert NodeSet(pairs) >= NodeSet.parse(old)
        for source, destination in pairs.items():
            assert destination in NodeSet.parse(new) or destination == source

    def test_the_same_question_has_the_same_answer(self) -> None:
        assert self.map("0-3", "2-5").pairs == self.map("0-3", "2-5").pairs

    @pytest.mark.parametrize(("old", "new"), [("", "1"), ("1", "")])
    def test_an_empty_set_is_an_error(self, old: str, new: str) -> None:
        with pytest.raises(UsageError):
            self.map(old, new)


class SchedulerContract(PluginContract):
    """For every adapter: what it says of jobs that are not there, and of events that make no
    sense. That it finds real jobs only its author can test."""

    @pytest.fixture
    def scheduler(self, tmp_path: Path) -> Scheduler:
        write_host(tmp_path, [FakeNode(number=number, cpus=str(number)) for number in range(2)])
        write_cgroup_mounts(tmp_path)
        return self.loaded().scheduler(self.name).create(tmp_path)

    def test_it_says_its_name(self, scheduler: Scheduler) -> None:
        assert scheduler.name == self.name

    def test_an_unknown_job_has_nothing_here(self, scheduler: Scheduler) -> None:
        assert scheduler.tasks("987654321") == ()
        assert scheduler.cgroups("987654321") == ()

    @pytest.mark.parametrize("data", [b"", b"\xff\0", b"{", b"[]", b'{"job": 7}'])
    def test_an_event_is_read_or_refused(self, scheduler: Scheduler, data: bytes) -> None:
        try:
            event = scheduler.read_event("no-such-point", {"X": "y"}, data)
        except UsageError as error:
            assert "\n" not in str(error)
        else:
            assert isinstance(event, Event)


def _host(*nodes_of_areas: Sequence[int | None]) -> SimulatedBackend:
    backend = SimulatedBackend()
    areas = [
        SimulatedArea(start=_AT + index * (1 << 30), nodes=nodes)
        for index, nodes in enumerate(nodes_of_areas)
    ]
    backend.add_process(_PID, areas=areas)
    return backend


def _pages(backend: SimulatedBackend, pid: int = _PID) -> dict[int, int]:
    """Pages per node, whatever the report says."""
    total: dict[int, int] = {}
    with backend.attach(pid) as target:
        for area in target.areas():
            for node, size in area.residency.items():
                total[node] = total.get(node, 0) + size // PAGE
    return {node: pages for node, pages in sorted(total.items()) if pages}
