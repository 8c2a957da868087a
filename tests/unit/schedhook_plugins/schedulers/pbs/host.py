"""A made-up host with jobs of PBS, whose events the agent's own policy handles."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from schedhook.agent.dispatcher import Dispatcher
from schedhook.agent.parking import PARKED, Parked, ParkedTask, parse
from schedhook.host.topology import read_topology
from schedhook.journal.journal import Journal
from schedhook.plugins.manager import Plugins
from schedhook.plugins.sources import PluginSource
from schedhook.roles.request import Request
from schedhook.testing.hosts import (
    FakeNode,
    write_cgroup,
    write_cgroup_mounts,
    write_host,
    write_process,
)
from schedhook.values.actions import ActionsSection, PbsActions
from schedhook.values.config import Config
from schedhook.values.model import Event, NodeMap, Outcome, Plan, ProcessPlan, Report
from schedhook.values.sets import NodeSet
from schedhook_plugins.mappers import nearest, relative
from schedhook_plugins.schedulers.pbs import scheduler as pbs
from schedhook_plugins.schedulers.pbs.notes import PbsNotes
from schedhook_plugins.schedulers.pbs.scheduler import PbsScheduler

MIB = 1 << 20
UNUSED = 5_000_000
"""More than any process number that Linux gives: no real process is bound by accident."""
JOB = "12.n1"


class Host:
    """Four nodes of two CPUs; jobs with residency in MiB, which relocations move."""

    def __init__(self, root: Path) -> None:
        self.root = root
        nodes = [FakeNode(number=n, cpus=f"{2 * n}-{2 * n + 1}") for n in range(4)]
        write_host(root, nodes)
        write_cgroup_mounts(root, version=1)
        write_cgroup(root, "pbs_jobs.service/jobid", version=1, cpus="0-7", nodes="0-3")
        self.residency: dict[str, dict[int, int]] = {}
        self.requests: list[Request] = []
        self.outcome = Outcome.COMPLETE
        self.actions: dict[str, Any] = {}
        self.on_move: Callable[[], None] = lambda: None
        self.journal = self.open_journal()
        self.pbs = self.open_adapter()

    def widen_nodes(self) -> None:
        """Give the host two nodes of four CPUs in place of four of two."""
        nodes = [FakeNode(number=n, cpus=f"{4 * n}-{4 * n + 3}" if n < 2 else "") for n in range(4)]
        write_host(self.root, nodes)

    def open_journal(self) -> Journal:
        return Journal.in_memory()

    def open_adapter(self) -> PbsScheduler:
        adapter = self.dispatcher().adapter("pbs")
        assert isinstance(adapter, PbsScheduler)
        return adapter

    def dispatcher(self) -> Dispatcher:
        plugins = Plugins()
        plugins.register(PluginSource(name="pbs", package="test"), pbs)
        actions = ActionsSection(pbs=PbsActions(**self.actions))
        return Dispatcher(
            Config(actions=actions),
            plugins,
            self.journal,
            root=self.root,
            carry_out=self.relocate,
        )

    @property
    def notes(self) -> PbsNotes:
        return PbsNotes(lambda: self.pbs.notes)

    # -- jobs ------------------------------------------------------------------------------------

    def job(self, job: str, cpus: str, mems: str, **mib: int) -> Path:
        number = UNUSED + len(self.residency)
        write_process(self.root, number, cpus=cpus, nodes=mems)
        self.residency[job] = {int(node[1:]): size * MIB for node, size in mib.items()}
        return self.place(job, cpus, mems, number)

    def place(self, job: str, cpus: str, mems: str, pid: int | None = None) -> Path:
        name = f"pbs_jobs.service/jobid/{job}"
        pids = [pid] if pid else [pid for task in self.pbs.tasks(job) for pid in task.pids]
        return write_cgroup(self.root, name, version=1, pids=pids, cpus=cpus, nodes=mems)

    def stop(self, job: str) -> None:
        for task in self.pbs.tasks(job):
            for pid in task.pids:
                write_process(self.root, pid, state="T")

    def cpuset(self, job: str = JOB) -> tuple[str, str]:
        path = self.pbs.cgroups(job)[0]
        return tuple((path / f"cpuset.{name}").read_text().strip() for name in ("cpus", "mems"))  # type: ignore[return-value]

    # -- events ----------------------------------------------------------------------------------

    def event(
        self,
        point: str,
        job: str = JOB,
        vnodes: str | None = None,
        about: Mapping[str, object] | None = None,
        **data: Any,
    ) -> str:
        """Let an event be handled with all that follows from it; return a line about it."""
        about = {"id": job, "exec_vnode": vnodes and exec_vnode(vnodes), **(about or {})}
        told: dict[str, Any] = {"job": about, "jobs": []}
        if point in ("periodic", "startup"):
            told |= {"job": None, "jobs": [about] if job else []}
            job = ""
        event = Event(scheduler="pbs", point=point, job=job, host="n1", data=told | data)
        dispatcher = self.dispatcher()
        result = dispatcher.handle(event, time.time())
        lines = [result.summary]
        more = list(result.more)
        while more:
            following = more.pop(0)
            result = dispatcher.handle(following, time.time())
            more += result.more
            lines += [f"{following.job}: {result.summary}"] if result.acted else []
        return "; ".join(lines)

    # -- the journal -----------------------------------------------------------------------------

    def home(self, job: str = JOB) -> NodeSet | None:
        """Return the nodes on which the job's memory was last."""
        known = self.journal.placements.known_tasks("pbs", job).get("job")
        return known.home.nodes if known else None

    def parked(self, job: str = JOB) -> Parked | None:
        return self.journal.notes.get("pbs", job, PARKED, parse)

    # -- memory ----------------------------------------------------------------------------------

    @property
    def moved(self) -> list[dict[int, int]]:
        return [self.map_of(request).moves for request in self.requests if not request.dry_run]

    def map_of(self, request: Request) -> NodeMap:
        if request.node_map is not None:
            return request.node_map
        if request.home:
            assert request.job is not None
            (task,) = self.pbs.tasks(request.job)
            topology = read_topology(self.root)
            home = task.placement.nodes
            away = topology.memory_nodes - home
            away = away if request.sources is None else away & request.sources
            return nearest(away, home, topology)
        assert request.sources is not None
        assert request.destinations is not None
        mapper = nearest if request.mapper == "nearest" else relative
        return mapper(request.sources, request.destinations, read_topology(self.root))

    def relocate(self, request: Request) -> Report:
        self.requests.append(request)
        assert request.job is not None
        assert request.scheduler == "pbs"
        has = self.residency[request.job]
        node_map = self.map_of(request)
        moves = {(old, new): has.get(old, 0) for old, new in node_map.moves.items() if has.get(old)}
        size = sum(moves.values())
        pid = request.pids[0] if request.pids else 1
        its = ProcessPlan(pid=pid, command="job", residency=has, moves=moves)
        plan = Plan(strategy="s", backend="b", node_map=node_map, processes=(its,))
        report = Report(
            outcome=Outcome.PLANNED,
            strategy="s",
            backend="b",
            node_map=node_map,
            bytes_planned=size,
            plan=plan,
        )
        if request.dry_run:
            return report
        self.on_move()
        outcome = Outcome.COMPLETE if request.home else self.outcome
        share = {Outcome.COMPLETE: 1.0, Outcome.PARTIAL: 0.5}.get(outcome, 0.0)
        after = dict(has)
        for (old, new), part in moves.items():
            after[old] -= int(share * part)
            after[new] = after.get(new, 0) + int(share * part)
        self.residency[request.job] = {node: its for node, its in after.items() if its}
        moved = sum(int(share * part) for part in moves.values())
        notes = () if outcome is Outcome.COMPLETE else ("no room",)
        return replace(
            report,
            outcome=outcome,
            bytes_moved=moved,
            bytes_left=size - moved,
            notes=notes,
            plan=None,
        )


def exec_vnode(nodes: str) -> str:
    return "+".join(f"(n1[{node}]:ncpus=2)" for node in NodeSet.parse(nodes))


def put_parked(host: Host, tasks: Mapping[str, ParkedTask], *, widened: bool) -> None:
    """Let memory of the job be parked."""
    note = {
        "tasks": {
            name: {"home": str(task.home), "nodes": dict(task.nodes)}
            for name, task in tasks.items()
        },
        "widened": widened,
    }
    host.journal.notes.set("pbs", JOB, PARKED, json.dumps(note))
