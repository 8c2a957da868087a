"""Jobs of PBS on made-up hosts: which there are, their processes, CPUs and nodes."""

from __future__ import annotations

from pathlib import Path

import pytest

from schedhook.testing.hosts import (
    FakeNode,
    write_cgroup,
    write_cgroup_mounts,
    write_host,
    write_process,
)
from schedhook.values.errors import UsageError
from schedhook.values.model import Placement
from schedhook.values.sets import CpuSet, NodeSet
from schedhook_plugins.schedulers.pbs.jobs import session_of
from schedhook_plugins.schedulers.pbs.notes import Fence, PbsNotes, Told
from schedhook_plugins.schedulers.pbs.scheduler import PbsScheduler

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


# -- jobs ----------------------------------------------------------------------------------------


def test_jobs_and_their_processes_are_those_of_cgroups(host: Path, version: int) -> None:
    add_job(host, "12.n1", version, pids=(100, 101), cpus="0", nodes="0")
    add_job(host, "13[2].n1", version, pids=(102,), cpus="2", nodes="1")
    pbs = PbsScheduler(host)
    assert pbs.jobs() == ("12.n1", "13[2].n1")
    assert pbs.tasks("12.n1")[0].pids == (100, 101)
    (task,) = pbs.tasks("13[2].n1")
    assert (task.name, task.pids) == ("job", (102,))
    assert (task.placement.cpus, task.placement.nodes) == (CpuSet({2}), NodeSet({1}))
    assert [path.name for path in pbs.cgroups("12.n1")] == ["12.n1"]


def test_a_short_id_will_do_where_it_says_enough(host: Path, version: int) -> None:
    add_job(host, "12.n1", version, cpus="0", nodes="0")
    pbs = PbsScheduler(host)
    assert pbs.tasks("12") == pbs.tasks("12.n1") != ()
    add_job(host, "12.n2", version, cpus="0", nodes="0")
    assert pbs.tasks("12") == ()
    with pytest.raises(UsageError, match=r"12 names several jobs; name one: 12\.n1, 12\.n2"):
        pbs.resolve("12")


def test_a_subjob_is_found_by_its_short_id_and_an_array_lists_its_subjobs(
    host: Path, version: int
) -> None:
    for name in ("12[3].n1", "12[40].n1", "13.n1"):
        add_job(host, name, version, cpus="0", nodes="0")
    pbs = PbsScheduler(host)
    ids = {"12[3]": "12[3].n1", "12[40].n1": "12[40].n1", "13": "13.n1", "14": "14", "1": "1"}
    assert {text: pbs.resolve(text) for text in ids} == ids
    for text in ("12", "12[]", "12[].n1"):
        with pytest.raises(UsageError, match=r"12.* is an array; .* 12\[3\].n1, 12\[40\].n1"):
            pbs.resolve(text)
    assert pbs.resolve("12[].n2") == "12[].n2"


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
    assert pbs.tasks("12.n1")[0].pids == (100, 105)
    assert [path.parts[-4] for path in pbs.cgroups("12.n1")] == ["cpuset", "memory"]


def test_a_cgroup_without_a_process_is_no_job(host: Path, version: int) -> None:
    add_job(host, "12.n1", version, pids=(100,), cpus="0", nodes="0")
    add_job(host, "13.n1", version, pids=(), cpus="2", nodes="1")
    if version == 2:
        write_cgroup(host, f"{JOBS}/13.n1", files={"cgroup.events": "populated 0\nfrozen 0\n"})
    assert PbsScheduler(host).jobs() == ("12.n1",)


def test_without_cgroups_sessions_tell_the_processes(host: Path) -> None:
    write_process(host, 200, cpus="4", nodes="0-3", uid=1000)
    write_process(host, 201, cpus="5", nodes="0-3", uid=1000)
    write_process(host, 202, cpus="5", nodes="0-3", uid=2000)
    for pid in (200, 201, 202):
        set_session(host, pid, 200)
    pbs = PbsScheduler(host)
    assert pbs.tasks("14.n1") == ()
    notes_of(pbs).set_told("14.n1", Told(sessions=(200,), user=1000))
    (task,) = pbs.tasks("14.n1")
    # 202 has a session of the same number, but belongs to another user.
    assert task.pids == (200, 201)
    assert (task.placement.cpus, task.placement.nodes) == (CpuSet({4, 5}), NodeSet({2}))
    assert pbs.jobs() == ("14.n1",)
    assert session_of(201, host) == 200
    assert session_of(999, host) is None


def notes_of(scheduler: PbsScheduler) -> PbsNotes:
    return PbsNotes(lambda: scheduler.notes)


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
    notes_of(pbs).set_told("12.n1", Told(exec_vnode=vnodes, host="n1"))
    (task,) = pbs.tasks("12.n1")
    assert task.placement == Placement(cpus=CpuSet.parse(cpus), nodes=NodeSet.parse(nodes))
    assert pbs.granted("12.n1") == ({"job": task.placement} if granted else {})


@pytest.mark.parametrize(("wide", "nodes"), [("0-2", "0"), ("0-3", "0-2")])
def test_a_fence_that_was_widened_is_what_it_was(
    host: Path, version: int, wide: str, nodes: str
) -> None:
    """Unless PBS has written it since."""
    add_job(host, "12.n1", version, cpus="0", nodes="0-2")
    pbs = PbsScheduler(host)
    notes_of(pbs).set_fence("12.n1", Fence(before="0", wide=wide))
    assert pbs.tasks("12.n1")[0].placement.nodes == NodeSet.parse(nodes)


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
    (task,) = PbsScheduler(tmp_path).tasks("12.n1")
    assert task.placement.nodes == NodeSet({2})


def test_nothing_of_a_job_that_is_not_here(host: Path) -> None:
    pbs = PbsScheduler(host)
    assert (pbs.tasks("99.n1"), pbs.granted("99.n1"), pbs.cgroups("99.n1")) == ((), {}, ())
