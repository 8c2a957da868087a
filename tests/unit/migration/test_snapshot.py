"""Nodes that exchange their memory, with pages and folios of any size."""

from __future__ import annotations

from typing import Any

import pytest

from schedhook.backends.simulated import SimulatedArea, SimulatedBackend
from schedhook.host.topology import Node, Topology
from schedhook.migration.move import Move
from schedhook.values.model import Outcome
from schedhook.values.page_sizes import PageSizes
from tests.unit.relocation.simulation import run

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
KERNELS = {
    "4k": PageSizes(base=4 * KIB, folio=2 * MIB),
    "16k": PageSizes(base=16 * KIB, folio=32 * MIB),
    "64k": PageSizes(base=64 * KIB, folio=512 * MIB),
}


def backend_of(sizes: PageSizes, nodes: list[int], folio: int, beside: int = 0) -> SimulatedBackend:
    """Return a host with one area of folios that begins `beside` bytes behind a boundary."""
    numbers = range(2)
    topology = Topology(
        nodes={
            number: Node(
                number=number,
                memory_total=16 * GIB,
                memory_free=16 * GIB,
                distances={other: 10 + 10 * (other != number) for other in numbers},
            )
            for number in numbers
        }
    )
    backend = SimulatedBackend(topology=topology, page_sizes=sizes)
    area = SimulatedArea(start=0x7F0000000000 + beside, nodes=nodes, folio_size=folio)
    backend.add_process(100, areas=[area])
    return backend


def bytes_by_node(backend: SimulatedBackend) -> dict[int, int]:
    with backend.attach(100) as target:
        (area,) = target.areas()
        return dict(area.residency)


@pytest.mark.parametrize("load", [{}, {"gentle": True}, {"bandwidth_mb_s": 1e6}, {"threads": 4}])
@pytest.mark.parametrize(
    ("kernel", "folio", "beside"),
    [
        ("4k", 16 * KIB, 4 * KIB),
        ("4k", 64 * KIB, 12 * KIB),
        ("4k", MIB, 12 * KIB),
        ("4k", 2 * MIB, 0),
        ("4k", 2 * MIB, 12 * KIB),
        ("16k", 32 * MIB, 16 * KIB),
        ("64k", 2 * MIB, 64 * KIB),
        ("64k", 64 * MIB, 0),
        ("64k", 512 * MIB, 0),
        ("64k", 512 * MIB, 64 * KIB),
    ],
)
def test_folios_change_places_once(
    kernel: str, folio: int, beside: int, load: dict[str, Any]
) -> None:
    count = max(3, 96 * MIB // folio)
    nodes = [0] * (count // 3) + [1] * (count - count // 3)
    backend = backend_of(KERNELS[kernel], nodes, folio, beside)
    report = run(backend, node_map="0:1,1:0", **load)
    assert (report.outcome, report.left_by_reason) == (Outcome.COMPLETE, {})
    assert report.bytes_moved == count * folio
    assert bytes_by_node(backend) == {0: nodes.count(1) * folio, 1: nodes.count(0) * folio}


def test_a_second_sweep_moves_nothing_back() -> None:
    backend = backend_of(KERNELS["4k"], [0, 1, 1] * 50, 16 * KIB)

    def twice(work: Move) -> None:
        work.sweep()
        work.sweep()

    report = run(backend, node_map="0:1,1:0", strategies={"twice": twice}, strategy="twice")
    assert report.outcome is Outcome.COMPLETE
    assert bytes_by_node(backend) == {0: 100 * 16 * KIB, 1: 50 * 16 * KIB}


def test_a_swap_that_did_not_happen_is_not_complete() -> None:
    backend = backend_of(KERNELS["4k"], [0, 1, 1] * 50, 16 * KIB)
    report = run(backend, node_map="0:1,1:0", strategies={"idle": lambda _: None}, strategy="idle")
    assert (report.outcome, report.bytes_moved) == (Outcome.PARTIAL, 0)
    assert report.bytes_left == 150 * 16 * KIB
