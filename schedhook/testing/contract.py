"""What every backend must do, as tests. The author of a backend runs them too:

    class TestMine(OneNodeContract):
        def make_backend(self): ...
        def make_process(self, **how): ...

`OneNodeContract` is for hosts with a single node; `BackendContract` adds what needs two or more.
"""

from __future__ import annotations

import errno
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

import pytest

from schedhook.migration.move import Move, MoveOptions, MovingProcess
from schedhook.migration.retry import RetryPolicy
from schedhook.migration.selection import ProcessSelection, Selection
from schedhook.roles.backend import Backend, Limits, PageRun, Sweep, Target
from schedhook.roles.strategy import PageChoice, Pages
from schedhook.values.errors import BackendError, NoPermissionError, ProcessGoneError, UsageError
from schedhook.values.extents import Extents
from schedhook.values.model import Area, MemoryKind, NodeMap, Reason
from schedhook.values.sets import NodeSet

PAGES = 64
NO_NODE = 63
"""A node number that no host has that runs these tests."""


class Subject(Protocol):
    """A process that the backend can reach, with one mapping of its own, [start, end)."""

    start: int
    end: int
    unit: int
    """Bytes that move as one."""

    @property
    def pid(self) -> int: ...

    def hold(self, index: int) -> None:
        """Make moves of page `index` fail for a reason that passes upon `release`."""

    def release(self) -> None: ...

    def end_now(self) -> None:
        """Exit."""

    def residency(self) -> dict[int, int]:
        """Bytes per node of the mapping, found without the backend's protocol."""
        ...


class OneNodeContract(ABC):
    """What needs no second node."""

    nodes: Sequence[int] = (0,)
    """Nodes with memory on which `make_process` can put pages."""

    @abstractmethod
    def make_backend(self) -> Backend:
        """The backend under test; called once a test, ahead of everything else."""

    @abstractmethod
    def make_process(
        self,
        backend: Backend,
        *,
        nodes: Sequence[int | None],
        shared: bool = False,
        share_with: Subject | None = None,
        folios: bool = False,
        huge: bool = False,
    ) -> AbstractContextManager[Subject]:
        """A process whose n-th page is on `nodes[n]` (None: not there). `shared`: others can map
        it, with `share_with`. `folios`: transparent huge pages. `huge`: a pool's huge pages."""

    @abstractmethod
    def attach_forbidden(self, backend: Backend) -> None:
        """Attach to a process on behalf of a user who may not, and let what `attach` raises out."""

    @pytest.fixture
    def backend(self) -> Backend:
        return self.make_backend()

    @pytest.fixture
    def subject(self, backend: Backend) -> Iterator[Subject]:
        """64 pages on the first node."""
        with self.make_process(backend, nodes=[self.nodes[0]] * PAGES) as subject:
            yield subject

    @pytest.fixture
    def target(self, backend: Backend, subject: Subject) -> Iterator[Target]:
        with backend.attach(subject.pid) as target:
            yield target

    def test_a_process_is_attached(self, subject: Subject, target: Target) -> None:
        assert target.pid == subject.pid
        assert target.command
        assert target.alive()

    def test_a_missing_process_is_gone(self, backend: Backend, subject: Subject) -> None:
        pid = subject.pid
        subject.end_now()
        for number in (pid, 0, -1, 1 << 40):
            with pytest.raises(ProcessGoneError):
                backend.attach(number)

    def test_permission_is_checked_at_once(self, backend: Backend) -> None:
        with pytest.raises(NoPermissionError):
            self.attach_forbidden(backend)

    def test_a_process_that_exits_is_gone_for_every_call(
        self, subject: Subject, target: Target
    ) -> None:
        area = area_of(target, subject)
        subject.end_now()
        assert not target.alive()
        here = NodeSet({self.nodes[0]})
        for call in (
            target.areas,
            target.allowed_nodes,
            lambda: target.migrate(here, here),
            lambda: target.locate(area, area.start, area.end),
            lambda: target.sweep(area, area.start, area.end, {0: 1}, shared=False, limits=Limits()),
        ):
            with pytest.raises(ProcessGoneError):
                call()

    def test_closing_twice_is_harmless(self, backend: Backend, subject: Subject) -> None:
        with backend.attach(subject.pid) as target:
            target.close()
        target.close()

    def test_areas_tell_residency(self, subject: Subject, target: Target) -> None:
        area = area_of(target, subject)
        assert (area.start, area.end) == (subject.start, subject.end)
        assert area.residency == {self.nodes[0]: area.size} == subject.residency()

    def test_nodes_are_told(self, backend: Backend, target: Target) -> None:
        topology = backend.topology()
        assert topology.memory_nodes >= set(self.nodes)
        assert topology.online >= backend.allowed_nodes() >= set(self.nodes)
        assert topology.online >= target.allowed_nodes() >= set(self.nodes)

    def test_pages_are_located_around_holes(self, backend: Backend) -> None:
        node = self.nodes[0]
        layout = [node] * 3 + [None] * 5 + [node] * 2 + [None]
        with (
            self.make_process(backend, nodes=layout) as subject,
            backend.attach(subject.pid) as target,
        ):
            area = area_of(target, subject)
            first, unit = subject.start, subject.unit
            assert target.locate(area, area.start, area.end) == [
                PageRun(start=first, end=first + 3 * unit, node=node),
                PageRun(start=first + 8 * unit, end=first + 10 * unit, node=node),
            ]
            assert target.locate(area, first + unit, first + 2 * unit) == [
                PageRun(start=first + unit, end=first + 2 * unit, node=node)
            ]
            assert not target.locate(area, first + 3 * unit, first + 8 * unit)
            assert not target.locate(area, first, first)

    def test_a_sweep_without_work_does_nothing(self, subject: Subject, target: Target) -> None:
        area = area_of(target, subject)
        here = self.nodes[0]
        for destinations in ({}, {here: here}, {NO_NODE: here}):
            done = sweep(target, area, destinations)
            assert not done.moved
            assert not done.failures
            assert done.calls == 0
            assert not done.gone

    def test_a_destination_that_does_not_exist(self, subject: Subject, target: Target) -> None:
        area = area_of(target, subject)
        here = NodeSet({self.nodes[0]})
        with pytest.raises(BackendError) as caught:
            sweep(target, area, {self.nodes[0]: NO_NODE})
        assert caught.value.errno == errno.ENODEV
        # migrate_pages(2) only sees that no node is left, or that the target may not use it.
        with pytest.raises((BackendError, NoPermissionError)) as refused:
            target.migrate(here, NodeSet({NO_NODE}))
        assert getattr(refused.value, "errno", errno.EINVAL) == errno.EINVAL
        assert subject.residency() == {self.nodes[0]: area.size}

    def test_a_migration_names_nodes(self, target: Target) -> None:
        here = NodeSet({self.nodes[0]})
        for old, new in ((NodeSet(), here), (here, NodeSet())):
            with pytest.raises(UsageError):
                target.migrate(old, new)

    def test_a_migration_to_where_all_is_leaves_nothing(self, target: Target) -> None:
        here = NodeSet({self.nodes[0]})
        assert target.migrate(here, here) == 0

    def test_an_unknown_cgroup_is_an_error(self, backend: Backend) -> None:
        with pytest.raises(UsageError):
            list(backend.cgroup_pids("no-such/cgroup"))


class BackendContract(OneNodeContract):
    """Everything, on two nodes or more."""

    nodes = (0, 1)

    def test_a_sweep_moves_all(self, subject: Subject, target: Target) -> None:
        old, new = self.nodes[:2]
        area = area_of(target, subject)
        done = sweep(target, area, {old: new})
        assert done.moved == {(old, new): area.size}
        assert not done.failures
        assert done.calls >= 1
        assert subject.residency() == {new: area.size} == area_of(target, subject).residency
        assert not sweep(target, area, {old: new}).moved

    def test_a_sweep_keeps_to_its_range(self, subject: Subject, target: Target) -> None:
        old, new = self.nodes[:2]
        area = area_of(target, subject)
        first, last = area.start + 8 * subject.unit, area.start + 24 * subject.unit
        done = target.sweep(area, first, last, {old: new}, shared=False, limits=Limits())
        assert done.moved == {(old, new): last - first}
        assert target.locate(area, area.start, area.end) == [
            PageRun(start=area.start, end=first, node=old),
            PageRun(start=first, end=last, node=new),
            PageRun(start=last, end=area.end, node=old),
        ]

    def test_batches_bound_a_call(self, subject: Subject, target: Target) -> None:
        old, new = self.nodes[:2]
        area = area_of(target, subject)
        limits = Limits(batch_bytes=area.size // 4)
        done = target.sweep(area, area.start, area.end, {old: new}, shared=False, limits=limits)
        assert done.calls == 4
        assert done.moved == {(old, new): area.size}

    def test_nodes_change_places(self, backend: Backend) -> None:
        one, two = self.nodes[:2]
        layout = [one] * 40 + [None] * 4 + [two] * 20
        with (
            self.make_process(backend, nodes=layout) as subject,
            backend.attach(subject.pid) as target,
        ):
            area, unit = area_of(target, subject), subject.unit
            done = sweep(target, area, {one: two, two: one})
            assert done.moved == {(one, two): 40 * unit, (two, one): 20 * unit}
            assert not done.failures
            assert subject.residency() == {two: 40 * unit, one: 20 * unit}

    def test_shared_pages_move_only_when_asked_for(self, backend: Backend) -> None:
        old, new = self.nodes[:2]
        layout = [old] * 16
        with (
            self.make_process(backend, nodes=layout, shared=True) as first,
            self.make_process(backend, nodes=layout, share_with=first) as second,
            backend.attach(first.pid) as target,
        ):
            area = area_of(target, first)
            assert area.is_shared
            assert area.most_mappers == 2
            done = sweep(target, area, {old: new})
            assert not done.moved
            assert sum(failure.size for failure in done.failures) == area.size
            assert {failure.errno for failure in done.failures} == {errno.EACCES}
            assert backend.may_move_shared()
            done = sweep(target, area, {old: new}, shared=True)
            assert done.moved == {(old, new): area.size}
            assert first.residency() == second.residency() == {new: area.size}
            with backend.attach(second.pid) as other:
                assert area_of(other, second).object_key == area.object_key
                assert not sweep(other, area_of(other, second), {old: new}, shared=True).moved

    def test_a_held_page_is_told_and_moves_later(self, subject: Subject, target: Target) -> None:
        old, new = self.nodes[:2]
        area = area_of(target, subject)
        subject.hold(20)
        done = sweep(target, area, {old: new})
        assert done.moved == {(old, new): area.size - subject.unit}
        (failure,) = done.failures
        held = subject.start + 20 * subject.unit
        assert (failure.start, failure.end) == (held, held + subject.unit)
        assert failure.size == failure.page_size == subject.unit
        assert failure.errno in (errno.EBUSY, errno.EAGAIN)
        subject.release()
        again = target.sweep(
            area, failure.start, failure.end, {old: new}, shared=False, limits=Limits()
        )
        assert again.moved == {(old, new): subject.unit}
        assert subject.residency() == {new: area.size}

    @pytest.mark.parametrize("kind", ["folios", "huge"])
    def test_huge_pages_move_as_one(self, backend: Backend, kind: str) -> None:
        old, new = self.nodes[:2]
        with (
            self.make_process(
                backend, nodes=[old] * 4, folios=kind == "folios", huge=kind == "huge"
            ) as subject,
            backend.attach(subject.pid) as target,
        ):
            area = area_of(target, subject)
            done = sweep(target, area, {old: new})
            assert not done.failures
            assert done.moved == {(old, new): area.size}
            assert subject.residency() == {new: area.size}
            assert target.locate(area, area.start, area.end) == [
                PageRun(start=area.start, end=area.end, node=new)
            ]

    def test_a_sweep_moves_only_the_pages_that_are_named(
        self, subject: Subject, target: Target
    ) -> None:
        old, new = self.nodes[:2]
        area, unit = area_of(target, subject), subject.unit
        parts = [(area.start + first * unit, area.start + last * unit) for first, last in _PARTS]
        done = target.sweep(
            area,
            area.start,
            area.end,
            {old: new},
            shared=False,
            limits=Limits(),
            only=Extents(parts),
        )
        assert done.moved == {(old, new): sum(last - first for first, last in parts)}
        found = target.locate(area, area.start, area.end)
        assert [(run.start, run.end) for run in found if run.node == new] == parts
        nothing = target.sweep(
            area, area.start, area.end, {old: new}, shared=False, limits=Limits(), only=Extents()
        )
        assert not nothing.moved

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

            move = placing(backend, target, self.nodes)
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
            assert move.astray(move.processes[0]) == 21 * unit

            move.carry_out()
            assert move.processes[0].moved == {(one, two): 14 * unit, (two, one): 7 * unit}
            assert not move.processes[0].left
            assert move.astray(move.processes[0]) == 0
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
            move = placing(backend, target, self.nodes)
            move.plan_pages(_all_of(subject, new))
            move.carry_out()
            (process,) = move.processes
            assert process.moved == {(old, new): (PAGES - 1) * subject.unit}
            assert process.left == {Reason.BUSY: subject.unit}
            assert move.astray(process) == subject.unit
            subject.release()
            move.carry_out()
            assert process.moved == {(old, new): PAGES * subject.unit}
            assert not process.left
            assert move.astray(process) == 0

    @pytest.mark.parametrize("kind", ["folios", "huge"])
    def test_huge_pages_are_placed_as_one(self, backend: Backend, kind: str) -> None:
        old, new = self.nodes[:2]
        with (
            self.make_process(
                backend, nodes=[old] * 4, folios=kind == "folios", huge=kind == "huge"
            ) as subject,
            backend.attach(subject.pid) as target,
        ):
            half, unit = subject.start + 2 * subject.unit, subject.unit

            def second_half(pages: Pages) -> list[int | None]:
                assert pages.page_size <= unit  # small where huge pages cannot be told
                inside = range(half, subject.end)
                return [new if address in inside else None for address in pages.addresses]

            move = placing(backend, target, self.nodes)
            move.plan_pages(second_half)
            move.carry_out()
            assert not move.processes[0].left
            assert move.astray(move.processes[0]) == 0
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

            move = placing(backend, one, self.nodes, two)
            move.plan_pages(all_of_it)
            ((pid, pages),) = asked.items()
            (other,) = {first.pid, second.pid} - {pid}
            assert list(pages.aliases) == [(other, 0)]
            move.carry_out()
            assert first.residency() == second.residency() == {new: first.end - first.start}

    def test_a_migration_moves_all(self, subject: Subject, target: Target) -> None:
        old, new = self.nodes[:2]
        assert target.migrate(NodeSet({old}), NodeSet({new})) == 0
        assert subject.residency() == {new: subject.end - subject.start}

    def test_a_migration_keeps_relative_places(self, backend: Backend) -> None:
        if len(self.nodes) < 4:
            pytest.skip("needs four nodes")
        layout = [self.nodes[0]] * 10 + [self.nodes[1]] * 20
        with (
            self.make_process(backend, nodes=layout) as subject,
            backend.attach(subject.pid) as target,
        ):
            target.migrate(NodeSet(self.nodes[:2]), NodeSet(self.nodes[2:4]))
            unit = subject.unit
            assert subject.residency() == {self.nodes[2]: 10 * unit, self.nodes[3]: 20 * unit}


_PARTS = ((3, 4), (8, 24), (40, 41))


def _every_third(subject: Subject, address: int, node: int) -> int | None:
    return None if (address - subject.start) // subject.unit % 3 else node


def _all_of(subject: Subject, node: int) -> PageChoice:
    return lambda pages: node if subject.start <= pages.start < subject.end else None


def placing(backend: Backend, target: Target, nodes: Sequence[int], *more: Target) -> Move:
    """A move over all nodes, for a strategy that decides page by page; one attempt."""
    nothing = ProcessSelection(residency={}, selected=(), kept={})
    return Move(
        backend=backend,
        node_map=NodeMap(pairs={}),
        processes=[MovingProcess(target=each, selection=nothing) for each in (target, *more)],
        selection=Selection(kinds=frozenset(set(MemoryKind) - {MemoryKind.FILE})),
        options=MoveOptions(retry=RetryPolicy(attempts=1)),
        sources=NodeSet(nodes),
    )


def area_of(target: Target, subject: Subject) -> Area:
    """The subject's mapping as the backend tells it."""
    (area,) = (area for area in target.areas() if area.start == subject.start)
    return area


def sweep(
    target: Target, area: Area, destinations: Mapping[int, int], *, shared: bool = False
) -> Sweep:
    """Sweep the whole area."""
    return target.sweep(area, area.start, area.end, destinations, shared=shared, limits=Limits())
