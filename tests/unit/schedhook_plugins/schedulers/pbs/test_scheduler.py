"""What is done at PBS's events, on a made-up host with a relocation that only keeps accounts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from schedhook.agent.dispatcher import Dispatcher
from schedhook.agent.parking import ParkedTask
from schedhook.host.topology import read_topology
from schedhook.journal.journal import Journal
from schedhook.plugins.loading import load_plugins
from schedhook.testing.hosts import (
    PAGE,
    FakeArea,
    FakeNode,
    write_cgroup,
    write_cgroup_mounts,
    write_file,
    write_host,
    write_process,
)
from schedhook.values.actions import AnyNode, OnRelocation, OnSharedProcessors, Repatriate
from schedhook.values.config import Config, PluginsSection, RelocationSection
from schedhook.values.errors import SchedhookError
from schedhook.values.model import Event, Outcome
from schedhook.values.sets import CpuSet, NodeSet
from schedhook_plugins.schedulers.pbs.notes import Fence, Told
from tests.pbs.cgroups import CgroupsHook
from tests.unit.schedhook_plugins.schedulers.pbs.host import (
    JOB,
    MIB,
    UNUSED,
    Host,
    exec_vnode,
    put_parked,
)

REPLACE = {"on_shared_processors": OnSharedProcessors.REPLACE}
PARK = {"park": AnyNode.ANY}


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


# -- remembering ---------------------------------------------------------------------------------


def test_begin_remembers_and_end_forgets(host: Host) -> None:
    host.job(JOB, "0-1", "0")
    assert host.event("begin", vnodes="0") == "started"
    told = host.notes.told(JOB)
    assert (told.exec_vnode, told.host) == ("(n1[0]:ncpus=2)", "n1")
    assert host.home() == NodeSet({0})
    assert host.event("end") == "ended"
    assert host.notes.told(JOB) == Told()
    assert host.home() is None


def test_begin_remembers_the_nodes_of_a_job_that_has_no_process_yet(host: Host) -> None:
    host.place(JOB, "0-1", "0")
    host.event("begin", vnodes="0")
    assert host.home() == NodeSet({0})


def test_a_new_run_has_nothing_of_the_old_one(host: Host) -> None:
    host.job(JOB, "0-1", "0")
    host.notes.set_told(JOB, Told(suspended=True, sessions=(7,)))
    host.event("begin", vnodes="0")
    told = host.notes.told(JOB)
    assert (told.suspended, told.sessions) == (False, ())


def test_launch_and_attach_tell_sessions(host: Host) -> None:
    host.job(JOB, "0-1", "0")
    host.event("begin")
    host.event("launch", about={"session_id": 4711})
    for session in (1, 4800):
        write_file(host.root, f"proc/{UNUSED + 50}/stat", f"{UNUSED + 50} (a b) S 1 1 {session} 0")
        host.event("attach", pid=UNUSED + 50)
    host.event("attach", pid=UNUSED + 51)  # gone by now
    assert host.notes.told(JOB).sessions == (4711, 4800)


@pytest.mark.parametrize("session", [None, "4711", 0, 1, -5, True, 1.5])
def test_sessions_that_are_none(host: Host, session: object) -> None:
    host.event("launch", about={"session_id": session})
    assert host.notes.told(JOB).sessions == ()


# -- resize --------------------------------------------------------------------------------------


def test_resize_follows_to_what_is_left(host: Host) -> None:
    host.job(JOB, "0,4", "0,2", n0=100, n2=50)
    host.event("begin", vnodes="0,2")
    host.place(JOB, "4", "2")
    assert host.event("resize", vnodes="2") == "job: moved 100.0 MiB 0:2,2:2, complete"
    assert host.residency[JOB] == {2: 150 * MIB}
    assert host.event("resize", vnodes="2") == "all in place"
    assert host.home() == NodeSet({2})


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
    assert "moved 100.0 MiB 0:2" in host.event("periodic", vnodes="2")


@pytest.mark.parametrize("known", [True, False])
def test_resize_left_alone(host: Host, known: bool) -> None:
    host.actions = {"on_relocation": OnRelocation.NONE}
    host.job(JOB, "4", "2", n0=100)
    if known:
        host.place(JOB, "0", "0")
        host.event("begin")
        host.place(JOB, "4", "2")
    assert "as configured" in host.event("resize", vnodes="2")
    assert host.requests == []


@pytest.mark.parametrize("vnodes", ["(n1[0", "left+right", "", None])
def test_an_exec_vnode_that_cannot_be_read_moves_nothing(host: Host, vnodes: str | None) -> None:
    host.job(JOB, "0-7", "0-3", n0=100)
    host.event("begin")
    assert host.event("resize", about={"exec_vnode": vnodes}) == "all in place"
    assert host.requests == []


def test_a_job_that_is_not_here(host: Host) -> None:
    assert host.event("resize", vnodes="1") == "no processes here"
    assert host.event("preresume", vnodes="1") == "no processes here"


# -- suspend and resume --------------------------------------------------------------------------


def test_suspended_memory_stays_unless_configured(host: Host) -> None:
    host.job(JOB, "0", "0", n0=100)
    assert host.event("postsuspend") == "all in place"
    assert host.requests == []
    assert host.pbs.suspended(JOB)
    host.event("preresume")
    assert not host.pbs.suspended(JOB)


def test_parked_and_back(host: Host) -> None:
    host.actions = PARK
    host.job(JOB, "0-3", "0-1", n0=100, n1=50, n3=0)
    host.event("begin", vnodes="0-1")
    seen = []
    host.on_move = lambda: seen.append(host.cpuset()[1])
    assert host.event("postsuspend") == "job: moved 150.0 MiB 0:2,1:3, complete"
    assert seen == ["0-3"], "the cpuset has to allow what comes"
    assert host.residency[JOB] == {2: 100 * MIB, 3: 50 * MIB}
    assert host.event("postsuspend") == "all in place"
    assert host.event("periodic", vnodes="0-1") == "1 jobs to look at"
    assert host.event("preresume") == "job: moved 150.0 MiB 2:0,3:1, complete"
    assert host.residency[JOB] == {0: 100 * MIB, 1: 50 * MIB}
    assert host.cpuset() == ("0-3", "0-1")
    assert host.event("preresume") == "all in place"


def test_parked_on_configured_nodes(host: Host) -> None:
    host.actions = {"park": NodeSet({3})}
    host.job(JOB, "0-1", "0", n0=100)
    host.event("postsuspend")
    assert host.residency[JOB] == {3: 100 * MIB}
    host.event("preresume")
    assert host.residency[JOB] == {0: 100 * MIB}
    assert host.cpuset() == ("0-1", "0")


def test_not_parked_if_nodes_would_be_mixed(host: Host) -> None:
    host.actions = {"park": NodeSet({3})}
    host.job(JOB, "0-3", "0-1", n0=100, n1=50)
    assert "not parked" in host.event("postsuspend")
    assert host.moved == []


def test_a_refused_parking_leaves_no_trace(host: Host) -> None:
    host.actions = PARK
    host.job(JOB, "0", "0", n0=100)
    host.outcome = Outcome.REFUSED
    host.event("postsuspend")
    assert host.cpuset() == ("0", "0")
    assert host.parked() is None


def test_a_return_that_fails_is_tried_again(host: Host) -> None:
    host.actions = PARK
    host.job(JOB, "0", "0", n0=100)
    host.event("begin", vnodes="0")
    host.event("postsuspend")
    host.outcome = Outcome.PARTIAL
    host.event("preresume")
    assert host.cpuset() == ("0", "0-1"), "narrower than its memory, it might be killed"
    host.outcome = Outcome.COMPLETE
    assert "moved 50.0 MiB 1:0" in host.event("periodic", vnodes="0")
    assert host.cpuset() == ("0", "0")


def test_a_cpuset_that_pbs_wrote_meanwhile_is_left(host: Host) -> None:
    host.actions = PARK
    host.job(JOB, "0", "0", n0=100)
    host.event("begin", vnodes="0")
    host.event("postsuspend")
    host.place(JOB, "6", "3")
    host.event("preresume", vnodes="3")
    assert host.cpuset() == ("6", "3")
    assert host.residency[JOB] == {3: 100 * MIB}


def bind(host: Host, policy: str) -> None:
    """Give the job's process a memory policy."""
    area = FakeArea(start=PAGE, size=PAGE, policy=policy)
    write_process(host.root, UNUSED, areas=[area], state="T")


@pytest.mark.parametrize(
    ("policy", "park", "mems"),
    [("bind:2", "3", "2-3"), ("bind:2", "0", "2"), ("prefer:2", "0", "0,2")],
)
def test_not_parked_where_that_would_change_a_memory_policy(
    host: Host, policy: str, park: str, mems: str
) -> None:
    """With 0,2 instead of 2 the kernel makes bind:0 of bind:2."""
    host.actions = {"park": NodeSet.parse(park)}
    host.job(JOB, "4-5", "2", n2=100)
    bind(host, policy)
    seen = []
    host.on_move = lambda: seen.append(host.cpuset()[1])
    line = host.event("postsuspend")
    if mems == "2":
        assert "not parked: with cpuset.mems 0,2 the kernel would change" in line
        assert "bind:2 → bind:0" in line
        assert host.parked() is None
    assert seen == ([] if mems == "2" else [mems])


WHOLE_HOST = "(n1:ncpus=2)"


def shared(host: Host, vnodes: str | None = WHOLE_HOST) -> None:
    """12.n1 stopped, 13.n1 runs on its CPUs, 14.n1 on those of node 1."""
    host.job(JOB, "0-1", "0", n0=100)
    host.event("begin", about={"exec_vnode": vnodes})
    host.job("13.n1", "0-1", "0")
    host.job("14.n1", "2", "1")
    host.stop(JOB)


def test_sharing_is_reported(host: Host) -> None:
    shared(host)
    line = host.event("preresume")
    assert line == (
        "CPUs 0-1 are shared with 13.n1; 4-5 of node 2 are free:"
        ' on_shared_processors = "replace" would use them'
    )
    assert host.moved == []


def test_sharing_is_resolved(host: Host) -> None:
    shared(host)
    host.actions = REPLACE
    seen = []
    host.on_move = lambda: seen.append(host.cpuset())
    line = host.event("preresume")
    assert "gets 4-5 of node 2: moved 100.0 MiB 0:2, complete" in line
    assert seen == [("0-1,4-5", "0,2")]
    assert host.cpuset() == ("4-5", "2")
    assert host.cpuset("13.n1") == ("0-1", "0")
    assert host.event("preresume") == "all in place"
    assert host.home() == NodeSet({2})


def test_sharing_is_not_resolved_if_that_would_change_a_memory_policy(host: Host) -> None:
    """Its memory moves from node 0 to 2, and 0-1 becomes 1-2: by rank, 1 becomes 2."""
    shared(host)
    host.place(JOB, "0-1", "0-1")
    bind(host, "bind:1")
    host.actions = REPLACE
    line = host.event("preresume")
    assert "free, but the kernel would change its memory policies: bind:1 → bind:2" in line, line
    assert (host.moved, host.cpuset()) == ([], ("0-1", "0-1"))


def test_a_job_without_a_fence_gets_none(host: Host) -> None:
    shared(host)
    host.place(JOB, "0-1", "0-3")
    host.actions = REPLACE
    host.event("preresume")
    assert host.cpuset() == ("4-5", "0-3")


def parked_on_3(host: Host) -> None:
    put_parked(host, {"job": ParkedTask(home=NodeSet({0}), nodes={0: 3})}, widened=True)
    host.notes.set_fence(JOB, Fence(before="0", wide="0,3"))
    host.residency[JOB] = {3: 100 * MIB}
    host.place(JOB, "0-1", "0,3")
    host.actions = REPLACE


def test_sharing_is_resolved_from_where_memory_is_parked(host: Host) -> None:
    shared(host)
    parked_on_3(host)
    assert "moved 100.0 MiB 3:2" in host.event("preresume")
    assert host.cpuset() == ("4-5", "2")
    assert host.parked() is None


def moves_end(host: Host, *outcomes: Outcome) -> None:
    """Let the next moves end so, in turn."""
    left = list(outcomes)

    def on_move() -> None:
        host.outcome = left.pop(0)

    host.on_move = on_move


def test_memory_stays_allowed_where_it_is_parked_if_a_place_cannot_be_had(host: Host) -> None:
    shared(host)
    parked_on_3(host)
    moves_end(host, Outcome.PARTIAL, Outcome.COMPLETE, Outcome.PARTIAL)
    said = host.event("preresume")
    assert "; back again: moved 50.0 MiB 2:3, complete" in said
    assert host.cpuset() == ("0-1", "0,3")
    assert host.parked() is not None
    assert 2 not in host.residency[JOB]


def test_a_place_that_cannot_be_had_changes_nothing(host: Host) -> None:
    shared(host)
    host.actions = REPLACE
    moves_end(host, Outcome.PARTIAL, Outcome.COMPLETE)
    before = dict(host.residency)
    assert "not done: " in (said := host.event("preresume"))
    assert "; back again: moved 50.0 MiB 2:0, complete" in said
    assert host.cpuset() == ("0-1", "0")
    assert host.residency == before


@pytest.mark.parametrize("why", ["stopped", "leave"])
def test_no_sharing_to_resolve(host: Host, why: str) -> None:
    shared(host)
    host.actions = REPLACE
    if why == "stopped":
        host.stop("13.n1")
    else:
        host.actions = {"on_shared_processors": OnSharedProcessors.LEAVE}
    assert host.event("preresume") == "all in place"


def test_no_free_node(host: Host) -> None:
    shared(host)
    host.job("15.n1", "4-5", "2")
    host.job("16.n1", "7", "3")
    host.actions = REPLACE
    assert host.event("preresume").endswith("; no others are free for it")


def test_no_processors_of_other_vnodes_are_taken(host: Host) -> None:
    """PBS gives them to the next job; if that fails, it kills what it takes for orphans."""
    vnodes = exec_vnode("0")
    shared(host, vnodes)
    host.actions = REPLACE
    assert host.event("preresume", vnodes="0") == (
        "CPUs 0-1 are shared with 13.n1; 4-5 of node 2 are free, but PBS has not granted the job"
        " their vnode"
    )
    assert (host.moved, host.cpuset()) == ([], ("0-1", "0"))

    topology = read_topology(host.root)
    nodes = {number: topology.cpus_of([number]) for number in topology.online}
    pbs_hook = CgroupsHook(host.pbs.cgroups(JOB)[0].parent, nodes)
    pbs_hook.granted = pbs_hook.cpusets()
    assert pbs_hook.begin("15.n1", exec_vnode("2"))
    assert pbs_hook.orphans() == []


@pytest.mark.parametrize("vnodes", [None, "", "(n1[0", "(left:ncpus=2)"])
def test_no_processors_are_taken_if_it_is_unknown_what_pbs_granted(
    host: Host, vnodes: str | None
) -> None:
    shared(host, vnodes)
    host.actions = REPLACE
    why = "exec_vnode" if vnodes else "PBS has not told which vnodes"
    assert why in host.event("preresume")
    assert (host.moved, host.cpuset()) == ([], ("0-1", "0"))


@pytest.mark.parametrize("parked", [False, True])
def test_free_processors_of_its_own_node_come_first(host: Host, parked: bool) -> None:
    host.widen_nodes()
    host.job(JOB, "0-1", "0", n0=100)
    host.event("begin", vnodes="0")
    host.job("13.n1", "0-1", "0")
    host.stop(JOB)
    host.actions = REPLACE
    if parked:
        parked_on_3(host)
    line = host.event("preresume", vnodes="0")
    said = "job: moved 100.0 MiB 3:0" if parked else "no memory has to move"
    assert "gets 2-3 of node 0: " in line
    assert said.removeprefix("job: ") in line
    assert host.cpuset() == ("2-3", "0")
    assert host.residency[JOB] == {0: 100 * MIB}
    assert host.parked() is None
    assert not [request for request in host.requests if request.dry_run], "nothing to be planned"


def test_processors_that_no_other_job_uses_are_kept(host: Host) -> None:
    host.widen_nodes()
    host.job(JOB, "0-2", "0", n0=100)
    host.event("begin", vnodes="0")
    host.job("13.n1", "1", "0")
    host.stop(JOB)
    host.actions = REPLACE
    assert "CPUs 1 are shared with 13.n1; gets 3 of node 0" in host.event("preresume", vnodes="0")
    assert host.cpuset() == ("0,2-3", "0")


def test_a_probe_is_no_relocation(host: Host) -> None:
    """What is planned to find a place is not in the history, nor in the metrics."""
    shared(host)
    host.event("preresume")
    assert any(request.dry_run for request in host.requests)
    (run,) = host.journal.history(JOB)
    assert run["reports"] == []
    assert host.journal.counters.read() == {}


def test_an_orphan_is_no_job(host: Host) -> None:
    path = host.job(JOB, "0-1", "0", n0=100)
    host.job("13.n1", "2", "1")
    path.rename(path.with_name(f"{JOB}.orphan"))
    assert host.pbs.jobs() == ("13.n1",)
    assert host.pbs.tasks(f"{JOB}.orphan") == ()


@pytest.mark.parametrize("vnodes", ["(n1[0]:ncpus=2)+(n1[2]:mem=1gb)", WHOLE_HOST, None])
def test_processors_that_pbs_did_not_grant_are_refused(host: Host, vnodes: str | None) -> None:
    host.job(JOB, "0-1", "0")
    host.event("begin", about={"exec_vnode": vnodes})
    assert (host.pbs.explain_refused_cpus("12", CpuSet({1})) is None) == (vnodes is not None)
    why = host.pbs.explain_refused_cpus("12", CpuSet({1, 4}))
    if vnodes == WHOLE_HOST:
        assert why is None
    else:
        assert why is not None
        assert why.endswith("--force insists")
        assert ("vnode of processors 4;" in why) == (vnodes is not None)


# -- periodic ------------------------------------------------------------------------------------


def test_strays_go_home(host: Host) -> None:
    host.job(JOB, "2-3", "1", n1=100, n3=40)
    assert host.event("periodic", vnodes="1") == (
        "1 jobs to look at; 12.n1: 40.0 MiB of job outside of nodes 1;"
        " job: moved 40.0 MiB 3:1, complete"
    )
    assert host.event("periodic", vnodes="1") == "1 jobs to look at"


@pytest.mark.parametrize(("version", "mems"), [(1, "1"), (2, "1"), (2, "0-3")])
def test_the_pipeline_finds_the_strays_of_a_job(tmp_path: Path, version: int, mems: str) -> None:
    """Its nodes are those of its fence or of its vnodes, whatever its name looks like."""
    job = "12[3].n1"
    name = f"pbs_jobs.service/jobid/{job}"
    write_host(tmp_path, [FakeNode(number=n, cpus=str(n)) for n in range(4)])
    write_cgroup_mounts(tmp_path, version=version)
    sets = {"cpus": "1", "nodes": mems, "effective_cpus": "1", "effective_nodes": mems}
    write_cgroup(tmp_path, name, version=version, pids=[100], **sets)
    area = FakeArea(start=0x7F0000000000, size=20 << 20, pages={3: 5 << 8, 1: 15 << 8})
    write_process(tmp_path, 100, areas=[area], cpus="1", nodes="0-3", cgroup=f"0::/{name}\n")
    config = Config(
        relocation=RelocationSection(backend="simulated"),
        actions=replace(Config().actions, repatriate_least_mb=1),
        plugins=PluginsSection(third_party=False),
    )
    plugins = load_plugins(config, environ={})
    dispatcher = Dispatcher(config, plugins, Journal.in_memory(), root=tmp_path)

    def say(point: str) -> str:
        about = {"id": job, "exec_vnode": exec_vnode("1")}
        data = {"job": about if point != "periodic" else None, "jobs": [about]}
        where = job if point != "periodic" else ""
        event = Event(scheduler="pbs", point=point, job=where, host="n1", data=data)
        result = dispatcher.handle(event, 1.0)
        more = (dispatcher.handle(each, 2.0).summary for each in result.more)
        return "; ".join((result.summary, *more))

    assert say("resize") == "job: moved 5.0 MiB 0:1,2:1,3:1, complete"
    assert say("begin") == "started"
    assert say("periodic") == (
        "1 jobs to look at; 5.0 MiB of job outside of nodes 1; job: moved 5.0 MiB 3:1, complete"
    )


@pytest.mark.parametrize(
    ("mib", "home"),
    [({"n3": 10}, 0), ({"n3": 20}, 5000)],
)
def test_few_strays_may_stay(host: Host, mib: dict[str, int], home: int) -> None:
    host.job(JOB, "2-3", "1", n1=home, **mib)
    assert host.event("periodic", vnodes="1") == "1 jobs to look at"
    assert host.moved == []


def test_strays_only_reported(host: Host) -> None:
    host.actions = {"repatriate": Repatriate.REPORT}
    host.job(JOB, "2-3", "1", n3=40)
    assert "12.n1: 40.0 MiB of job outside of nodes 1" in host.event("periodic", vnodes="1")
    assert host.moved == []


def test_memory_elsewhere_stays_if_pbs_granted_no_nodes(host: Host) -> None:
    host.job(JOB, "2-3", "0-3", n3=40)
    assert host.event("periodic") == "1 jobs to look at"
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
    assert "12.n1: failed: broken" in line
    assert "13.n1: 40.0 MiB of job outside" in line


@pytest.mark.parametrize("point", ["startup", "periodic"])
def test_jobs_whose_end_was_missed_are_closed(host: Host, point: str) -> None:
    host.job(JOB, "0", "0")
    for job in (JOB, "11.n1"):
        host.event("begin", job=job)
    assert "11.n1 ended without notice" in host.event(point, job="")
    assert [run.job for run in host.journal.runs.list_open()] == [JOB]
    assert host.pbs.notes.jobs("pbs-told") == (JOB,)
