"""What the adapter sees of real jobs, and what Slurm's controller says of them."""

from __future__ import annotations

import os

import pytest

from schedhook.values.errors import UsageError
from schedhook.values.sets import CpuSet
from schedhook_plugins.schedulers.slurm.adapter import Slurm
from schedhook_plugins.schedulers.slurm.answers import Allocation, JobInfo
from schedhook_plugins.schedulers.slurm.hostlist import expand_hosts
from schedhook_plugins.schedulers.slurm.queries import QUERY_METHODS, probe, query
from tests.slurm.cluster import USER, USER_ID, Cluster, wait_until

MIB = 1 << 20


@pytest.fixture(autouse=True)
def slurm_conf(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_CONF", str(cluster.conf))


def usable() -> list[str]:
    return [name for name, (works, _) in probe().items() if works]


def test_a_job_on_two_hosts(cluster: Cluster) -> None:
    job = cluster.submit(
        "srun --cpu-bind=map_cpu:1,0 sleep 600", "-N2", "--ntasks-per-node=2", "--mem=300"
    )
    first, second = Slurm(host="n1"), Slurm(host="n2")
    for host in ("n1", "n2"):
        cluster.wait_for_step(job, "0", tasks=2, host=host)

    tasks = {task.name: task for task in first.tasks(str(job))}
    assert set(tasks) == {"batch", "0.0", "0.1"}
    assert [str(tasks[name].placement.cpus) for name in tasks] == ["0-1", "1", "0"]
    assert [str(tasks[name].placement.nodes) for name in tasks] == ["0-1", "1", "0"]
    assert tasks["0.0"].pids + tasks["0.1"].pids == tuple(sorted(cluster.step_pids(job, "0", "n1")))
    assert [task.name for task in second.tasks(str(job))] == ["0.2", "0.3"]
    assert first.cgroups(str(job)) == (cluster.job_cgroup(job, "n1"),)
    assert len(Slurm().cgroups(str(job))) == 2

    assert first.jobs() == second.jobs() == (str(job),)
    assert first.owner(str(job)) == USER_ID
    assert first.job_of(tasks["0.0"].pids[0]) == str(job)
    assert first.job_of(os.getpid()) is None

    assert usable() == ["squeue-json", "text"]
    answers = {each.name: query(str(job), query_methods=[each]) for each in QUERY_METHODS[2:]}
    part = Allocation(cpu_ids=CpuSet({0, 1}), memory=300 * MIB)
    assert (
        answers["text"]
        == answers["squeue-json"]
        == JobInfo(
            job=str(job),
            user_id=USER_ID,
            user_name=USER,
            state="RUNNING",
            hosts=("n1", "n2"),
            allocated={"n1": part, "n2": part},
        )
    )

    assert not first.suspended(str(job))
    cluster.command("scontrol", "suspend", str(job))
    wait_until(lambda: first.suspended(str(job)), 30, "the job to stop", cluster.diagnosis)
    assert [query(str(job), query_methods=[each]).suspended for each in QUERY_METHODS[2:]] == [
        True,
        True,
    ]
    cluster.command("scontrol", "resume", str(job))
    wait_until(lambda: not first.suspended(str(job)), 30, "the job to go on", cluster.diagnosis)
    assert query(str(job)).state == "RUNNING"

    cluster.cancel(job)
    assert first.jobs() == first.tasks(str(job)) == ()
    assert query(str(job)).state in ("CANCELLED", "COMPLETING")


def test_what_slurm_does_not_know(cluster: Cluster) -> None:
    for each in QUERY_METHODS[2:]:
        with pytest.raises(UsageError, match="knows no job 99999"):
            query("99999", query_methods=[each])
    text = "n[1-3,07,10-11],r[1-2]n[08-09],login"
    written = cluster.command("scontrol", "show", "hostnames", text).split()
    assert expand_hosts(text) == tuple(written)


def test_a_name_that_looks_like_another_owner(cluster: Cluster) -> None:
    job = cluster.submit("sleep 600", "--job-name=x\n   UserId=root(0) GroupId=root(0)", "-n1")
    assert "\n   UserId=root(0)" in cluster.command("scontrol", "show", "job", str(job))
    assert {query(str(job), query_methods=[each]).user_id for each in QUERY_METHODS[2:]} == {
        USER_ID
    }
