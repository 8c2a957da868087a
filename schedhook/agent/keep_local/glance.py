"""Glances at a job's memory by its cgroups' figures, which cost a read each and no page table."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from schedhook.agent.keeper.keeper import Glance
from schedhook.agent.open_files import OpenFile
from schedhook.host.cgroups import cgroup_of
from schedhook.host.locality import off_nodes
from schedhook.host.memory_stat import parse_process_memory
from schedhook.host.topology import Topology
from schedhook.roles.scheduler import Scheduler, Task
from schedhook.values.errors import SchedhookError
from schedhook.values.sets import NodeSet

_FIGURES = "memory.numa_stat"
_LONGEST = 1 << 16
"""Bytes: a row of a thousand nodes is shorter."""


@dataclass(slots=True)
class _Part:
    """A cgroup whose processes have their memory off-node on the same nodes."""

    file: OpenFile
    off: NodeSet
    sizes: Mapping[int, int]

    @classmethod
    def open(cls, path: Path, off: NodeSet) -> _Part:
        file = OpenFile(path / _FIGURES, _LONGEST)
        return cls(file, off, parse_process_memory(file.text.decode("ascii", "replace")))

    def read(self) -> Mapping[int, int]:
        if self.file.changed():
            self.sizes = parse_process_memory(self.file.text.decode("ascii", "replace"))
        return self.sizes


class JobGlances:
    """The open files of one job. Raise OSError if a part of the job has gone."""

    def __init__(
        self, adapter: Scheduler, job: str, tasks: tuple[Task, ...], topology: Topology, root: Path
    ) -> None:
        self._tasks = tasks
        off = {task.name: off_nodes(topology, task.placement) for task in tasks}
        tops = [path for path in adapter.cgroups(job) if (path / _FIGURES).exists()][:1]
        # Version 1 does not tell all; see `parse_process_memory`.
        self._complete = bool(tops) and (tops[0] / "cgroup.events").exists()
        by_path = {tops[0]: next(iter(off.values()))} if tops and off else {}
        if tops and len(set(off.values())) > 1:
            leaves = dict(_leaves(tasks, off, tops[0], root))
            # Tasks that share a cgroup have their memory in one figure.
            self._complete = self._complete and bool(leaves)
            common = NodeSet(off[tasks[0].name].intersection(*off.values()))
            by_path = leaves or {tops[0]: common}
        # No memory can be off-node, on a host with one node for example.
        self._complete = self._complete or not any(off.values())
        self._parts: list[_Part] = []
        try:
            for path, nodes in by_path.items():
                self._parts.append(_Part.open(path, nodes))
        except BaseException:
            self.close()
            raise

    def is_of(self, tasks: tuple[Task, ...]) -> bool:
        """Return whether the files are those of these tasks, even if read again."""
        if tasks is not self._tasks and tasks == self._tasks:
            self._tasks = tasks
        return tasks is self._tasks

    def read(self) -> Glance:
        """Return what the figures show now."""
        off_node = total = 0
        for part in self._parts:
            sizes = part.read()
            total += sum(sizes.values())
            off_node += sum(sizes.get(node, 0) for node in part.off)
        return Glance(off_node=off_node, local=total - off_node, complete=self._complete)

    def close(self) -> None:
        """Close the files."""
        for part in self._parts:
            part.file.close()
        self._parts = []


def _leaves(
    tasks: Iterable[Task], off: Mapping[str, NodeSet], top: Path, root: Path
) -> Iterator[tuple[Path, NodeSet]]:
    """Yield the cgroup of each task below the job's; nothing if tasks that differ share one."""
    found: dict[Path, NodeSet] = {}
    for task in tasks:
        for pid in task.pids[:1]:
            with suppress(SchedhookError):
                path = cgroup_of(pid, root).path
                while not (path / _FIGURES).exists() and path != path.parent:
                    path = path.parent
                nodes = off[task.name]
                if not path.is_relative_to(top) or found.setdefault(path, nodes) != nodes:
                    return
    if not any(os.path.commonpath([a, b]) == str(a) for a in found for b in found if a != b):
        yield from found.items()
