"""The PBS adapter on made-up hosts: which jobs, whose processes, where they belong."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schedhook.testing.hosts import (
    FakeNode,
    write_cgroup,
    write_cgroup_mounts,
    write_host,
    write_process,
)
from schedhook.values.errors import UsageError
from schedhook.values.sets import CpuSet, NodeSet
from schedhook_plugins.schedulers.pbs.adapter import PbsScheduler
from schedhook_plugins.schedulers.pbs.state import JobState, Parked, States

JOBS = "pbs_jobs.service/jobid"


@pytest.fixture(params=[1, 2])
def version(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture
def host(tmp_path: Path, version: int) -> Path:
    """Four nodes of two processors each."""
    write_host(tmp_path, [FakeNode(number=n, cpus=f"{2 * n}-{2 * n + 1}") for n in range(4)])
    write_cgroup_mounts(tmp_path, version=version)
    return tmp_path


def add_job(
    root: Path, job: str, version: int, *, pids: tuple[int, ...] = (100,), cpus: str, nodes: str
) -> None:
    write_cgroup(
        root,
        f"{JOBS}/{job}",
        version=version,
        pids=pids,
        cpus=cpus,
        nodes=nodes,
        effective_cpus=cpus,
        effective_nodes=nodes,
    )
    for pid in pids:
        write_process(root, pid, cpus=cpus, nodes=nodes)


def told(job: str | None, **more: object) -> bytes:
    about = None if job is None else {"id": job, "euser": "root", "exec_vnode": None}
    return json.dumps({"job": about, "host": "n1", "jobs": [], **more}).encode()


# -- events --------------------------------------------------------------------------------------


def test_an_event_is_read(tmp_path: Path) -> None:
    event = PbsScheduler(tmp_path).read_event("resize", {}, told("12[3].n1"))
    assert (event.scheduler, event.point, event.job) == ("pbs", "resize", "12[3].n1")
    assert (event.user, event.host) == (0, "n1")
    assert PbsScheduler(tmp_path).read_event("periodic", {}, told(None)).job == ""


@pytest.mark.parametrize(
    "data", [b"", b"\xff", b"[]", b"7", b'{"job": 7}', b'{"jobs": {"1": 2}}', b'{"job": "x"}', b"["]
)
def test_what_is_no_event_is_a_usage_error(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(UsageError, match="PBS event begin: "):
        PbsScheduler(tmp_path).read_event("begin", {}, data)


@given(st.recursive(st.none() | st.integers() | st.text(max_size=3), st.lists, max_leaves=5))
def test_whatever_a_job_is_said_to_be(value: object) -> None:
    data = json.dumps({"job": {"id": value, "euser": value, "exec_vnode": value}, "host": value})
    event = PbsScheduler(Path("/nowhere")).read_event("begin", {}, data.encode())
    assert isinstance(event.job, str)


# -- jobs ----------------------------------------------------------------------------------------


def test_jobs_and_their_processes_are_those_of_cgroups(host: Path, version: int) -> None:
    add_job(host, "12.n1", version, pids=(100, 101), cpus="0", nodes="0")
    add_job(host, "13[2].n1", version, pids=(102,), cpus="2", nodes="1")
    pbs = PbsScheduler(host)
    assert pbs.jobs() == ("12.n1", "13[2].n1")
    assert pbs.pids("12.n1") == (100, 101)
    (task,) = pbs.tasks("13[2].n1")
    assert (task.name, task.pids) == ("job", (102,))
    assert (task.placement.cpus, task.placement.nodes) == (CpuSet({2}), NodeSet({1}))
    assert [path.name for path in pbs.cgroups("12.n1")] == ["12.n1"]


def test_a_short_id_will_do_where_it_says_enough(host: Path, version: int) -> None:
    add_job(host, "12.n1", version, cpus="0", nodes="0")
    pbs = PbsScheduler(host)
    assert pbs.full_id("12") == "12.n1"
    add_job(host, "12.n2", version, cpus="0", nodes="0")
    assert pbs.full_id("12") == "12"
    assert pbs.tasks("12") == ()


@pytest.mark.parametrize("job", ["", "..", "../x", "a/b", "x\0y"])
def test_what_could_be_a_path_is_no_job(host: Path, job: str) -> None:
    with pytest.raises(UsageError):
        PbsScheduler(host).tasks(job)


def test_a_site_may_call_the_service_otherwise(host: Path, version: int) -> None:
    write_cgroup(host, "batch.service/jobid/1.n1", version=version, pids=(7,), cpus="0", nodes="0")
    assert PbsScheduler(host).jobs() == ("1.n1",)


def test_cgroups_of_several_hierarchies_are_one_job(host: Path, version: int) -> None:
    if version == 2:
        return
    add_job(host, "12.n1", version, pids=(100,), cpus="0", nodes="0")
    memory = host / "sys/fs/cgroup/memory" / JOBS / "12.n1"
    memory.mkdir(parents=True)
    (memory / "cgroup.procs").write_text("100\n105\n")
    pbs = PbsScheduler(host)
    assert pbs.pids("12.n1") == (100, 105)
    assert [path.parts[-4] for path in pbs.cgroups("12.n1")] == ["cpuset", "memory"]


def test_without_cgroups_sessions_tell_the_processes(host: Path) -> None:
    write_process(host, 200, cpus="4", nodes="0-3", uid=1000)
    write_process(host, 201, cpus="5", nodes="0-3", uid=1000)
    write_process(host, 202, cpus="5", nodes="0-3", uid=2000)
    for pid in (200, 201, 202):
        set_session(host, pid, 200)
    pbs = PbsScheduler(host)
    assert pbs.tasks("14.n1") == ()
    pbs.states.put(JobState(job="14.n1", sessions=(200,), user=1000))
    (task,) = pbs.tasks("14.n1")
    # 202 has the same session's number, but is somebody else's.
    assert task.pids == (200, 201)
    assert (task.placement.cpus, task.placement.nodes) == (CpuSet({4, 5}), NodeSet({2}))
    assert pbs.jobs() == ("14.n1",)
    assert pbs.session_of(201) == 200
    assert pbs.session_of(999) is None


def set_session(root: Path, pid: int, session: int) -> None:
    path = root / "proc" / str(pid) / "stat"
    head, bracket, rest = path.read_text().rpartition(")")
    fields = rest.split()
    fields[3] = str(session)
    path.write_text(f"{head}{bracket} {' '.join(fields)}\n")


# -- placement -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cpus", "mems", "vnodes", "nodes", "granted"),
    [
        # A fence is what holds, whatever the vnodes say.
        ("0-1", "0", None, "0", True),
        ("0-1", "2", "(n1[0]:ncpus=2)", "2", True),
        # Without one: the vnodes, as long as the processors are on them.
        ("0,4", "0-3", "(n1[0]:ncpus=1)+(n1[2]:ncpus=1)", "0,2", True),
        ("0", "0-3", "(n1[0]:ncpus=1+n1[1]:mem=1gb)", "0-1", True),
        ("0", "0-3", "(n1[0]:ncpus=1)+(n2[3]:ncpus=1)", "0", True),
        ("6", "0-3", "(n1[0]:ncpus=1)", "3", False),
        # Else the processors' own.
        ("0-3", "0-3", None, "0-1", False),
        ("0-3", "0-3", "(n1:ncpus=4)", "0-1", False),
        ("0-3", "0-3", "(left:ncpus=4)", "0-1", False),
        ("0-3", "0-3", "(n1[0]:ncpus=1", "0-1", False),
        ("0-3", "0-3", "(n1[9]:ncpus=1)", "0-1", False),
    ],
)
def test_nodes_of_a_job(
    host: Path, version: int, cpus: str, mems: str, vnodes: str | None, nodes: str, granted: bool
) -> None:
    add_job(host, "12.n1", version, cpus=cpus, nodes=mems)
    pbs = PbsScheduler(host)
    pbs.states.put(JobState(job="12.n1", exec_vnode=vnodes, host="n1"))
    placement = pbs.placement("12.n1")
    assert placement is not None
    assert (placement.cpus, placement.nodes) == (CpuSet.parse(cpus), NodeSet.parse(nodes))
    assert pbs.granted_nodes("12.n1") == (NodeSet.parse(nodes) if granted else None)


def test_processors_of_a_node_without_memory_stand_for_the_nearest(tmp_path: Path) -> None:
    near = {1: 20, 2: 15}
    write_host(
        tmp_path,
        nodes=[
            FakeNode(number=0, cpus="0", memory=0, free=0, distances=near),
            FakeNode(number=1, cpus="1"),
            FakeNode(number=2, cpus="2"),
        ],
    )
    write_cgroup_mounts(tmp_path, version=2)
    add_job(tmp_path, "12.n1", 2, cpus="0", nodes="1-2")
    placement = PbsScheduler(tmp_path).placement("12.n1")
    assert placement is not None
    assert placement.nodes == NodeSet({2})


def test_no_placement_of_a_job_that_is_not_here(host: Path) -> None:
    assert PbsScheduler(host).placement("99.n1") is None


# -- state ---------------------------------------------------------------------------------------

STATES = st.builds(
    JobState,
    job=st.text(min_size=1, max_size=12).filter(lambda text: "\0" not in text and "/" not in text),
    exec_vnode=st.none() | st.text(max_size=9),
    host=st.text(max_size=5),
    user=st.none() | st.integers(0, 9999),
    sessions=st.lists(st.integers(2, 9999), max_size=3).map(tuple),
    nodes=st.none() | st.sets(st.integers(0, 9)).map(NodeSet),
    suspended=st.booleans(),
    parked=st.none()
    | st.builds(
        Parked,
        node_map=st.dictionaries(st.integers(0, 9), st.integers(0, 9), max_size=2),
        mems=st.text("0123-,", max_size=4),
    ),
)


@given(STATES)
def test_a_state_survives_its_file(state: JobState) -> None:
    assert JobState.from_json(state.to_json()) == state


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"job": "1", "nodes": "x"}', '{"job": "1", "sessions": 7}', "\xff"]
)
def test_a_broken_state_is_none(tmp_path: Path, text: str) -> None:
    states = States(tmp_path)
    states.put(JobState(job="1.n1"))
    (file,) = (tmp_path / "run/schedhook/pbs").iterdir()
    file.write_text(text, encoding="latin-1")
    assert states.get("1.n1") is None
    assert states.update("1.n1", host="n1") == JobState(job="1.n1", host="n1")


@pytest.mark.parametrize("job", ["12[3].n1", ".", "..", ".hidden", "a/b", "ü%2E"])
def test_a_state_of_any_job(tmp_path: Path, job: str) -> None:
    states = States(tmp_path)
    states.put(JobState(job=job, host="x"))
    assert states.jobs() == (job,)
    assert states.get(job) == JobState(job=job, host="x")
    assert [path.parent for path in tmp_path.rglob("*") if path.is_file()] == [
        tmp_path / "run/schedhook/pbs"
    ]
    states.forget(job)
    assert states.jobs() == ()


def test_states_are_roots_own(tmp_path: Path) -> None:
    States(tmp_path).put(JobState(job="1"))
    assert os.stat(tmp_path / "run/schedhook/pbs").st_mode & 0o777 == 0o700  # noqa: PTH116


def test_a_name_that_is_no_text_is_a_name(tmp_path: Path) -> None:
    states = States(tmp_path)
    states.put(JobState(job="7\udcff.n1"))
    assert states.jobs() == ("7\udcff.n1",)
    assert states.get("7\udcff.n1") is not None
