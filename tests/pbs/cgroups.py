"""What PBS's cgroups hook does with jobs' cgroups, as seen on 23.06 with vnode_per_numa_node."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from schedhook.values.sets import CpuSet
from schedhook_plugins.schedulers.pbs.vnodes import parse_exec_vnode


class CgroupsHook:
    """Works on the cpusets below `jobs`. `nodes` are the processors of each NUMA node."""

    def __init__(self, jobs: Path, nodes: Mapping[int, CpuSet]) -> None:
        self.jobs = jobs
        self.nodes = nodes
        self.granted: dict[str, CpuSet] = {}
        """Job → the processors that the hook gave it."""

    def begin(self, job: str, exec_vnode: str) -> bool:
        """Give a job processors that are in no other job's cpuset, as many of each vnode as it has.

        If there are too few ('Failed to assign job resources'), the hook cleans up: it takes the
        cgroups for orphans that have what is missing, and kills what is in them.
        """
        given = CpuSet()
        for vnode in (vnode for chunk in parse_exec_vnode(exec_vnode) for vnode in chunk):
            assert vnode.node is not None
            there = self.nodes[vnode.node]
            free = sorted(there - [cpu for cpus in self.cpusets().values() for cpu in cpus])
            number = int(vnode.resources["ncpus"])
            if len(free) < number:
                self._remove_orphans(there)
                return False
            given = given | free[:number]
        self.granted[job] = given
        path = self.jobs / job
        path.mkdir(exist_ok=True)
        (path / "cpuset.cpus").write_text(f"{given}\n")
        return True

    def cpusets(self) -> dict[str, CpuSet]:
        """Return the processors of every job that has a cgroup."""
        return {path.name: CpuSet.parse((path / "cpuset.cpus").read_text()) for path in self._all()}

    def orphans(self) -> list[str]:
        """Return the jobs whose cgroups were taken for orphans."""
        suffix = ".orphan"
        return [path.name.removesuffix(suffix) for path in self.jobs.glob(f"*{suffix}")]

    def _all(self) -> Iterator[Path]:
        return (path for path in self.jobs.iterdir() if path.is_dir() and path.suffix != ".orphan")

    def _remove_orphans(self, cpus: CpuSet) -> None:
        for path in list(self._all()):
            has = CpuSet.parse((path / "cpuset.cpus").read_text())
            if has & cpus - self.granted.get(path.name, CpuSet()):
                path.rename(path.with_name(f"{path.name}.orphan"))
