"""What is done at PBS's events, on a made-up host with a relocation that only keeps accounts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schedhook.host.topology import Node, Topology, read_topology
from schedhook.journal.journal import Journal
from schedhook.roles.request import Request
from schedhook.testing.hosts import (
    FakeNode,
    write_cgroup,
    write_cgroup_mounts,
    write_file,
    write_host,
    write_process,
)
from schedhook.values.errors import SchedhookError
from schedhook.values.model import Event, NodeMap, Outcome, Plan, ProcessPlan, Report
from schedhook.values.sets import CpuSet, NodeSet
from schedhook_plugins.mappers import nearest, relative
from schedhook_plugins.schedulers.pbs.actions import Actions, Periodic, act
from schedhook_plugins.schedulers.pbs.adapter import PbsScheduler
from schedhook_plugins.schedulers.pbs.free_nodes import find_place, park_nodes
from schedhook_plugins.schedulers.pbs.state import Parked
from tests.unit.agentkit import homes

MIB = 1 << 20
NOBODY = 5_000_000
"""More than any process number that Linux gives: nobody real is bound by accident."""
JOB = "12.n1"


class Host:
    """Four nodes of two processors; jobs with residency in MiB, which relocations move."""

    def __init__(self, root: Path) -> None:
        self.root = root
        nodes = [FakeNode(number=n, cpus=f"{2 * n}-{2 * n + 1}") for n in range(4)]
        write_host(root, nodes)
        write_cgroup_mounts(root, version=1)
        write_cgroup(root, "pbs_jobs.service/jobid", version=1, cpus="0-7", nodes="0-3")
        self.pbs = PbsScheduler(root)
        self.journal = Journal.in_memory()
        self.residency: dict[str, dict[int, int]] = {}
        self.requests: list[Request] = []
        self.outcome = Outcome.COMPLETE
        self.actions: dict[str, str] = {}
        self.on_move: Callable[[], None] = lambda: None

    def job(self, job: str, cpus: str, mems: str, **mib: int) -> Path:
        number = NOBODY + len(self.residency)
        write_process(self.root, number, cpus=cpus, nodes=mems)
        self.residency[job] = {int(node[1:]): size * MIB for node, size in mib.items()}
        return self.place(job, cpus, mems, number)

    def place(self, job: str, cpus: str, mems: str, pid: int | None = None) -> Path:
        name = f"pbs_jobs.service/jobid/{job}"
        pids = [pid] if pid else list(self.pbs.pids(job))
        return write_cgroup(self.root, name, version=1, pids=pids, cpus=cpus, nodes=mems)

    def stop(self, job: str) -> None:
        for pid in self.pbs.pids(job):
            write_process(self.root, pid, state="T")

    def cpuset(self, job: str = JOB) -> tuple[str, str]:
        path = self.pbs.cgroups(job)[0]
        return tuple((path / f"cpuset.{name}").read_text().strip() for name in ("cpus", "mems"))  # type: ignore[return-value]

    def event(
        self,
        point: str,
        job: str = JOB,
        vnodes: str | None = None,
        about: Mapping[str, object] | None = None,
        **data: Any,
    ) -> str:
        about = {"id": job, "exec_vnode": vnodes and exec_vnode(vnodes), **(about or {})}
        told: dict[str, Any] = {"actions": self.actions, "job": about, "jobs": []}
        if point in ("periodic", "startup"):
            told |= {"job": None, "jobs": [about] if job else []}
            job = ""
        event = Event(scheduler="pbs", point=point, job=job, host="n1", data=told | data)
        return act(self.pbs, event, self.journal, self.relocate)

    @property
    def moved(self) -> list[dict[int, int]]:
        return [self.map_of(request).moves for request in self.requests if not request.dry_run]

    def map_of(self, request: Request) -> NodeMap:
        if request.node_map is not None:
            return request.node_map
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
        its = ProcessPlan(pid=1, command="job", residency=has, moves=moves)
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
        if self.outcome is not Outcome.COMPLETE:
            return replace(report, outcome=self.outcome, bytes_left=size, notes=("no room",))
        after = {node: size for node, size in has.items() if node not in node_map.moves}
        for (_, new), size in moves.items():
            after[new] = after.get(new, 0) + size
        self.residency[request.job] = after
        return replace(report, outcome=Outcome.COMPLETE, bytes_moved=sum(moves.values()), plan=None)


def exec_vnode(nodes: str) -> str:
    return "+".join(f"(n1[{node}]:ncpus=2)" for node in NodeSet.parse(nodes))


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


# -- remembering ---------------------------------------------------------------------------------


def test_begin_remembers_and_end_forgets(host: Host) -> None:
    host.job(JOB, "0-1", "0")
    assert host.event("begin", vnodes="0") == "processors 0-1 on node 0"
    state = host.pbs.states.get(JOB)
    assert state is not None
    assert (state.nodes, state.exec_vnode, state.host) == (NodeSet({0}), "(n1[0]:ncpus=2)", "n1")
    assert host.event("end") == ""
    assert host.pbs.states.get(JOB) is None


def test_a_new_run_has_nothing_of_the_old_one(host: Host) -> None:
    host.job(JOB, "0-1", "0")
    host.pbs.states.update(JOB, suspended=True, sessions=(7,), nodes=NodeSet({3}))
    host.event("begin", vnodes="0")
    state = host.pbs.states.get(JOB)
    assert state is not None
    assert (state.suspended, state.sessions, state.nodes) == (False, (), NodeSet({0}))


def test_launch_and_attach_tell_sessions(host: Host) -> None:
    host.job(JOB, "0-1", "0")
    host.event("begin")
    host.event("launch", about={"session_id": 4711})
    for session in (1, 4800):
        write_file(host.root, f"proc/{NOBODY + 50}/stat", f"{NOBODY + 50} (a b) S 1 1 {session} 0")
        host.event("attach", pid=NOBODY + 50)
    host.event("attach", pid=NOBODY + 51)  # gone by now
    state = host.pbs.states.get(JOB)
    assert state is not None
    assert state.sessions == (4711, 4800)


@pytest.mark.parametrize("session", [None, "4711", 0, 1, -5, True, 1.5])
def test_sessions_that_are_none(host: Host, session: object) -> None:
    host.event("launch", about={"session_id": session})
    state = host.pbs.states.get(JOB)
    assert state is not None
    assert state.sessions == ()


# -- resize --------------------------------------------------------------------------------------


def test_resize_follows_to_what_is_left(host: Host) -> None:
    host.job(JOB, "0,4", "0,2", n0=100, n2=50)
    host.event("begin", vnodes="0,2")
    host.place(JOB, "4", "2")
    assert host.event("resize", vnodes="2") == "100.0 MiB moved (0:2), complete"
    assert host.residency[JOB] == {2: 150 * MIB}
    assert host.event("resize", vnodes="2") == "stays on node 2"
    assert homes(host.journal, "pbs", JOB)["job"].nodes == NodeSet({2})


def test_resize_without_fences_goes_by_vnodes(host: Host) -> None:
    host.job(JOB, "0,4", "0-3", n0=100)
    host.event("begin", vnodes="0,2")
    host.place(JOB, "4", "0-3")
    host.event("resize", vnodes="2")
    assert host.moved == [{0: 2}]


def test_resize_of_an_unknown_job_collects_from_everywhere(host: Host) -> None:
    host.job(JOB, "4", "2", n0=100, n1=10)
    host.event("resize", vnodes="2")
    assert host.residency[JOB] == {2: 110 * MIB}


def test_resize_that_could_not_be_done_is_not_forgotten(host: Host) -> None:
    host.job(JOB, "0,4", "0,2", n0=100)
    host.event("begin", vnodes="0,2")
    host.place(JOB, "4", "2")
    host.outcome = Outcome.REFUSED
    assert host.event("resize", vnodes="2").endswith("refused, 100.0 MiB left (): no room")
    host.outcome = Outcome.COMPLETE
    assert "100.0 MiB moved (0:2)" in host.event("periodic", vnodes="2")


def test_resize_left_alone(host: Host) -> None:
    host.actions = {"resize": "leave"}
    host.job(JOB, "4", "2", n0=100)
    assert "left alone" in host.event("resize", vnodes="2")
    assert host.requests == []


@pytest.mark.parametrize("vnodes", ["(n1[0", "left+right", "", None])
def test_an_exec_vnode_that_cannot_be_read_moves_nothing(host: Host, vnodes: str | None) -> None:
    host.job(JOB, "0-7", "0-3", n0=100)
    host.event("begin")
    line = host.event("resize", about={"exec_vnode": vnodes})
    assert line == "stays on node 0-3"
    assert host.requests == []


def test_a_job_that_is_not_here(host: Host) -> None:
    assert host.event("resize", vnodes="1") == "no process here"
    assert host.event("preresume", vnodes="1") == "nothing to mend"


# -- suspend and resume --------------------------------------------------------------------------


def test_suspended_memory_stays_unless_told_otherwise(host: Host) -> None:
    host.job(JOB, "0", "0", n0=100)
    assert host.event("postsuspend") == "suspended"
    assert host.requests == []
    assert host.pbs.suspended(JOB)
    host.event("preresume")
    assert not host.pbs.suspended(JOB)


def test_parked_and_back(host: Host) -> None:
    host.actions = {"postsuspend": "park"}
    host.job(JOB, "0-3", "0-1", n0=100, n1=50, n3=0)
    host.event("begin", vnodes="0-1")
    seen = []
    host.on_move = lambda: seen.append(host.cpuset()[1])
    assert host.event("postsuspend") == "parked: 150.0 MiB moved (0:2,1:3), complete"
    assert seen == ["0-3"], "the cpuset has to allow what comes"
    assert host.residency[JOB] == {2: 100 * MIB, 3: 50 * MIB}
    assert host.event("postsuspend") == "suspended"
    assert host.event("periodic", vnodes="0-1") == ""
    assert host.event("preresume") == "back: 150.0 MiB moved (2:0,3:1), complete"
    assert host.residency[JOB] == {0: 100 * MIB, 1: 50 * MIB}
    assert host.cpuset() == ("0-3", "0-1")
    assert host.event("preresume") == "nothing to mend"


def test_not_parked_where_nodes_would_be_mixed(host: Host) -> None:
    host.actions = {"postsuspend": "park", "park_nodes": "3"}
    host.job(JOB, "0-3", "0-1", n0=100, n1=50)
    assert "not parked" in host.event("postsuspend")
    assert host.moved == []


def test_a_refused_parking_leaves_no_trace(host: Host) -> None:
    host.actions = {"postsuspend": "park"}
    host.job(JOB, "0", "0", n0=100)
    host.outcome = Outcome.REFUSED
    host.event("postsuspend")
    assert host.cpuset() == ("0", "0")
    state = host.pbs.states.get(JOB)
    assert state is not None
    assert state.parked is None


def test_a_return_that_fails_is_tried_again(host: Host) -> None:
    host.actions = {"postsuspend": "park"}
    host.job(JOB, "0", "0", n0=100)
    host.event("begin", vnodes="0")
    host.event("postsuspend")
    host.outcome = Outcome.PARTIAL
    assert "tried again" in host.event("preresume")
    assert host.cpuset() == ("0", "0-1"), "narrower than its memory, it might be killed"
    host.outcome = Outcome.COMPLETE
    assert "back: 100.0 MiB moved (1:0)" in host.event("periodic", vnodes="0")
    assert host.cpuset() == ("0", "0")


def shared(host: Host) -> None:
    """12.n1 stopped, 13.n1 runs on its processors, 14.n1 on those of node 1."""
    host.job(JOB, "0-1", "0", n0=100)
    host.event("begin", vnodes="0")
    host.job("13.n1", "0-1", "0")
    host.job("14.n1", "2", "1")
    host.stop(JOB)


def test_sharing_is_reported(host: Host) -> None:
    shared(host)
    line = host.event("preresume")
    assert line == (
        'processors 0-1 are shared with 13.n1, 4-5 of node 2 are free: "preresume": "replace"'
        " would use them"
    )
    assert host.moved == []


def test_sharing_is_mended(host: Host) -> None:
    shared(host)
    host.actions = {"preresume": "replace"}
    seen = []
    host.on_move = lambda: seen.append(host.cpuset())
    line = host.event("preresume")
    assert "gets 4-5 of node 2: 100.0 MiB moved (0:2), complete" in line
    assert seen == [("0-1,4-5", "0,2")]
    assert host.cpuset() == ("4-5", "2")
    assert host.cpuset("13.n1") == ("0-1", "0")
    assert host.event("preresume") == "nothing to mend"


def test_a_job_without_a_fence_gets_none(host: Host) -> None:
    shared(host)
    host.place(JOB, "0-1", "0-3")
    host.actions = {"preresume": "replace"}
    host.event("preresume")
    assert host.cpuset() == ("4-5", "0-3")


def test_mended_from_where_it_was_parked(host: Host) -> None:
    shared(host)
    host.pbs.states.update(JOB, parked=Parked(node_map={0: 3}, mems="0"))
    host.residency[JOB] = {3: 100 * MIB}
    host.place(JOB, "0-1", "0,3")
    host.actions = {"preresume": "replace"}
    assert "100.0 MiB moved (3:2)" in host.event("preresume")
    assert host.cpuset() == ("4-5", "2")


def test_a_place_that_cannot_be_had_changes_nothing(host: Host) -> None:
    shared(host)
    host.actions = {"preresume": "replace"}
    host.outcome = Outcome.PARTIAL
    assert "not done: " in host.event("preresume")
    assert host.cpuset() == ("0-1", "0")


@pytest.mark.parametrize("why", ["stopped", "leave"])
def test_no_sharing_to_mend(host: Host, why: str) -> None:
    shared(host)
    host.actions = {"preresume": "replace"}
    if why == "stopped":
        host.stop("13.n1")
    else:
        host.actions = {"preresume": "leave"}
    assert host.event("preresume") == "nothing to mend"


def test_no_free_node(host: Host) -> None:
    shared(host)
    host.job("15.n1", "4-5", "2")
    host.job("16.n1", "7", "3")
    host.actions = {"preresume": "replace"}
    assert host.event("preresume").endswith("; no node is free for it")


# -- periodic ------------------------------------------------------------------------------------


def test_strays_go_home(host: Host) -> None:
    host.job(JOB, "2-3", "1", n1=100, n3=40)
    assert host.event("periodic", vnodes="1") == (
        "12.n1: 40.0 MiB lie outside of node 1: 40.0 MiB moved (0:1,2:1,3:1), complete"
    )
    assert host.event("periodic", vnodes="1") == ""


@pytest.mark.parametrize(
    ("mib", "home"),
    [({"n3": 10}, 0), ({"n3": 20}, 5000)],
)
def test_few_strays_may_stay(host: Host, mib: dict[str, int], home: int) -> None:
    host.job(JOB, "2-3", "1", n1=home, **mib)
    assert host.event("periodic", vnodes="1") == ""
    assert host.moved == []


def test_strays_only_reported(host: Host) -> None:
    host.actions = {"periodic": "report"}
    host.job(JOB, "2-3", "1", n3=40)
    assert host.event("periodic", vnodes="1") == "12.n1: 40.0 MiB lie outside of node 1"
    assert host.moved == []


def test_memory_elsewhere_is_no_trespass_where_pbs_granted_no_nodes(host: Host) -> None:
    host.job(JOB, "2-3", "0-3", n3=40)
    assert host.event("periodic") == ""
    assert host.requests == []


def test_one_jobs_trouble_is_not_the_others(host: Host) -> None:
    host.job(JOB, "2-3", "1", n3=40)
    host.job("13.n1", "4", "2", n3=40)
    for job in (JOB, "13.n1"):
        host.event("begin", job=job)

    def break_first() -> None:
        host.on_move = lambda: None
        raise SchedhookError("broken")

    host.on_move = break_first
    line = host.event("periodic")
    assert "12.n1: broken" in line
    assert "13.n1: 40.0 MiB lie outside" in line


@pytest.mark.parametrize("point", ["startup", "periodic"])
def test_jobs_whose_end_was_missed_are_forgotten(host: Host, point: str) -> None:
    host.job(JOB, "0", "0")
    host.event("begin")
    host.pbs.states.update("11.n1", nodes=NodeSet({1}))
    assert "forgot 11.n1" in host.event(point, job="")
    assert host.pbs.states.jobs() == (JOB,)


# -- choosing ------------------------------------------------------------------------------------


def topology(free: Mapping[int, int], distances: Mapping[tuple[int, int], int] = {}) -> Topology:
    return Topology(
        nodes={
            node: Node(
                number=node,
                cpus=CpuSet({2 * node, 2 * node + 1}),
                memory_total=8 * MIB,
                memory_free=size,
                distances={other: distances.get((node, other), 20) for other in free},
            )
            for node, size in free.items()
        }
    )


CPUS = st.sets(st.integers(0, 9), min_size=1, max_size=4).map(CpuSet)
SIZES = st.dictionaries(st.integers(0, 4), st.integers(0, 8 * MIB), min_size=5, max_size=5)


@given(CPUS, st.sets(st.integers(0, 9)), SIZES, SIZES)
def test_a_place_is_free_apart_and_large_enough(
    cpus: CpuSet, taken: set[int], needed: dict[int, int], free: dict[int, int]
) -> None:
    here = topology(free)
    place = find_place(cpus, needed, taken, here.cpus, here)
    if place is None:
        return
    new = CpuSet(place.cpus.values())
    assert set(place.cpus) == cpus
    assert len(new) == len(cpus)
    assert not new & taken
    assert not new & cpus
    assert len(set(place.nodes.values())) == len(place.nodes)
    assert not set(place.nodes) & set(place.nodes.values())
    for old, to in place.nodes.items():
        assert here.free(to) >= needed.get(old, 0)
        assert {place.cpus[cpu] for cpu in cpus & here.cpus_of([old])} <= here.cpus_of([to])


def test_the_nearest_place_is_taken() -> None:
    here = topology(dict.fromkeys(range(4), MIB), {(0, 1): 24, (0, 2): 12, (0, 3): 20})
    place = find_place(CpuSet({0}), {0: 1}, [4], here.cpus, here)
    assert place is not None
    assert place.nodes == {0: 2}
    assert place.cpus == {0: 5}


@given(SIZES, st.sets(st.integers(0, 4)), SIZES, st.sets(st.integers(0, 4)))
def test_parking_keeps_apart_what_was_apart(
    needed: dict[int, int], candidates: set[int], free: dict[int, int], occupied: set[int]
) -> None:
    nodes = park_nodes(NodeSet(occupied), needed, NodeSet(candidates), topology(free), 0)
    if nodes is None:
        return
    assert set(nodes) == {node for node, size in needed.items() if size}
    assert len(set(nodes.values())) == len(nodes)
    assert set(nodes.values()) <= candidates - set(needed)
    assert all(free[new] >= needed[old] for old, new in nodes.items())


# -- configuration -------------------------------------------------------------------------------


@given(st.recursive(st.none() | st.text(max_size=5) | st.integers(), st.lists, max_leaves=3))
def test_actions_that_cannot_be_read_are_the_defaults(value: object) -> None:
    assert Actions.read(value) == Actions()
    known = ("resize", "postsuspend", "preresume", "periodic", "other")
    assert Actions.read(dict.fromkeys(known, value)) == Actions()


def test_what_can_be_read_holds_beside_what_cannot() -> None:
    actions = Actions.read({"periodic": "report", "resize": "x", "park_nodes": "2-3"})
    assert actions == Actions(periodic=Periodic.REPORT, park_nodes=NodeSet({2, 3}))
