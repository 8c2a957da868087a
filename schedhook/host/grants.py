"""Read which cgroups may allocate on some nodes only, and how much more they may.

Sources: cpuset.mems and the memory controller's files in Documentation/admin-guide/cgroup-v2 and
cgroup-v1 of the kernel. A host has many cgroups, so a part of the tree in which no cgroup is fenced
is left out, and so is a cgroup without a process.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from schedhook.host import _cgroup_files as files
from schedhook.host.cgroups import Cgroup, cgroup_of, configured_nodes
from schedhook.host.hierarchies import read_hierarchies
from schedhook.host.listing import find_directories
from schedhook.values.errors import SchedhookError
from schedhook.values.grants import Grant
from schedhook.values.sets import NodeSet

_UNLIMITED = 1 << 62
"""Version 1 writes the largest multiple of a page for `no limit`."""
_CACHE = frozenset({"active_file", "inactive_file", "slab_reclaimable"})
_CACHE_V1 = frozenset({"total_active_file", "total_inactive_file"})


def read_grants(nodes: NodeSet, root: Path = Path("/")) -> tuple[Grant, ...]:
    """Return the topmost cgroups that are fenced, or contain one that is; `nodes` have memory."""
    tree = _find_tree(nodes, root)
    return tuple(tree.read_below(tree.cpusets, nodes)) if tree else ()


def cpuset_path(pid: int, root: Path = Path("/")) -> str:
    """Return the directory of the nearest cgroup, at or above the process's, with own cpuset.mems.

    Empty if there is none. Raise ProcessGoneError or SchedhookError.
    """
    cgroup = cgroup_of(pid, root)
    for path in (cgroup.path, *cgroup.path.parents):
        if path == cgroup.mount:
            break
        if configured_nodes(Cgroup(path=path, version=cgroup.version, mount=cgroup.mount)):
            return str(path)
    return ""


@dataclass(frozen=True, slots=True)
class _Tree:
    """The cgroups of a host."""

    nodes: NodeSet
    """All nodes with memory."""
    cpusets: Path
    """The top of the hierarchy that has the cpuset controller."""
    memory: Path
    """The top of the one that has the memory controller; it is the same in version 2."""
    cpusets_version: int
    memory_version: int

    def read_below(self, path: Path, inherited: NodeSet) -> Iterator[Grant]:
        if (
            self.cpusets_version == 2
            and inherited == self.nodes
            and "cpuset" not in (files.read_text(path / "cgroup.subtree_control") or "").split()
        ):
            return  # none below has a cpuset
        for name in find_directories(path):
            if grant := self._read(path / name, inherited):
                yield grant

    def _read(self, path: Path, inherited: NodeSet) -> Grant | None:
        if not files.has_processes(path, self.cpusets_version):
            return None
        nodes = self._allowed(path, inherited)
        parts = tuple(self.read_below(path, nodes))
        if nodes == self.nodes and not parts:
            return None
        return Grant(path=str(path), nodes=nodes, more=self._read_more(path), parts=parts)

    def _allowed(self, path: Path, inherited: NodeSet) -> NodeSet:
        names = ("cpuset.mems.effective", "cpuset.effective_mems", "cpuset.mems")
        texts = (files.read_text(path / name) for name in names)
        text = next((text for text in texts if text), "")
        return (files.parse_set(NodeSet, text, path) & self.nodes) or inherited

    def _read_more(self, path: Path) -> int | None:
        """Return what the cgroup's limit allows beyond its use, of which cache is no part.

        The kernel drops the cgroup's cache before it refuses memory to it, and that counts as room
        on the node.
        """
        here = self.memory / path.relative_to(self.cpusets)
        one = self.memory_version == 1
        limit = _number(here / ("memory.limit_in_bytes" if one else "memory.max"))
        if limit is None or limit >= _UNLIMITED:
            return None
        used = _number(here / ("memory.usage_in_bytes" if one else "memory.current")) or 0
        return max(0, limit - max(0, used - _read_cache(here, _CACHE_V1 if one else _CACHE)))


def _find_tree(nodes: NodeSet, root: Path) -> _Tree | None:
    mounted = read_hierarchies(root)
    own = [each for each in mounted if "cpuset" in each.controllers or each.version == 2]
    if not own:
        return None
    memory = next((each for each in mounted if "memory" in each.controllers), None)
    memory = memory or next((each for each in mounted if each.version == 2), own[0])
    return _Tree(nodes, own[0].point, memory.point, own[0].version, memory.version)


def _read_cache(path: Path, names: frozenset[str]) -> int:
    lines = (files.read_text(path / "memory.stat") or "").splitlines()
    words = (line.split() for line in lines)
    return sum(int(pair[1]) for pair in words if len(pair) == 2 and pair[0] in names)


def _number(path: Path) -> int | None:
    """Return the number in a file; None for `max`, or if there is no such file."""
    text = files.read_text(path) or "max"
    try:
        return None if text == "max" else int(text)
    except ValueError:
        raise SchedhookError(f"cannot parse {path}: {text!r} is not a number") from None
