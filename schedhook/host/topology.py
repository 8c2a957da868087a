"""NUMA nodes, their processors, distances, memory and huge-page pools, from /sys.

Sources: Documentation/ABI/stable/sysfs-devices-node and Documentation/admin-guide/mm/hugetlbpage
of the kernel.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from schedhook.host.listing import find_directories
from schedhook.values.errors import SchedhookError, UsageError
from schedhook.values.sets import CpuSet, IdSet, NodeSet

_Set = TypeVar("_Set", bound=IdSet)

_MOST_DIGITS = 20
"""Of a number that a kernel would write."""

LOCAL_DISTANCE = 10
REMOTE_DISTANCE = 20
"""The kernel's LOCAL_DISTANCE and REMOTE_DISTANCE, which it takes where firmware says nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HugePool:
    """The pool of huge pages of one size on one node."""

    size: int
    """Bytes of one page."""
    total: int
    """Pages in the pool."""
    free: int
    """Pages that nobody uses (some may be reserved: those count as free here)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One online NUMA node. Sizes are bytes."""

    number: int
    cpus: CpuSet = field(default_factory=CpuSet)
    """Its online processors; empty for a node of memory alone (CXL, HBM, persistent memory)."""
    memory_total: int = 0
    """0 for a node without memory."""
    memory_free: int = 0
    """What nobody uses (MemFree). The kernel keeps a little of it back (min_free_kbytes)."""
    memory_reclaimable: int = 0
    """Clean page cache. A page migration may drop it to make room, at the price of reading it
    again later, so a careful plan does not count on it."""
    distances: Mapping[int, int] = field(default_factory=dict)
    """To each node that the firmware names; 10 is local."""
    huge_pools: tuple[HugePool, ...] = ()

    @property
    def has_memory(self) -> bool:
        return self.memory_total > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Topology:
    """The host's online nodes. Numbers may have gaps."""

    nodes: Mapping[int, Node]

    @property
    def online(self) -> NodeSet:
        return NodeSet(self.nodes)

    @property
    def memory_nodes(self) -> NodeSet:
        """Nodes that can hold pages."""
        return NodeSet(number for number, node in self.nodes.items() if node.has_memory)

    @property
    def cpu_nodes(self) -> NodeSet:
        """Nodes with at least one online processor."""
        return NodeSet(number for number, node in self.nodes.items() if node.cpus)

    @property
    def cpus(self) -> CpuSet:
        """Every online processor."""
        return self.cpus_of(self.nodes)

    def nodes_of(self, cpus: Iterable[int]) -> NodeSet:
        """The nodes of these processors; processors that are not online have none."""
        wanted = frozenset(cpus)
        return NodeSet(number for number, node in self.nodes.items() if node.cpus & wanted)

    def memory_nodes_of(self, cpus: Iterable[int]) -> NodeSet:
        """The same, with the nearest node that has memory in the place of one that has none."""
        return NodeSet(map(self.home_of, self.nodes_of(cpus))) & self.memory_nodes

    def home_of(self, node: int) -> int:
        """The nearest node that has memory: the node itself, unless it has none."""
        having = self.memory_nodes
        if node in having or not having:
            return node
        return min(having, key=lambda other: (self.distance(node, other), other))

    def cpus_of(self, nodes: Iterable[int]) -> CpuSet:
        """The online processors of these nodes; nodes that are not online have none."""
        known = (self.nodes[number] for number in nodes if number in self.nodes)
        return CpuSet(cpu for node in known for cpu in node.cpus)

    def distance(self, first: int, second: int) -> int:
        """From `first` to `second`, 10 being local; the kernel's default where none is known."""
        default = LOCAL_DISTANCE if first == second else REMOTE_DISTANCE
        node = self.nodes.get(first)
        return node.distances.get(second, default) if node else default

    def node(self, number: int) -> Node:
        """UsageError where the node is not online."""
        try:
            return self.nodes[number]
        except KeyError:
            raise UsageError(
                f"node {number} is not online; the online nodes are {self.online}"
            ) from None

    def free(self, number: int) -> int:
        """Free bytes on a node (MemFree). UsageError where the node is not online."""
        return self.node(number).memory_free


def read_topology(root: Path = Path("/")) -> Topology:
    """The host's nodes, read anew.

    A kernel without NUMA support (no /sys/devices/system/node) is one node 0 with all processors
    and all memory. SchedhookError where not even /proc/meminfo can be read.
    """
    base = root / "sys/devices/system/node"
    present = NodeSet(map(int, _suffixes(base, "node")))
    if not present:
        return Topology(nodes={0: _only_node(root)})
    online = _read_set(base / "online", NodeSet)
    numbers = online & present if online else present
    orders = [
        list(ids) for ids in (numbers, online, present, _read_set(base / "possible", NodeSet))
    ]
    return Topology(
        nodes={number: _read_node(number, base / f"node{number}", orders) for number in numbers}
    )


def _read_node(number: int, base: Path, orders: Iterable[list[int]]) -> Node:
    meminfo = _read_meminfo(base / "meminfo")
    columns = [int(word) for word in _read(base / "distance").split() if _is_number(word)]
    # The kernel writes a column per online node. Where a node came or went while we read, the
    # table cannot be told apart and the defaults are the better answer.
    order = next((order for order in orders if len(order) == len(columns)), [])
    return Node(
        number=number,
        cpus=_read_set(base / "cpulist", CpuSet),
        memory_total=meminfo.get("MemTotal", 0),
        memory_free=meminfo.get("MemFree", 0),
        memory_reclaimable=_reclaimable(meminfo),
        distances=dict(zip(order, columns, strict=False)),
        huge_pools=tuple(_huge_pools(base / "hugepages")),
    )


def _only_node(root: Path) -> Node:
    meminfo = _read_meminfo(root / "proc/meminfo")
    if "MemTotal" not in meminfo:
        raise SchedhookError(
            f"cannot read {root / 'proc/meminfo'}: is {root} the root of a Linux system with /proc?"
        )
    return Node(
        number=0,
        cpus=read_online_cpus(root),
        memory_total=meminfo["MemTotal"],
        memory_free=meminfo.get("MemFree", 0),
        memory_reclaimable=_reclaimable(meminfo),
        distances={0: LOCAL_DISTANCE},
        huge_pools=tuple(_huge_pools(root / "sys/kernel/mm/hugepages")),
    )


def read_online_cpus(root: Path = Path("/")) -> CpuSet:
    """The online processors; {0} where the kernel knows of no others."""
    return _read_set(root / "sys/devices/system/cpu/online", CpuSet) or CpuSet({0})


def read_online_nodes(root: Path = Path("/")) -> NodeSet:
    """The online nodes alone, without reading what they have; {0} on a kernel without NUMA."""
    return _read_set(root / "sys/devices/system/node/online", NodeSet) or NodeSet({0})


def _reclaimable(meminfo: Mapping[str, int]) -> int:
    cache = meminfo.get("Active(file)", 0) + meminfo.get("Inactive(file)", 0)
    return max(0, cache - meminfo.get("Dirty", 0) - meminfo.get("Writeback", 0))


def _read_meminfo(path: Path) -> dict[str, int]:
    """Bytes per name, from a node's meminfo (`Node 0 MemFree: 12 kB`) or /proc/meminfo."""
    sizes: dict[str, int] = {}
    for line in _read(path).splitlines():
        name, _, value = line.rpartition(":")
        names, words = name.split(), value.split()
        if names and len(words) == 2 and words[1] == "kB" and _is_number(words[0]):
            sizes[names[-1]] = int(words[0]) << 10
    return sizes


def _huge_pools(base: Path) -> Iterator[HugePool]:
    pools = []
    for size in _suffixes(base, "hugepages-", "kB"):
        directory = base / f"hugepages-{size}kB"
        total = _read_number(directory / "nr_hugepages")
        free = _read_number(directory / "free_hugepages")
        pools.append(HugePool(size=int(size) << 10, total=total, free=free))
    yield from sorted(pools, key=lambda pool: pool.size)


def _suffixes(base: Path, prefix: str, unit: str = "") -> list[str]:
    """Return the numbers between `prefix` and `unit` in the names of the directories in `base`."""
    named = (name for name in find_directories(base) if name.startswith(prefix))
    numbers = (name.removeprefix(prefix).removesuffix(unit) for name in named)
    return [number for number in numbers if number.isdigit()]


def _read_set(path: Path, kind: type[_Set]) -> _Set:
    try:
        return kind.parse(_read(path))
    except ValueError as error:
        raise SchedhookError(f"cannot make sense of {path}: {error}") from None


def _read_number(path: Path) -> int:
    text = _read(path).strip()
    return int(text) if _is_number(text) else 0


def _is_number(text: str) -> bool:
    return text.isdigit() and len(text) <= _MOST_DIGITS


def _read(path: Path) -> str:
    # A node can go offline between the listing and the reading; then it has nothing to say.
    try:
        return path.read_text(encoding="ascii", errors="replace").replace("\0", "")
    except OSError:
        return ""
