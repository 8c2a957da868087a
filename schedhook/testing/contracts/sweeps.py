"""Moving pages one by one, on two nodes or more."""

from __future__ import annotations

import errno

import pytest

from schedhook.roles.backend import Backend, Limits, PageRun, Target
from schedhook.testing.contracts.one_node import OneNodeContract, Subject, area_of, sweep
from schedhook.values.extents import Extents

_PARTS = ((3, 4), (8, 24), (40, 41))


class SweepContract(OneNodeContract):
    """For every backend: which pages a sweep moves, and what it reports about the others."""

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

    def test_shared_pages_move_only_if_asked_for(self, backend: Backend) -> None:
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
                assert area_of(other, second).object_id == area.object_id
                assert not sweep(other, area_of(other, second), {old: new}, shared=True).moved

    def test_a_held_page_is_reported_and_moves_later(
        self, subject: Subject, target: Target
    ) -> None:
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
    def test_a_huge_page_moves_as_one(self, backend: Backend, kind: str) -> None:
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

    def test_a_sweep_moves_only_the_pages_named(self, subject: Subject, target: Target) -> None:
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
