"""Events, jobs, tasks and placements, read on made-up hosts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from schedhook.testing.hosts import (
    FakeNode,
    write_cgroup,
    write_cgroup_mounts,
    write_file,
    write_host,
    write_process,
)
from schedhook.values.errors import UsageError
from schedhook.values.model import Placement
from schedhook.values.sets import CpuSet, NodeSet
from schedhook_plugins.schedulers.slurm.adapter import HostJobs, read_event

NODES = [FakeNode(number=node, cpus=str(node)) for node in range(4)]


def host(root: Path, version: int = 2) -> HostJobs:
    """Make a host of four nodes with a processor each and mounted cgroup file systems."""
    write_host(root, NODES)
    write_cgroup_mounts(root, version=version)
    return HostJobs(root)


def process(
    root: Path,
    pid: int,
    cpus: str,
    *,
    rank: str | None = None,
    parent: int = 1,
    name: bytes = b"app",
    state: str = "S",
    uid: int = 2001,
    cgroup: str = "/",
) -> None:
    write_process(
        root,
        pid,
        cpus=cpus,
        name=name,
        state=state,
        uid=uid,
        parent=parent,
        cgroup=f"0::{cgroup}\n",
    )
    environment = b"PATH=/bin\0" + (b"SLURM_PROCID=%s\0" % rank.encode() if rank else b"")
    write_file(root, f"proc/{pid}/environ", environment)


SCOPE = "system.slice/slurmstepd.scope"


def write_job_of_22_05(root: Path, scope: str = SCOPE) -> None:
    """Write the batch script, srun, slurmstepd, and two ranks with a child in task_special."""
    for name, pids in {
        "step_batch/slurm": [90],
        "step_batch/user/task_special": [100, 101],
        "step_0/slurm": [91],
        "step_0/user/task_special": [200, 201, 202],
        "step_0/user/task_0": [],
        "step_extern/slurm": [92],
        "step_extern/user/task_0": [300],
    }.items():
        write_cgroup(root, f"{scope}/job_7/{name}", pids=pids)
    for pid in (90, 91, 92):
        process(root, pid, "0-1", name=b"slurmstepd", uid=0)
    process(root, 100, "0-1", rank="0")
    process(root, 101, "0-1", rank="0", parent=100, name=b"srun")
    process(root, 200, "0", rank="0", parent=91)
    process(root, 201, "1", rank="1", parent=91)
    process(root, 202, "1", parent=201)
    process(root, 300, "0-3", uid=0)


def summary(here: HostJobs, job: str = "7") -> dict[str, tuple[tuple[int, ...], str, str]]:
    return {
        task.name: (task.pids, str(task.placement.cpus), str(task.placement.nodes))
        for task in here.tasks(job)
    }


# -- tasks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "scope",
    [
        SCOPE,
        "system.slice/n1_slurmstepd.scope",
        "slurmstepd.scope",
        "batch.slice/batch-slurm.slice/n-1_slurmstepd.scope",
    ],
)
def test_tasks_on_cgroup_version_2(tmp_path: Path, scope: str) -> None:
    here = host(tmp_path)
    write_job_of_22_05(tmp_path, scope)
    assert summary(here) == {
        "batch": ((100, 101), "0-1", "0-1"),
        "extern": ((300,), "0-3", "0-3"),
        "0.0": ((200,), "0", "0"),
        "0.1": ((201, 202), "1", "1"),
    }
    assert here.jobs() == ("7",)
    (cgroup,) = here.cgroups("7")
    assert cgroup.path == tmp_path / "sys/fs/cgroup" / scope / "job_7"


def test_a_cgroup_that_names_the_task_counts_more_than_the_environment(tmp_path: Path) -> None:
    """As in versions other than 22.05; with a rank above 9 and a cgroup that the user made."""
    here = host(tmp_path)
    step = f"{SCOPE}/job_7/step_3/user"
    write_cgroup(tmp_path, f"{step}/task_2", pids=[10])
    write_cgroup(tmp_path, f"{step}/task_10/mine", pids=[11, 12])
    process(tmp_path, 10, "2", rank="5")
    process(tmp_path, 11, "3")
    process(tmp_path, 12, "2")
    assert summary(here) == {"3.2": ((10,), "2", "2"), "3.10": ((11, 12), "2-3", "2-3")}


def test_tasks_on_cgroup_version_1(tmp_path: Path) -> None:
    """Of several hierarchies each process counts once, with the task from the one that names it."""
    here = host(tmp_path, version=1)
    job = "slurm/uid_2001/job_7"
    write_cgroup(tmp_path, f"{job}/step_0", version=1, pids=[91, 200, 201], cpus="0-1", nodes="0-3")
    write_cgroup(tmp_path, f"{job}/step_batch", version=1, pids=[100], cpus="0-1", nodes="0-3")
    memory = tmp_path / f"sys/fs/cgroup/memory/{job}"
    write_file(memory, "step_0/cgroup.procs", "91\n")
    write_file(memory, "step_0/task_0/cgroup.procs", "200\n")
    write_file(memory, "step_0/task_1/cgroup.procs", "201\n")
    write_file(memory, "cgroup.procs", "")
    process(tmp_path, 91, "0-1", name=b"slurmstepd", uid=0)
    process(tmp_path, 100, "0-1")
    process(tmp_path, 200, "0")
    process(tmp_path, 201, "1")
    assert summary(here) == {
        "batch": ((100,), "0-1", "0-1"),
        "0.0": ((200,), "0", "0"),
        "0.1": ((201,), "1", "1"),
    }
    assert [str(cgroup.path.relative_to(tmp_path)) for cgroup in here.cgroups("7")] == [
        f"sys/fs/cgroup/cpuset/{job}",
        f"sys/fs/cgroup/memory/{job}",
    ]
    assert here.jobs() == ("7",)


def test_steps_that_old_versions_number_get_their_names(tmp_path: Path) -> None:
    here = host(tmp_path, version=1)
    for step, pid in (("4294967294", 10), ("4294967295", 11), ("0", 12)):
        name = f"slurm_n1/uid_5/job_7/step_{step}"
        write_cgroup(tmp_path, name, version=1, pids=[pid], cpus="0", nodes="0")
        process(tmp_path, pid, "0")
    assert list(summary(here)) == ["batch", "extern", "0"]


def test_a_process_without_a_rank_belongs_to_its_parents_task(tmp_path: Path) -> None:
    here = host(tmp_path)
    write_cgroup(tmp_path, f"{SCOPE}/job_7/step_0/user/task_special", pids=[10, 11, 12, 13, 14])
    process(tmp_path, 10, "0", rank="4")
    process(tmp_path, 11, "1", parent=10)
    process(tmp_path, 12, "1", parent=11)
    process(tmp_path, 13, "2", parent=1)
    process(tmp_path, 14, "2", parent=14)
    assert summary(here) == {"0": ((13, 14), "2", "2"), "0.4": ((10, 11, 12), "0-1", "0-1")}


def test_a_tasks_processors_are_those_of_all_its_threads(tmp_path: Path) -> None:
    here = host(tmp_path)
    write_cgroup(tmp_path, f"{SCOPE}/job_7/step_0/user/task_0", pids=[10])
    write_process(tmp_path, 10, cpus="0", threads={10: "S", 11: "S"})
    other = tmp_path / "proc/10/task/11/status"
    other.write_text(
        other.read_text().replace("Cpus_allowed_list:\t0\n", "Cpus_allowed_list:\t2\n")
    )
    assert summary(here) == {"0.0": ((10,), "0,2", "0,2")}


def test_zombies_and_slurms_own_processes_are_left_out(tmp_path: Path) -> None:
    here = host(tmp_path)
    write_cgroup(tmp_path, f"{SCOPE}/job_7/step_0/user/task_special", pids=[10, 11, 12, 99])
    process(tmp_path, 10, "0", rank="0")
    process(tmp_path, 11, "1", rank="1", state="Z")
    process(tmp_path, 12, "0-3", name=b"slurmstepd", uid=0)
    assert summary(here) == {"0.0": ((10,), "0", "0")}


def test_a_node_without_memory_is_replaced_by_the_nearest_with_memory(tmp_path: Path) -> None:
    nodes = [
        FakeNode(number=0, cpus="0", memory=0, free=0, distances={1: 30, 2: 15, 3: 12}),
        FakeNode(number=1, cpus="1"),
        FakeNode(number=2, cpus="2"),
        FakeNode(number=3, cpus=""),
    ]
    write_host(tmp_path, nodes)
    here = HostJobs(tmp_path)
    assert here.placement(CpuSet({0, 1})) == Placement(cpus=CpuSet({0, 1}), nodes=NodeSet({1, 2}))


@pytest.mark.parametrize("job", ["8", "", "7.1", "12.server", "../job_7", "7\n", "007"])
def test_unknown_and_malformed_jobs_have_nothing_here(tmp_path: Path, job: str) -> None:
    here = host(tmp_path)
    write_job_of_22_05(tmp_path)
    assert here.tasks(job) == ()
    assert here.cgroups(job) == ()


def test_a_host_without_cgroups_or_without_slurm_has_no_jobs(tmp_path: Path) -> None:
    write_host(tmp_path, NODES)
    assert HostJobs(tmp_path).jobs() == ()
    write_cgroup_mounts(tmp_path)
    assert HostJobs(tmp_path).jobs() == HostJobs(tmp_path).tasks("7") == ()


def test_each_of_two_slurmds_on_one_kernel_has_its_own_tasks(tmp_path: Path) -> None:
    host(tmp_path)
    for name, pid in (("n1", 10), ("n2", 20)):
        scope = f"system.slice/{name}_slurmstepd.scope"
        write_cgroup(tmp_path, f"{scope}/job_7/step_0/user/task_special", pids=[pid])
        process(tmp_path, pid, "0", rank=str(pid))
    assert list(summary(HostJobs(tmp_path))) == ["0.10", "0.20"]
    assert list(summary(HostJobs(tmp_path, host="n2"))) == ["0.20"]
    assert len(HostJobs(tmp_path).cgroups("7")) == 2
    assert list(summary(HostJobs(tmp_path, host="elsewhere"))) == ["0.10", "0.20"]


# -- jobs: owner, suspended ------------------------------------------------------------------------


def test_the_owner_is_the_one_user_of_all_processes(tmp_path: Path) -> None:
    here = host(tmp_path)
    assert here.owner("7") is None
    write_job_of_22_05(tmp_path)
    assert here.owner("7") == 2001
    process(tmp_path, 201, "1", uid=2002)
    assert here.owner("7") is None


def test_a_job_is_suspended_if_all_its_processes_are_stopped(tmp_path: Path) -> None:
    """22.05 stops the processes and leaves srun running."""
    here = host(tmp_path)
    write_job_of_22_05(tmp_path)
    assert not here.suspended("7")
    for pid in (100, 200, 201, 202, 300):
        status = tmp_path / f"proc/{pid}/status"
        status.write_text(status.read_text().replace("State:\tS", "State:\tT"))
    assert here.suspended("7")
    process(tmp_path, 202, "1", parent=201)
    assert not here.suspended("7")
    assert not here.suspended("8")


def test_a_job_is_suspended_if_all_its_steps_are_frozen(tmp_path: Path) -> None:
    """25.11 freezes each step's user cgroup."""
    here = host(tmp_path)
    write_job_of_22_05(tmp_path)
    for step in ("step_0", "step_batch", "step_extern"):
        assert not here.suspended("7")
        write_cgroup(
            tmp_path,
            f"{SCOPE}/job_7/{step}/user",
            files={"cgroup.events": "populated 1\nfrozen 1\n"},
        )
    assert here.suspended("7")


def test_a_cgroup_without_a_process_is_no_job(tmp_path: Path) -> None:
    here = host(tmp_path)
    write_job_of_22_05(tmp_path)
    assert here.jobs() == ("7",)
    for number in range(100, 300):
        files = {"cgroup.events": "populated 0\nfrozen 0\n"}
        write_cgroup(tmp_path, f"{SCOPE}/job_{number}", files=files)
    assert here.jobs() == ("7",)
    assert len(here.allocated()) == 201  # Slurm may yet start a step in them


# -- events --------------------------------------------------------------------------------------

PROLOG = {
    "SLURM_JOB_ID": "7",
    "SLURM_JOB_UID": "2001",
    "SLURM_JOB_USER": "alice",
    "SLURMD_NODENAME": "n1",
    "SLURM_CLUSTER_NAME": "test",
    "SLURM_JOB_PARTITION": "all",
    "SLURM_JOB_CPUS_PER_NODE": "2",
    "SLURM_SCRIPT_CONTEXT": "prolog_slurmd",
    "SLURM_JOB_RESTART_COUNT": "1",
}


def test_prolog_and_epilog_become_events() -> None:
    event = read_event("prolog", PROLOG)
    assert (event.scheduler, event.point, event.job, event.user, event.host) == (
        "slurm",
        "prolog",
        "7",
        2001,
        "n1",
    )
    assert event.data == {
        "cluster": "test",
        "user_name": "alice",
        "partition": "all",
        "cpus_per_host": "2",
        "restarts": 1,
    }
    epilog = PROLOG | {"SLURM_SCRIPT_CONTEXT": "epilog_slurmd"}
    assert read_event("epilog", epilog).point == "epilog"


@pytest.mark.parametrize("point", ["task-prolog", "task_prolog"])
def test_task_prolog_becomes_an_event(point: str) -> None:
    environ = PROLOG | {
        "SLURM_SCRIPT_CONTEXT": "prolog_task",
        "SLURM_STEP_ID": "3",
        "SLURM_TASK_PID": "4711",
        "SLURM_LOCALID": "1",
        "SLURM_PROCID": "17",
        "SLURM_CPU_BIND": "quiet,mask_cpu:0x1",
    }
    event = read_event(point, environ)
    assert event.point == "task-prolog"
    values = {key: event.data[key] for key in ("step", "pid", "local_id", "rank", "binding")}
    assert values == {
        "step": 3,
        "pid": 4711,
        "local_id": 1,
        "rank": 17,
        "binding": "quiet,mask_cpu:0x1",
    }


@pytest.mark.parametrize(("host", "job"), [("n2", "5"), ("n1", "4"), ("n9", "4"), ("", "4")])
def test_a_task_of_a_component_has_the_number_of_its_own_job(host: str, job: str) -> None:
    """Slurm gives it the first component's as SLURM_JOB_ID."""
    environ = {
        "SLURM_JOB_ID": "4",
        "SLURMD_NODENAME": host,
        "SLURM_JOB_ID_HET_GROUP_0": "4",
        "SLURM_JOB_NODELIST_HET_GROUP_0": "n1",
        "SLURM_JOB_ID_HET_GROUP_1": "5",
        "SLURM_JOB_NODELIST_HET_GROUP_1": "n[2-3]",
    }
    assert read_event("task-prolog", environ).job == job
    assert read_event("prolog", environ).job == "4"
    same = environ | {"SLURM_JOB_NODELIST_HET_GROUP_0": "n[1-2]"}
    assert read_event("task-prolog", same).job == "4", "two components on one host"
    broken = environ | {"SLURM_JOB_NODELIST_HET_GROUP_1": "n["}
    assert read_event("task-prolog", broken).job == "4"


def test_malformed_values_that_a_user_could_set_are_dropped() -> None:
    odd = PROLOG | {
        "SLURM_STEP_ID": "../../etc",
        "SLURM_TASK_PID": "-1",
        "SLURM_CPU_BIND": "x" * 9999,
        "SLURM_JOB_PARTITION": "a\x1b[2Jb",
        "SLURMD_NODENAME": "n1\nn2",
        "SLURM_JOB_RESTART_COUNT": "9" * 40,
    }
    event = read_event("prolog", odd)
    assert event.data == {"cluster": "test", "user_name": "alice", "cpus_per_host": "2"}
    assert event.host == ""


@pytest.mark.parametrize(
    ("point", "other", "says"),
    [
        ("prolog", {"SLURM_JOB_ID": ""}, "SLURM_JOB_ID is ''"),
        ("prolog", {"SLURM_JOB_ID": "0"}, "not a job's number"),
        ("prolog", {"SLURM_JOB_ID": "7/../8"}, "not a job's number"),
        ("prolog", {"SLURM_JOB_ID": "7\n"}, "not a job's number"),
        ("prolog", {"SLURM_JOB_ID": "\u0667"}, "not a job's number"),
        ("prolog", {"SLURM_JOB_UID": "root"}, "not a user's number"),
        ("prolog", {"SLURM_SCRIPT_CONTEXT": "prolog_slurmctld"}, "Slurm's prolog_slurmctld"),
        ("prolog", {"SLURM_SCRIPT_CONTEXT": "epilog_slurmd"}, "not prolog"),
        ("resume", {}, "has no hook 'resume'"),
    ],
)
def test_an_environment_of_another_hook_is_refused(
    point: str, other: Mapping[str, str], says: str
) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        read_event(point, PROLOG | other)
    assert "\n" not in str(caught.value)


def test_old_versions_name_the_job_otherwise_and_set_no_context() -> None:
    environ = {"SLURM_JOBID": "7", "SLURMD_NODENAME": "n1"}
    event = read_event("epilog", environ)
    assert (event.job, event.user) == ("7", None)


# -- steps that start ----------------------------------------------------------------------------


def test_a_step_is_starting_until_its_tasks_run_their_program(tmp_path: Path) -> None:
    here = host(tmp_path)
    write_job_of_22_05(tmp_path)
    assert not here.starting("7")
    write_cgroup(tmp_path, f"{SCOPE}/job_7/step_1/slurm", pids=[93])
    process(tmp_path, 93, "0-1", name=b"slurmstepd", uid=0)
    assert here.starting("7"), "nothing but slurmstepd"
    write_cgroup(tmp_path, f"{SCOPE}/job_7/step_1/user/task_special", pids=[400, 401])
    process(tmp_path, 400, "0-1", name=b"app", parent=93)
    process(tmp_path, 401, "0-1", name=b"slurmstepd", parent=93)
    assert here.starting("7"), "a task is still slurmstepd"
    process(tmp_path, 401, "0-1", name=b"app", parent=93)
    assert not here.starting("7")
    assert not here.starting("8")


def test_a_step_is_starting_if_slurmstepd_is_among_the_tasks(tmp_path: Path) -> None:
    """On cgroup version 1 they share a cgroup."""
    here = host(tmp_path, version=1)
    job = "slurm/uid_2001/job_7"
    write_cgroup(tmp_path, f"{job}/step_0", version=1, pids=[93, 400], cpus="0-1", nodes="0-3")
    process(tmp_path, 93, "0-1", name=b"slurmstepd", uid=0)
    process(tmp_path, 400, "0-1", name=b"slurmstepd", parent=93)
    assert here.starting("7")
    process(tmp_path, 400, "0-1", name=b"app", parent=93)
    assert not here.starting("7")
