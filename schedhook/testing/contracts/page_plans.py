"""Moving each page to the node that a function chose for it, on two nodes or more."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from schedhook.migration.move import Move, MoveOptions, MovingProcess
from schedhook.migration.retry import RetryPolicy
from schedhook.migration.selection import Selection
from schedhook.roles.backend import Backend, Target
from schedhook.roles.strategy import PageChoice, Pages
from schedhook.testing.contracts.one_node import PAGES, OneNodeContract, Subject, area_of
from schedhook.values.model import MemoryKind, NodeMap
from schedhook.values.reasons import Reason
from schedhook.values.sets import NodeSet


class PagePlanContract(OneNodeContract):
    """For every backend: the plan asks about each page once, and each page moves as chosen."""

    nodes = (0, 1)

    def test_each_page_is_placed_as_chosen(self, backend: Backend) -> None:
        one, two = self.nodes[:2]
        layout = [one] * 40 + [None] * 4 + [two] * 20
        with (
            self.make_process(backend, nodes=layout) as subject,
            backend.attach(subject.pid) as target,
        ):
            asked: list[Pages] = []

            def change_every_third(pages: Pages) -> list[int | None]:
                if pages.start < subject.start or pages.end > subject.end:
                    return [None] * len(pages.addresses)
                asked.append(pages)
                other = {one: two, two: one}[pages.node]
                return [_every_third(subject, each, other) for each in pages.addresses]

            move = make_page_move(backend, target, self.nodes)
            move.plan_pages(change_every_third)
            planned, unit = move.processes[0].page_plan, subject.unit
            assert planned
            assert planned.moves == {(one, two): 14 * unit, (two, one): 7 * unit}
            assert subject.residency() == {one: 40 * unit, two: 20 * unit}
            addresses = [address for pages in asked for address in pages.addresses]
            assert addresses == [
                subject.start + index * unit
                for index, node in enumerate(layout)
                if node is not None
            ]
            assert {pages.page_size for pages in asked} == {unit}
            assert bytes_astray(move) == 21 * unit

            move.carry_out()
            assert move.processes[0].moved == {(one, two): 14 * unit, (two, one): 7 * unit}
            assert not move.processes[0].left
            assert bytes_astray(move) == 0
            for index, node in enumerate(layout):
                if node is None:
                    continue
                at = subject.start + index * unit
                (run,) = target.locate(area_of(target, subject), at, at + unit)
                assert run.node == (node if index % 3 else {one: two, two: one}[node]), index

    def test_a_placed_page_that_is_held_has_its_reason(self, backend: Backend) -> None:
        old, new = self.nodes[:2]
        with (
            self.make_process(backend, nodes=[old] * PAGES) as subject,
            backend.attach(subject.pid) as target,
        ):
            subject.hold(20)
            move = make_page_move(backend, target, self.nodes)
            move.plan_pages(_all_of(subject, new))
            move.carry_out()
            (process,) = move.processes
            assert process.moved == {(old, new): (PAGES - 1) * subject.unit}
            assert process.left == {Reason.BUSY: subject.unit}
            assert bytes_astray(move) == subject.unit
            subject.release()
            move.carry_out()
            assert process.moved == {(old, new): PAGES * subject.unit}
            assert not process.left
            assert bytes_astray(move) == 0

    @pytest.mark.parametrize("kind", ["folios", "huge"])
    def test_a_huge_page_is_placed_as_one(self, backend: Backend, kind: str) -> None:
        old, new = self.nodes[:2]
        with (
            self.make_process(
                backend, nodes=[old] * 4, folios=kind == "folios", huge=kind == "huge"
            ) as subject,
            backend.attach(subject.pid) as target,
        ):
            half, unit = subject.start + 2 * subject.unit, subject.unit

            def second_half(pages: Pages) -> list[int | None]:
                assert pages.page_size <= unit  # base pages if the backend cannot tell huge pages
                inside = range(half, subject.end)
                return [new if address in inside else None for address in pages.addresses]

            move = make_page_move(backend, target, self.nodes)
            move.plan_pages(second_half)
            move.carry_out()
            assert not move.processes[0].left
            assert bytes_astray(move) == 0
            assert subject.residency() == {old: 2 * unit, new: 2 * unit}

    def test_shared_memory_is_placed_once(self, backend: Backend) -> None:
        old, new = self.nodes[:2]
        layout = [old] * 16
        with (
            self.make_process(backend, nodes=layout, shared=True) as first,
            self.make_process(backend, nodes=layout, share_with=first) as second,
            backend.attach(first.pid) as one,
            backend.attach(second.pid) as two,
        ):
            asked: dict[int, Pages] = {}

            def all_of_it(pages: Pages) -> int | None:
                if not first.start <= pages.start < first.end:
                    return None
                asked[pages.pid] = pages
                return new

            move = make_page_move(backend, one, self.nodes, two)
            move.plan_pages(all_of_it)
            ((pid, pages),) = asked.items()
            (other,) = {first.pid, second.pid} - {pid}
            assert list(pages.aliases) == [(other, 0)]
            move.carry_out()
            assert first.residency() == second.residency() == {new: first.end - first.start}


def _every_third(subject: Subject, address: int, node: int) -> int | None:
    return None if (address - subject.start) // subject.unit % 3 else node


def _all_of(subject: Subject, node: int) -> PageChoice:
    return lambda pages: node if subject.start <= pages.start < subject.end else None


def make_page_move(backend: Backend, target: Target, nodes: Sequence[int], *more: Target) -> Move:
    """Return a Move of these processes over all nodes, for a page plan, with one attempt."""
    return Move(
        backend=backend,
        node_map=NodeMap(pairs={}),
        processes=[MovingProcess(target=each) for each in (target, *more)],
        selection=Selection(kinds=frozenset(set(MemoryKind) - {MemoryKind.FILE})),
        options=MoveOptions(retry=RetryPolicy(attempts=1)),
        sources=NodeSet(nodes),
    )


def bytes_astray(move: Move) -> int:
    """Return the planned bytes of the first process that are not on their new node."""
    process = move.processes[0]
    assert process.page_plan
    return process.page_plan.bytes_astray(process.target)
