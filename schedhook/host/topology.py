"""NUMA nodes, their processors, distances, memory and huge-page pools, from /sys.

Sources: Documentation/ABI/stable/sysfs-devices-node and Documentation/admin-guide/mm/hugetlbpage
of the kernel; for the memory of GPUs, what the driver writes in /proc.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from schedhook.host._sysfs import (
    list_suffixes,
    read_meminfo,
    read_number,
    read_set,
    read_text,
    read_words,
)
from schedhook.host.gpus import read_gpu_nodes
from schedhook.host.page_sizes import BASE_PAGE
from schedhook.host.reclaim import Watermarks, read_watermarks, reclaimable
from schedhook.values.errors import SchedhookError, UsageError
from schedhook.values.sets import CpuSet, NodeSet

_DEMOTION = "sys/kernel/mm/numa/demotion_enabled"

LOCAL_DISTANCE = 10
REMOTE_DISTANCE = 20
"""The kernel's LOCAL_DISTANCE and REMOTE_DISTANCE, its defaults if the firmware has no table."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HugePool:
    """The pool of huge pages of one size on one node."""

    size: int
    """Bytes of one page."""
    total: int
    """Pages in the pool."""
    free: int
    """Pages that are not in use. Reserved pages count as free here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One online NUMA node. Sizes are bytes."""

    number: int
    cpus: CpuSet = field(default_factory=CpuSet)
    """Its online processors; empty for a node of memory alone (CXL, HBM, persistent memory)."""
    memory_total: int = 0
    """0 for a node without memory."""
    memory_free: int = 0
    """Unused memory (MemFree)."""
    memory_kept: int = 0
    """The part of free memory that the kernel keeps for itself: watermarks and lowmem reserves."""
    memory_reclaimable: int = 0
    """Clean page cache and slab that the kernel drops to make room; see schedhook.host.reclaim."""
    memory_dirty: int = 0
    """Page cache that must be written back before it can be dropped: no room until then."""
    distances: Mapping[int, int] = field(default_factory=dict)
    """The distance to each node that the firmware names; 10 is local."""
    huge_pools: tuple[HugePool, ...] = ()
    is_gpu: bool = False
    """Its memory is that of a GPU, as the GPU's driver says."""

    @property
    def has_memory(self) -> bool:
        return self.memory_total > 0

    @property
    def free_room(self) -> int:
        """Return the bytes that an allocation gets without reclaim."""
        return max(0, self.memory_free - self.memory_kept)

    @property
    def room(self) -> int:
        """Return the bytes that the kernel can give here, by dropping clean cache if need be."""
        return self.free_room + self.memory_reclaimable


@dataclass(frozen=True, slots=True, kw_only=True)
class Topology:
    """The host's online nodes. Their numbers may have gaps."""

    nodes: Mapping[int, Node]
    demotes: bool = False
    """The kernel moves cold memory to nodes without processors by itself (demotion)."""
    claimed: Mapping[int, int] = field(default_factory=dict)
    """Bytes by node that others are entitled to, if a plan has told; see schedhook.values.room."""

    @property
    def online(self) -> NodeSet:
        return NodeSet(self.nodes)

    @property
    def memory_nodes(self) -> NodeSet:
        """The nodes that can hold pages."""
        return NodeSet(number for number, node in self.nodes.items() if node.has_memory)

    @property
    def cpu_nodes(self) -> NodeSet:
        """The nodes with at least one online processor."""
        return NodeSet(number for number, node in self.nodes.items() if node.cpus)

    @property
    def memory_only_nodes(self) -> NodeSet:
        """The nodes with memory and no online processor: CXL, HBM, GPU or persistent memory."""
        return self.memory_nodes - self.cpu_nodes

    @property
    def gpu_nodes(self) -> NodeSet:
        """The nodes with memory of a GPU."""
        return NodeSet(n for n in self.memory_only_nodes if self.nodes[n].is_gpu)

    @property
    def default_nodes(self) -> NodeSet:
        """The nodes to which memory may go unless the request names others.

        They have memory and processors. If no node has both, any with memory will do, but not that
        of a GPU.
        """
        return self.memory_nodes & self.cpu_nodes or self.memory_nodes - self.gpu_nodes

    @property
    def cpus(self) -> CpuSet:
        """All online processors."""
        return self.cpus_of(self.nodes)

    def nodes_of(self, cpus: Iterable[int]) -> NodeSet:
        """Return the nodes of these processors; processors that are not online have none.

        With `numa=fake` a processor is on several nodes.
        """
        wanted = frozenset(cpus)
        return NodeSet(number for number, node in self.nodes.items() if node.cpus & wanted)

    def memory_nodes_of(self, cpus: Iterable[int]) -> NodeSet:
        """Return the nodes of these processors' memory: their own, or what `homes_of` names."""
        homes = (self.homes_of(node) for node in self.nodes_of(cpus))
        return NodeSet(home for its in homes for home in its) & self.memory_nodes

    def homes_of(self, node: int) -> NodeSet:
        """Return the node itself if it has memory, else all default nodes that are nearest."""
        if node in self.memory_nodes or not self.memory_nodes:
            return NodeSet({node})
        return self.nearest(node, self.default_nodes)

    def nearest(self, node: int, candidates: Iterable[int]) -> NodeSet:
        """Return those of the candidates that are nearest to a node."""
        distances = {other: self.distance(node, other) for other in candidates}
        least = min(distances.values(), default=0)
        return NodeSet(other for other, distance in distances.items() if distance == least)

    def elsewhere(self, nodes: NodeSet) -> NodeSet:
        """Return the nodes from which memory moves to `nodes` unless the request names some.

        Memory of a GPU is left out: its program or its driver put it there.
        """
        return self.memory_nodes - nodes - self.gpu_nodes

    def preferred(self, nodes: NodeSet) -> NodeSet:
        """Return `nodes` without those to which memory only goes if named; all if none is left."""
        return nodes - (self.memory_nodes - self.default_nodes) or nodes

    def cpus_of(self, nodes: Iterable[int]) -> CpuSet:
        """Return the online processors of these nodes; nodes that are not online have none."""
        known = (self.nodes[number] for number in nodes if number in self.nodes)
        return CpuSet(cpu for node in known for cpu in node.cpus)

    def distance(self, first: int, second: int) -> int:
        """Return the distance from `first` to `second`; 10 is local, and the default is 20."""
        default = LOCAL_DISTANCE if first == second else REMOTE_DISTANCE
        node = self.nodes.get(first)
        return node.distances.get(second, default) if node else default

    def node(self, number: int) -> Node:
        """Return a node. Raise UsageError if it is not online."""
        try:
            return self.nodes[number]
        except KeyError:
            raise UsageError(
                f"node {number} is not online; the online nodes are {self.online}"
            ) from None

    def room(self, number: int) -> int:
        """Return the bytes that the kernel can give on a node, without those that are claimed.

        See `Node.room`. Raise UsageError if the node is not online.
        """
        return max(0, self.node(number).room - self.claimed.get(number, 0))

    def find_room(
        self, near: int, size: int, candidates: NodeSet, avoid: Collection[int] = ()
    ) -> int | None:
        """Return the default node of the candidates that can give `size` bytes; None if none can.

        Of several it is the nearest to the node `near`, of equally near ones the lowest; nodes of
        `avoid` are only taken if there is no other.
        """
        fitting = [node for node in candidates & self.default_nodes if self.room(node) >= size]
        return min(
            fitting,
            key=lambda node: (node in avoid, self.distance(near, node), node),
            default=None,
        )


def read_topology(root: Path = Path("/")) -> Topology:
    """Return the host's nodes as they are now.

    A kernel without NUMA support (no /sys/devices/system/node) is one node 0 with all processors
    and all memory. Raise SchedhookError if not even /proc/meminfo can be read.
    """
    base = root / "sys/devices/system/node"
    present = NodeSet(list_suffixes(base, "node"))
    if not present:
        return Topology(nodes={0: _only_node(root)})
    online = read_set(base / "online", NodeSet)
    numbers = online & present if online else present
    watermarks = read_watermarks(root, BASE_PAGE)
    orders = [list(ids) for ids in (numbers, online, present, read_set(base / "possible", NodeSet))]
    gpus = read_gpu_nodes(root)
    return Topology(
        nodes={
            number: replace(
                _read_node(
                    number, base / f"node{number}", orders, watermarks.get(number, Watermarks())
                ),
                is_gpu=number in gpus,
            )
            for number in numbers
        },
        demotes=read_text(root / _DEMOTION).strip() in ("true", "1"),
    )


def read_online_cpus(root: Path = Path("/")) -> CpuSet:
    """Return the online processors; {0} if the kernel does not list them."""
    return read_set(root / "sys/devices/system/cpu/online", CpuSet) or CpuSet({0})


def read_cores(cpus: CpuSet, root: Path = Path("/")) -> tuple[CpuSet, ...]:
    """Return these processors in groups, each the hardware threads of one core, lowest first.

    A processor of which the kernel tells no siblings is a core of its own.
    """
    cores: dict[int, CpuSet] = {}
    for cpu in cpus:
        path = root / f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"
        threads = (read_set(path, CpuSet) & cpus) | CpuSet({cpu})
        cores.setdefault(min(threads), threads)
    return tuple(cores[first] for first in sorted(cores))


def read_online_nodes(root: Path = Path("/")) -> NodeSet:
    """Return the numbers of the online nodes; {0} on a kernel without NUMA support."""
    return read_set(root / "sys/devices/system/node/online", NodeSet) or NodeSet({0})


def _read_node(
    number: int, base: Path, orders: Iterable[list[int]], watermarks: Watermarks
) -> Node:
    meminfo = read_meminfo(base / "meminfo")
    columns = read_words(base / "distance")
    # The kernel writes a column per online node. If a node came or went during the reading, the
    # columns cannot be attributed, and the defaults are the better answer.
    order = next((order for order in orders if len(order) == len(columns)), [])
    return Node(
        number=number,
        cpus=read_set(base / "cpulist", CpuSet),
        memory_total=meminfo.get("MemTotal", 0),
        memory_free=meminfo.get("MemFree", 0),
        memory_kept=watermarks.kept,
        memory_reclaimable=reclaimable(meminfo, watermarks),
        memory_dirty=meminfo.get("Dirty", 0) + meminfo.get("Writeback", 0),
        distances=dict(zip(order, columns, strict=False)),
        huge_pools=_huge_pools(base / "hugepages"),
    )


def _only_node(root: Path) -> Node:
    meminfo = read_meminfo(root / "proc/meminfo")
    if "MemTotal" not in meminfo:
        raise SchedhookError(
            f"cannot read {root / 'proc/meminfo'}: is {root} the root of a Linux system with /proc?"
        )
    watermarks = read_watermarks(root, BASE_PAGE).get(0, Watermarks())
    return Node(
        number=0,
        cpus=read_online_cpus(root),
        memory_total=meminfo["MemTotal"],
        memory_free=meminfo.get("MemFree", 0),
        memory_kept=watermarks.kept,
        memory_reclaimable=reclaimable(meminfo, watermarks),
        memory_dirty=meminfo.get("Dirty", 0) + meminfo.get("Writeback", 0),
        distances={0: LOCAL_DISTANCE},
        huge_pools=_huge_pools(root / "sys/kernel/mm/hugepages"),
    )


def _huge_pools(base: Path) -> tuple[HugePool, ...]:
    return tuple(
        HugePool(
            size=kilobytes << 10,
            total=read_number(base / f"hugepages-{kilobytes}kB/nr_hugepages"),
            free=read_number(base / f"hugepages-{kilobytes}kB/free_hugepages"),
        )
        for kilobytes in list_suffixes(base, "hugepages-", "kB")
    )
