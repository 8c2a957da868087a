"""Made-up hosts of many kinds, for tests of what must hold on each of them.

Each kind is written as its nodes: processors, memory in GiB, and distances to other nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from hypothesis import strategies as st

from schedhook.host.topology import Node, Topology
from schedhook.testing.hosts import PAGE, FakeNode
from schedhook.values.sets import CpuSet, NodeSet

GIB = 1 << 30

Distance = Callable[[int, int], int]


def _flat(one: int, other: int) -> int:
    return 10 if one == other else 20


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of host."""

    cpus: Mapping[int, str]
    """By node, in the kernel's list format; empty for a node without processors."""
    memory: Mapping[int, int]
    """GiB by node, if it is not 64."""
    distance: Distance = _flat
    gpus: Sequence[int] = ()

    def nodes(self) -> list[FakeNode]:
        """Return the nodes, three quarters of each free."""
        return [self._node(number) for number in self.cpus]

    def _node(self, number: int) -> FakeNode:
        size = self.memory.get(number, 64) * GIB
        return FakeNode(
            number=number,
            cpus=self.cpus[number],
            memory=size,
            free=size * 3 // 4,
            distances={other: self.distance(number, other) for other in self.cpus},
            is_gpu=number in self.gpus,
        )


def _blocks(size: int, near: int, far: int) -> Distance:
    """Return distances that are `near` within a block of so many nodes, and `far` between."""
    return lambda one, other: 10 if one == other else near if one // size == other // size else far


def _high_bandwidth(one: int, other: int) -> int:
    """Return the distances of two sockets with four clusters each, 0-7, and their HBM, 8-15."""
    first, second = one % 8, other % 8
    distance = 10 if first == second else 12 if first // 4 == second // 4 else 21
    return distance + 3 * ((one < 8) != (other < 8))


def _grace_hopper(one: int, other: int) -> int:
    """Return the distances of nodes 0 and 1, and of GPU memory at 2-9 (near 0) and 10-17."""
    if one == other:
        return 10
    if max(one, other) < 2:
        return 40
    if min(one, other) >= 2:
        return 255
    return 80 if min(one, other) == (max(one, other) >= 10) else 120


def _expander(one: int, other: int) -> int:
    """Return the distances of two sockets and a CXL expander, 2, at the second."""
    return {(0, 0): 10, (0, 1): 21, (0, 2): 24, (1, 1): 10, (1, 2): 14, (2, 2): 10}[
        min(one, other), max(one, other)
    ]


def _cpus(count: int, each: int = 4) -> dict[int, str]:
    return {node: f"{node * each}-{node * each + each - 1}" for node in range(count)}


KINDS: Mapping[str, Kind] = {
    "one node": Kind(_cpus(1), {}),
    "two sockets": Kind(_cpus(2), {}, _blocks(1, 10, 21)),
    "eight nodes": Kind(_cpus(8), {}, _blocks(2, 16, 22)),
    "sparse numbers": Kind(dict(zip((0, 1, 33, 72), _cpus(4).values(), strict=True)), {}),
    "node 0 offline": Kind({1: "1,3,5,7"}, {}),
    "hbm, snc4 flat": Kind(
        _cpus(8) | dict.fromkeys(range(8, 16), ""),
        dict.fromkeys(range(8, 16), 16),
        _high_bandwidth,
    ),
    "cxl expander": Kind(_cpus(2) | {2: ""}, {2: 256}, _expander),
    "persistent memory": Kind(
        _cpus(2) | {2: "", 3: ""},
        {2: 512, 3: 512},
        lambda a, b: 10 if a == b else 17 + 11 * (a % 2 != b % 2),
    ),
    "tiers without distances": Kind(
        _cpus(3, 2) | {4: "", 6: "", 8: "", 9: ""}, {4: 1, 6: 1, 8: 1, 9: 1}
    ),
    "gpus, grace hopper": Kind(
        _cpus(2, 72) | dict.fromkeys(range(2, 18), ""),
        {0: 480, 1: 480} | dict.fromkeys(range(2, 18), 0) | {2: 96, 10: 96},
        _grace_hopper,
        gpus=(2, 10),
    ),
    "one node and a gpu": Kind({0: "0-71", 1: ""}, {1: 96}, gpus=(1,)),
    "gpus with high numbers": Kind(
        {0: "0-63", 8: "64-127", 254: "", 255: ""},
        {254: 16, 255: 16},
        lambda a, b: 10 if a == b else 40 if max(a, b) == 8 else 80,
        gpus=(254, 255),
    ),
    "memoryless nodes": Kind(_cpus(4), {1: 0, 3: 0}, _blocks(2, 12, 32)),
    "memoryless between equals": Kind(_cpus(3), {1: 0}),
    "processors and memory apart": Kind({0: "0-7", 1: "", 2: ""}, {0: 0}),
    "memoryless beside a gpu": Kind(
        {0: "0-3", 1: "4-7", 2: ""},
        {0: 0},
        lambda a, b: 10 if a == b else 15 if max(a, b) == 2 else 20,
        gpus=(2,),
    ),
    "numa=fake": Kind({0: "0-3", 1: "0-3", 2: "4-7", 3: "4-7"}, {}, _blocks(2, 10, 20)),
    "processors of a node offline": Kind(_cpus(2) | {2: ""}, {}),
    "all sorts": Kind(
        _cpus(4) | {4: "", 5: "", 6: "", 9: ""}, {3: 0, 6: 96, 9: 32}, _blocks(4, 12, 40), gpus=(6,)
    ),
}
"""Name → kind."""


def make_topology(nodes: Iterable[FakeNode]) -> Topology:
    """Return what `read_topology` reads of a host with these nodes."""
    return Topology(
        nodes={
            node.number: Node(
                number=node.number,
                cpus=CpuSet.parse(node.cpus),
                memory_total=node.memory,
                memory_free=node.free,
                memory_dirty=2 * PAGE,
                distances=dict(node.distances),
                is_gpu=node.is_gpu,
            )
            for node in nodes
        }
    )


def may_be_chosen(nodes: Iterable[FakeNode]) -> NodeSet:
    """Return the nodes to which memory may go unasked, told from the hosts' data alone."""
    with_memory = [node for node in nodes if node.memory]
    both = NodeSet(node.number for node in with_memory if node.cpus)
    return both or NodeSet(node.number for node in with_memory if not node.is_gpu)


@st.composite
def hosts(draw: st.DrawFn) -> list[FakeNode]:
    """Draw a host of any kind, or a known one with other free memory."""
    if draw(st.booleans()):
        nodes = draw(st.sampled_from([*KINDS.values()])).nodes()
        shares = st.integers(0, 4)
        return [replace(node, free=node.memory * draw(shares) // 4) for node in nodes]
    numbers = draw(st.lists(st.integers(0, 40), min_size=1, max_size=8, unique=True))
    distances = st.integers(10, 40)
    return [
        FakeNode(
            number=number,
            cpus=f"{2 * number}-{2 * number + 1}" if draw(st.booleans()) else "",
            memory=(memory := draw(st.integers(0, 4)) * GIB),
            free=memory // 2,
            distances={other: 10 if other == number else draw(distances) for other in numbers},
            is_gpu=draw(st.booleans()),
        )
        for number in sorted(numbers)
    ]
