"""A made-up host of cgroup version 1 with a Slurm job of two bound tasks.

Cpusets and bindings are files, and the pipeline only records what it was asked for. tests/slurm
moves real jobs.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from schedhook.roles.request import Request
from schedhook.testing.hosts import (
    FakeNode,
    write_cgroup,
    write_cgroup_mounts,
    write_file,
    write_host,
    write_process,
)
from schedhook.values.model import (
    NodeMap,
    Outcome,
    Placement,
    Plan,
    ProcessPlan,
    ProcessReport,
    Report,
)
from schedhook.values.room import find_rooms
from schedhook.values.sets import CpuSet, NodeSet
from schedhook_plugins.schedulers.slurm.adapter import HostJobs

JOB = "slurm/uid_2001/job_7"
MIB = 1 << 20


def cpus(text: str) -> CpuSet:
    return CpuSet.parse(text)


def place(text: str) -> Placement:
    """Return a placement on this host, where each node has the processor of the same number."""
    return Placement(cpus=cpus(text), nodes=NodeSet.parse(text))


def report(outcome: Outcome, node_map: NodeMap, **other: Any) -> Report:
    return Report(outcome=outcome, strategy="test", backend="test", node_map=node_map, **other)


@dataclass
class JobHost:
    """A host with job 7 on processors 0 and 1, its ranks 0 and 1 bound to one of them each."""

    root: Path
    requests: list[Request] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)
    """Outcomes of relocations that are not dry runs, in turn; complete if none is left."""
    left: dict[str, int] = field(default_factory=dict)
    """Bytes that relocations which are not dry runs leave behind, by reason."""
    stays: set[int] = field(default_factory=set)
    """Processes of which nothing moves."""
    refusal: str | None = None
    free: int = 512 * MIB
    free_on: dict[int, int] = field(default_factory=dict)
    """Bytes of nodes that have not `free`."""

    def __post_init__(self) -> None:
        write_host(self.root, [FakeNode(number=node, cpus=str(node)) for node in range(4)])
        write_cgroup_mounts(self.root, version=1)
        self.cpuset("", "0-3")
        self.cpuset("slurm", "0-3")
        self.cpuset("slurm/uid_2001", "0-1")
        self.cpuset(JOB, "0-1")
        self.add_step("0", {200: "0", 201: "1"})

    @property
    def here(self) -> HostJobs:
        return HostJobs(self.root)

    def cpuset(self, name: str, cpus: str, pids: Iterable[int] = ()) -> None:
        write_cgroup(self.root, name, version=1, pids=pids, cpus=cpus, nodes="0-3")

    def add_step(self, step: str, pids: dict[int, str]) -> None:
        self.cpuset(f"{JOB}/step_{step}", "0-1", pids)
        for rank, (pid, bound) in enumerate(pids.items()):
            self.process(pid, bound, rank)

    def process(self, pid: int, bound: str, rank: int) -> None:
        write_process(self.root, pid, cpus=bound)
        write_file(self.root, f"proc/{pid}/environ", b"SLURM_PROCID=%d\0" % rank)

    def affinity(self, tid: int) -> CpuSet:
        path = self.root / f"proc/{tid}/status"
        line = next(x for x in path.read_text().splitlines() if x.startswith("Cpus_allowed_list"))
        return cpus(line.split()[1])

    def bind(self, tid: int, wanted: Iterable[int]) -> bool:
        if not wanted:
            return False
        old = f"Cpus_allowed_list:\t{self.affinity(tid)}\n"
        for path in (f"proc/{tid}/status", f"proc/{tid}/task/{tid}/status"):
            file = self.root / path
            file.write_text(
                file.read_text().replace(old, f"Cpus_allowed_list:\t{CpuSet(wanted)}\n")
            )
        return True

    def relocate(self, request: Request) -> Report:
        self.requests.append(request)
        node_map = request.node_map or NodeMap(pairs={})
        if request.dry_run and self.refusal:
            return report(Outcome.REFUSED, node_map, notes=(self.refusal,))
        if request.dry_run:
            moves = dict.fromkeys(node_map.moves.items(), 100 * MIB)
            free = {node: self.free_on.get(node, self.free) for node in node_map.destinations}
            plan = Plan(
                strategy="test",
                backend="test",
                node_map=node_map,
                processes=(ProcessPlan(pid=1, command="", residency={}, moves=moves),),
                free=free,
                reclaimable=dict.fromkeys(free, 0),
                rooms=find_rooms(free, (), 0),
            )
            return report(Outcome.PLANNED, node_map, plan=plan)
        outcome = self.outcomes.pop(0) if self.outcomes else Outcome.COMPLETE
        notes = ("it went wrong",) if outcome is Outcome.FAILED else ()
        moves = outcome is not Outcome.REFUSED
        return report(
            outcome,
            node_map,
            processes=tuple(
                ProcessReport(
                    pid=pid,
                    command="",
                    residency_before={},
                    residency_after={},
                    bytes_moved=100 * MIB * (moves and pid not in self.stays),
                    bytes_left=0,
                )
                for pid in request.pids
            ),
            bytes_moved=100 * MIB * moves,
            bytes_left=sum(self.left.values()),
            left_by_reason=self.left,
            notes=notes,
        )

    def cpus_at(self, name: str = JOB) -> str:
        return (self.root / "sys/fs/cgroup/cpuset" / name / "cpuset.cpus").read_text().strip()

    def bound(self) -> dict[int, str]:
        return {pid: str(self.affinity(pid)) for pid in (200, 201)}

    def asked(self) -> list[tuple[dict[int, int], tuple[int, ...], bool]]:
        return [
            (dict(each.node_map.pairs if each.node_map else {}), each.pids, each.dry_run)
            for each in self.requests
        ]

    def is_untouched(self) -> bool:
        sets = [self.cpus_at(), self.cpus_at(f"{JOB}/step_0")]
        return sets == ["0-1", "0-1"] and self.bound() == {200: "0", 201: "1"}
