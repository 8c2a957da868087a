"""What every backend must do on a host with one node, as tests.

    class TestRemote(OneNodeContract):
        def make_backend(self): ...
        def make_process(self, backend, *, nodes, **how): ...
        def attach_forbidden(self, backend): ...

`schedhook.testing.BackendContract` adds what needs two nodes or more.
"""

from __future__ import annotations

import errno
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

import pytest

from schedhook.roles.backend import Backend, Limits, PageRun, Part, Survey, Sweep, Target
from schedhook.values.errors import BackendError, NoPermissionError, ProcessGoneError, UsageError
from schedhook.values.model import Area
from schedhook.values.sets import NodeSet

PAGES = 64
NO_NODE = 63
"""A node that does not exist on any host that runs these tests."""


class Subject(Protocol):
    """A process that the backend can reach, with one mapping of its own, [start, end)."""

    start: int
    end: int
    unit: int
    """Bytes that move as one page."""

    @property
    def pid(self) -> int: ...

    def hold(self, index: int) -> None:
        """Make moves of page `index` fail as busy until `release`."""

    def release(self) -> None:
        """Let every page that is held move again."""

    def end_now(self) -> None:
        """End the process, and return when it is gone."""

    def residency(self) -> dict[int, int]:
        """Return bytes per node of the mapping, found without the backend under test."""
        ...


class OneNodeContract(ABC):
    """For every backend: attaching, reading, and calls that move nothing."""

    nodes: Sequence[int] = (0,)
    """Nodes with memory where `make_process` can put pages."""

    @abstractmethod
    def make_backend(self) -> Backend:
        """Return the backend under test; each test calls this once, first."""

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
        """Return a process whose n-th page is on node `nodes[n]`, or not present if that is None.

        `shared`: other processes can map the memory, by `share_with`. `folios`: each page is a
        transparent huge page. `huge`: each page is a huge page of a pool.
        """

    @abstractmethod
    def attach_forbidden(self, backend: Backend) -> None:
        """Call `attach` with the rights of a user who must not reach the process.

        Do not catch what it raises.
        """

    @pytest.fixture
    def backend(self) -> Backend:
        return self.make_backend()

    @pytest.fixture
    def subject(self, backend: Backend) -> Iterator[Subject]:
        """Yield a process with 64 pages on the first node."""
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

    def test_areas_have_their_residency(self, subject: Subject, target: Target) -> None:
        area = area_of(target, subject)
        assert (area.start, area.end) == (subject.start, subject.end)
        assert area.residency == {self.nodes[0]: area.size} == subject.residency()

    def test_nodes_are_listed(self, backend: Backend, target: Target) -> None:
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
        # migrate_pages(2) only reports that no usable node is left.
        with pytest.raises((BackendError, NoPermissionError)) as refused:
            target.migrate(here, NodeSet({NO_NODE}))
        assert getattr(refused.value, "errno", errno.EINVAL) == errno.EINVAL
        assert subject.residency() == {self.nodes[0]: area.size}

    def test_a_survey_counts_a_page_that_two_processes_map_once(self, backend: Backend) -> None:
        seen = backend.page_set()
        if seen is None:
            pytest.skip("this backend, or its caller, cannot tell pages apart")
        layout = [*[self.nodes[0]] * 16, *[None] * 16]
        with (
            self.make_process(backend, nodes=layout, shared=True) as first,
            self.make_process(backend, nodes=layout, share_with=first) as second,
            backend.attach(first.pid) as one,
            backend.attach(second.pid) as other,
        ):
            present = {self.nodes[0]: 16 * first.unit}
            found = one.survey(area_of(one, first), Part.ALL, seen)
            assert found == Survey(residency=present)
            again = other.survey(area_of(other, second), Part.ALL, seen)
            assert again is not None
            assert again.pages is not None
            assert (again.residency, len(again.pages)) == ({}, 0)
            alone = other.survey(area_of(other, second), Part.ALL, None)
            assert alone == Survey(residency=present)

    def test_a_migration_without_nodes_is_an_error(self, target: Target) -> None:
        here = NodeSet({self.nodes[0]})
        for old, new in ((NodeSet(), here), (here, NodeSet())):
            with pytest.raises(UsageError):
                target.migrate(old, new)

    def test_a_migration_to_the_same_node_leaves_nothing(self, target: Target) -> None:
        here = NodeSet({self.nodes[0]})
        assert target.migrate(here, here) == 0

    def test_an_unknown_cgroup_is_an_error(self, backend: Backend) -> None:
        with pytest.raises(UsageError):
            list(backend.cgroup_pids("no-such/cgroup"))


def area_of(target: Target, subject: Subject) -> Area:
    """Return the subject's mapping as the backend sees it."""
    (area,) = (area for area in target.areas() if area.start == subject.start)
    return area


def sweep(
    target: Target, area: Area, destinations: Mapping[int, int], *, shared: bool = False
) -> Sweep:
    """Sweep the whole area, with the default limits, and at least one folio in a call."""
    most = max(Limits().batch_bytes, target.page_sizes.largest(area.page_size))
    limits = Limits(batch_bytes=most)
    return target.sweep(area, area.start, area.end, destinations, shared=shared, limits=limits)
