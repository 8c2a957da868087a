"""The contract over the simulated backend, and what a test can script there."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from schedhook.backends.simulated import PAGE, SimulatedArea, SimulatedBackend, four_nodes
from schedhook.host.topology import HugePool, Topology
from schedhook.roles.backend import Backend, Failure, Limits, PageRun
from schedhook.testing.contracts.backend import BackendContract
from schedhook.testing.contracts.one_node import Subject, sweep
from schedhook.testing.hosts import (
    FakeArea,
    FakeNode,
    write_cgroup,
    write_cgroup_mounts,
    write_host,
    write_process,
)
from schedhook.values.errors import BackendError, NoPermissionError, ProcessGoneError, UsageError
from schedhook.values.model import MemoryKind
from schedhook.values.sets import NodeSet

START = 0x7F0000000000
HUGE = 2 << 20


def with_pools(free: int = 8) -> Topology:
    """Return four nodes with a pool of huge pages each."""
    plain = four_nodes()
    pool = HugePool(size=HUGE, total=8, free=free)
    return Topology(
        nodes={number: replace(node, huge_pools=(pool,)) for number, node in plain.nodes.items()}
    )


class SimulatedSubject:
    """A process of the scripted backend."""

    def __init__(self, backend: SimulatedBackend, pid: int, area: SimulatedArea) -> None:
        self.backend, self.pid = backend, pid
        self.unit = area.folio_size or area.page_size
        self.start, self.end = area.start, area.start + len(area.nodes) * self.unit
        self.held: list[int] = []

    def hold(self, index: int) -> None:
        self.held.append(self.start + index * self.unit)
        self.backend.fail(self.pid, self.held[-1], always=errno.EBUSY)

    def release(self) -> None:
        for address in self.held:
            self.backend.fail(self.pid, address)

    def end_now(self) -> None:
        with contextlib.suppress(KeyError):
            self.backend.end_process(self.pid)

    def residency(self) -> dict[int, int]:
        """Return bytes per node from the nodes' free memory: nothing else uses them."""
        used = {}
        for number, node in self.backend.topology().nodes.items():
            pools = sum((pool.total - pool.free) * pool.size for pool in node.huge_pools)
            size = node.memory_total - node.memory_free + pools
            if size:
                used[number] = size
        return used


class TestContract(BackendContract):
    nodes = (0, 1, 2, 3)

    def make_backend(self) -> Backend:
        self.pid = 100
        return SimulatedBackend(topology=with_pools())

    @contextlib.contextmanager
    def make_process(
        self,
        backend: Backend,
        *,
        nodes: Sequence[int | None],
        shared: bool = False,
        share_with: Subject | None = None,
        folios: bool = False,
        huge: bool = False,
    ) -> Iterator[Subject]:
        assert isinstance(backend, SimulatedBackend)
        self.pid += 1
        area = SimulatedArea(
            start=START,
            nodes=nodes,
            page_size=HUGE if huge else PAGE,
            folio_size=HUGE if folios else 0,
            kind=MemoryKind.HUGE if huge else MemoryKind.ANON,
            name="shared" if shared or share_with else "",
        )
        backend.add_process(self.pid, areas=[area])
        subject = SimulatedSubject(backend, self.pid, area)
        yield subject
        subject.end_now()

    def attach_forbidden(self, backend: Backend) -> None:
        assert isinstance(backend, SimulatedBackend)
        backend.add_process(5, permitted=False)
        backend.attach(5)


def one_process(count: int = 16, **more: object) -> SimulatedBackend:
    """Return a backend with process 100 and this many pages on node 0."""
    backend = SimulatedBackend()
    area = SimulatedArea(start=START, nodes=[0] * count)
    backend.add_process(100, areas=[area], **more)  # type: ignore[arg-type]
    return backend


def test_scripted_failures_come_one_per_attempt() -> None:
    backend = one_process()
    backend.fail(100, START + 3 * PAGE, [errno.EBUSY, errno.EAGAIN])
    backend.fail(100, START + 4 * PAGE, always=errno.EBUSY)
    target = backend.attach(100)
    (area,) = target.areas()

    def failed() -> list[tuple[int, int, int]]:
        return [
            ((item.start - START) // PAGE, (item.end - START) // PAGE, item.errno)
            for item in sweep(target, area, {0: 1}).failures
        ]

    assert failed() == [(3, 5, errno.EBUSY)]
    assert failed() == [(3, 4, errno.EAGAIN), (4, 5, errno.EBUSY)]
    assert failed() == [(4, 5, errno.EBUSY)]
    assert target.areas()[0].residency == {0: PAGE, 1: 15 * PAGE}
    with pytest.raises(UsageError):
        backend.fail(100, START - PAGE, [errno.EBUSY])


def test_a_full_destination_takes_what_fits() -> None:
    nodes = four_nodes().nodes
    small = replace(nodes[2], memory_total=10 * PAGE, memory_free=10 * PAGE)
    backend = SimulatedBackend(topology=Topology(nodes={**nodes, 2: small}))
    backend.add_process(100, areas=[SimulatedArea(start=START, nodes=[0] * 16)])
    target = backend.attach(100)
    (area,) = target.areas()
    done = sweep(target, area, {0: 2})
    assert done.moved == {(0, 2): 10 * PAGE}
    assert done.failures == (
        Failure(
            start=START + 10 * PAGE,
            end=START + 16 * PAGE,
            errno=errno.ENOMEM,
            size=6 * PAGE,
            page_size=PAGE,
        ),
    )
    assert backend.topology().room(2) == 0
    sweep(target, area, {2: 1})
    with pytest.raises(BackendError) as caught:
        for node in (0, 1):
            target.migrate(NodeSet({node}), NodeSet({2}))
    assert caught.value.errno == errno.ENOMEM
    assert target.areas()[0].residency == {1: 6 * PAGE, 2: 10 * PAGE}


def test_memory_that_is_not_free_cannot_be_allocated() -> None:
    backend = SimulatedBackend()
    with pytest.raises(UsageError):
        backend.add_process(1, areas=[SimulatedArea(start=0, nodes=[0] * 513, page_size=HUGE)])


def test_huge_pages_need_a_pool() -> None:
    topology = with_pools()
    no_pool = replace(topology.nodes[1], huge_pools=())
    backend = SimulatedBackend(topology=Topology(nodes={**topology.nodes, 1: no_pool}))
    area = SimulatedArea(start=START, nodes=[0] * 3, page_size=HUGE, kind=MemoryKind.HUGE)
    backend.add_process(100, areas=[area])
    target = backend.attach(100)
    (area,) = target.areas()
    done = sweep(target, area, {0: 1})
    assert [(item.errno, item.size) for item in done.failures] == [(errno.ENOMEM, 3 * HUGE)]
    assert sweep(target, area, {0: 2}).moved == {(0, 2): 3 * HUGE}
    free = {n: node.huge_pools[0].free for n, node in backend.topology().nodes.items() if n != 1}
    assert free == {0: 8, 2: 5, 3: 8}


def test_a_folio_that_is_partly_selected_moves_as_a_whole() -> None:
    backend = SimulatedBackend()
    area = SimulatedArea(start=START, nodes=[0] * 2, folio_size=HUGE)
    backend.add_process(100, areas=[area])
    target = backend.attach(100)
    (area,) = target.areas()
    target.sweep(area, START + HUGE, START + HUGE + PAGE, {0: 1}, shared=False, limits=Limits())
    assert target.locate(area, area.start, area.end) == [
        PageRun(start=START, end=START + HUGE, node=0),
        PageRun(start=START + HUGE, end=START + 2 * HUGE, node=1),
    ]


def test_a_process_exits_during_a_sweep() -> None:
    backend = one_process(exit_after=2)
    target = backend.attach(100)
    (area,) = target.areas()
    done = sweep(target, area, {0: 1})
    assert done.gone
    assert done.moved == {(0, 1): 8 * PAGE}
    assert not target.alive()
    with pytest.raises(ProcessGoneError):
        target.areas()
    assert backend.topology().room(1) == backend.topology().room(0) == 1 << 30


@pytest.mark.parametrize("call", ["areas", "migrate", "locate"])
def test_a_process_exits_during_another_call(call: str) -> None:
    backend = one_process(exit_after=2)
    target = backend.attach(100)
    (area,) = target.areas()
    calls = {
        "areas": target.areas,
        "migrate": lambda: target.migrate(NodeSet({0}), NodeSet({1})),
        "locate": lambda: target.locate(area, area.start, area.end),
    }
    with pytest.raises(ProcessGoneError):
        calls[call]()


def test_a_reused_number_is_another_process() -> None:
    backend = one_process()
    target = backend.attach(100)
    backend.end_process(100)
    backend.add_process(100, "another")
    assert not target.alive()
    with pytest.raises(ProcessGoneError):
        target.allowed_nodes()
    assert backend.attach(100).command == "another"


def test_a_process_forks() -> None:
    backend = one_process(fork_after=2, child=101, cgroup="/job")
    assert list(backend.cgroup_pids("job")) == [100]
    target = backend.attach(100)
    (area,) = target.areas()
    assert area.most_mappers == 1
    done = sweep(target, area, {0: 1})
    assert {item.errno for item in done.failures} == {errno.EACCES}
    assert list(backend.cgroup_pids("job")) == [100, 101]
    child = backend.attach(101)
    assert sweep(child, child.areas()[0], {0: 1}, shared=True).moved == {(0, 1): 16 * PAGE}
    assert target.areas()[0].residency == {1: 16 * PAGE}


def test_cgroups_include_those_below() -> None:
    backend = one_process(cgroup="/jobs/1/step")
    backend.add_process(101, cgroup="jobs/1")
    backend.add_process(102, cgroup="jobs/10")
    assert list(backend.cgroup_pids("/jobs/1")) == [100, 101]
    backend.end_process(101)
    assert list(backend.cgroup_pids("jobs/1")) == [100]


def test_permissions_are_those_of_the_manual_pages() -> None:
    backend = SimulatedBackend(may_move_shared=False, allowed_nodes=NodeSet({0, 1, 2}))
    area = SimulatedArea(start=START, nodes=[0] * 16)
    backend.add_process(100, areas=[area], allowed_nodes=NodeSet({0, 1, 3}))
    target = backend.attach(100)
    (area,) = target.areas()
    with pytest.raises(NoPermissionError):  # MPOL_MF_MOVE_ALL
        sweep(target, area, {0: 1}, shared=True)
    with pytest.raises(BackendError) as caught:  # outside the process's cpuset
        sweep(target, area, {0: 2})
    assert caught.value.errno == errno.EACCES
    with pytest.raises(NoPermissionError):
        target.migrate(NodeSet({0}), NodeSet({2}))
    with pytest.raises(BackendError) as caught:  # outside the caller's cpuset
        target.migrate(NodeSet({0}), NodeSet({3}))
    assert caught.value.errno == errno.EINVAL
    # Silently narrowed to {1}.
    assert target.migrate(NodeSet({0}), NodeSet({1, 3})) == 0
    assert target.areas()[0].residency == {1: 16 * PAGE}


def test_a_migration_vacates_destinations_first() -> None:
    backend = SimulatedBackend()
    backend.add_process(100, areas=[SimulatedArea(start=START, nodes=[0] * 4 + [1] * 2)])
    target = backend.attach(100)
    target.migrate(NodeSet({0, 1}), NodeSet({1, 2}))
    assert target.areas()[0].residency == {1: 4 * PAGE, 2: 2 * PAGE}
    assert target.migrate(NodeSet({1, 2}), NodeSet({2, 1})) == 0  # masks have no order
    assert target.areas()[0].residency == {1: 4 * PAGE, 2: 2 * PAGE}


def test_a_migration_counts_only_some_of_what_stayed() -> None:
    backend = one_process()
    backend.fail(100, START, always=errno.EBUSY)
    backend.fail(100, START + PAGE, always=errno.EAGAIN)
    target = backend.attach(100)
    assert target.migrate(NodeSet({0}), NodeSet({1})) == 1
    assert target.areas()[0].residency == {0: 2 * PAGE, 1: 14 * PAGE}


def test_a_snapshot_simulates_its_host(tmp_path: Path) -> None:
    write_host(tmp_path, [FakeNode(number=n, cpus=str(n)) for n in (0, 2)])
    write_cgroup_mounts(tmp_path)
    write_cgroup(tmp_path, "job", pids=[10, 11])
    own = FakeArea(start=0x10000, size=16 * PAGE, pages={0: 3, 2: 2})
    common = FakeArea(
        start=0x800000,
        size=8 * PAGE,
        pages={0: 8},
        path="/dev/shm/x",
        device="0:23",
        is_shared=True,
        mappers=2,
    )
    for pid in (10, 11):
        write_process(tmp_path, pid, areas=[own, common], arguments=[b"solver"], nodes="0,2")
    backend = SimulatedBackend(tmp_path)
    assert backend.topology().online == NodeSet({0, 2})
    assert list(backend.cgroup_pids("job")) == [10, 11]
    first, second = backend.attach(10), backend.attach(11)
    assert first.command == "solver"
    assert first.allowed_nodes() == NodeSet({0, 2})
    mine, shared = first.areas()
    assert mine.residency == {0: 3 * PAGE, 2: 2 * PAGE}
    assert first.locate(mine, mine.start, mine.end) == [
        PageRun(start=0x10000, end=0x13000, node=0),
        PageRun(start=0x13000, end=0x15000, node=2),
    ]
    assert sweep(first, shared, {0: 2}, shared=True).moved == {(0, 2): 8 * PAGE}
    assert second.areas()[1].residency == {2: 8 * PAGE}
    assert second.areas()[0].residency == mine.residency
    with pytest.raises(ProcessGoneError):
        backend.attach(12)
    with pytest.raises(UsageError):
        list(backend.cgroup_pids("other"))
