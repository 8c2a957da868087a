"""What every strategy that chooses a node for each page must do, as tests.

    class TestInterleave(PageStrategyContract):
        plugin = my_package.plugin
        name = "interleave"

        def expected_pages(self) -> Mapping[int, int]:
            return {0: 16, 1: 16, 2: 16, 3: 16}

A contract without `expected_pages` fails: only the author knows where the pages should go.
"""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Mapping
from typing import Any

from schedhook.backends.simulated import PAGE, SimulatedArea, SimulatedBackend
from schedhook.testing.contracts.plugin import PluginContract
from schedhook.testing.contracts.strategy import pages_by_node
from schedhook.testing.relocations import relocate_simulated
from schedhook.values.model import Outcome, Report
from schedhook.values.sets import NodeSet

_HUGE = 2 << 20
_LAYOUT = [0] * 32 + [1] * 32


class PageStrategyContract(PluginContract):
    """For a strategy with `choose_nodes`, over the simulated backend.

    The host has four nodes. Process 100 has one area at `START` with 32 pages on node 0, then 32
    pages on node 1, each of 4,096 bytes.
    """

    START = 0x7F0000000000
    PID = 100

    def expected_pages(self) -> Mapping[int, int]:
        """Return pages per node after the relocation; must be overridden.

        The strategy must move at least one page, else the contract could not show anything.
        """
        raise NotImplementedError(
            f"{type(self).__name__} must define expected_pages(), which returns where the strategy"
            f" {self.name} puts the pages; see schedhook.testing.PageStrategyContract"
        )

    def request(self) -> Mapping[str, Any]:
        """Return further fields of the Request, for example `guidance`. Default: none."""
        return {}

    def relocate(self, backend: SimulatedBackend, **request: Any) -> Report:
        """Relocate on the backend with the strategy, without a node map."""
        fields = {"strategy": self.name, "node_map": None, **self.request(), **request}
        return relocate_simulated(backend, self.plugin, **fields)

    def host(self, **process: Any) -> SimulatedBackend:
        """Make the host; `process` are further arguments of `add_process`."""
        backend = SimulatedBackend()
        area = SimulatedArea(start=self.START, nodes=_LAYOUT)
        backend.add_process(self.PID, areas=[area], **process)
        return backend

    def test_it_chooses_nodes(self) -> None:
        strategy = self.loaded().strategy(self.name)
        assert strategy.choose_nodes is not None

    def test_each_page_goes_where_the_author_says(self) -> None:
        backend = self.host()
        before, expected = pages_by_node(backend, self.PID), dict(self.expected_pages())
        assert expected != before, "the strategy must move a page on the contract's host"
        report = self.relocate(backend)
        assert report.outcome is Outcome.COMPLETE, report.notes
        assert pages_by_node(backend, self.PID) == expected

    def test_a_dry_run_plans_what_the_relocation_moves(self) -> None:
        backend = self.host()
        before = pages_by_node(backend, self.PID)
        planned = self.relocate(backend, dry_run=True)
        assert planned.outcome is Outcome.PLANNED, planned.notes
        assert pages_by_node(backend, self.PID) == before
        assert planned.plan is not None
        expected = Counter(before)
        for (old, new), size in planned.plan.moves.items():
            expected[old] -= size // PAGE
            expected[new] += size // PAGE
        assert planned.bytes_planned == self.relocate(backend).bytes_moved > 0
        assert pages_by_node(backend, self.PID) == +expected

    def test_only_allowed_nodes_are_chosen(self) -> None:
        backend = self.host(allowed_nodes=NodeSet({0, 1}))
        report = self.relocate(backend)
        assert report.outcome in (Outcome.COMPLETE, Outcome.NOTHING_TO_DO), report.notes
        assert pages_by_node(backend, self.PID).keys() <= {0, 1}

    def test_pages_that_never_move_have_a_reason(self) -> None:
        backend = self.host()
        before = pages_by_node(backend, self.PID)
        for index in range(len(_LAYOUT)):
            backend.fail(self.PID, self.START + index * PAGE, always=errno.EBUSY)
        report = self.relocate(backend)
        assert report.outcome is Outcome.PARTIAL, report.notes
        assert report.left_by_reason == {"EBUSY": report.bytes_planned}
        assert pages_by_node(backend, self.PID) == before

    def test_huge_pages_are_answered_for_one_by_one(self) -> None:
        backend = SimulatedBackend()
        area = SimulatedArea(start=self.START, nodes=[0] * 4 + [1] * 4, folio_size=_HUGE)
        backend.add_process(self.PID, areas=[area])
        report = self.relocate(backend)
        assert report.outcome in (Outcome.COMPLETE, Outcome.NOTHING_TO_DO), report.notes
        assert sum(pages_by_node(backend, self.PID).values()) == 8 * _HUGE // PAGE

    def test_memory_of_two_processes_moves_once(self) -> None:
        backend = SimulatedBackend()
        for pid in (self.PID, self.PID + 1):
            area = SimulatedArea(start=self.START, nodes=_LAYOUT, name="segment")
            backend.add_process(pid, areas=[area])
        report = self.relocate(backend)
        assert report.outcome in (Outcome.COMPLETE, Outcome.NOTHING_TO_DO), report.notes
        assert report.bytes_moved <= len(_LAYOUT) * PAGE

    def test_a_process_may_exit_at_any_call(self) -> None:
        for call in range(1, 8):
            backend = self.host(exit_after=call)
            area = SimulatedArea(start=self.START, nodes=_LAYOUT)
            backend.add_process(self.PID + 1, areas=[area])
            report = self.relocate(backend)
            assert report.outcome in (Outcome.COMPLETE, Outcome.NOTHING_TO_DO), report.notes
