"""The adapter reads real jobs, and Slurm's controller tells where they run."""

from __future__ import annotations

import pytest

from schedhook.values.errors import UsageError
from schedhook_plugins.schedulers.slurm import queries
from schedhook_plugins.schedulers.slurm.adapter import HostJobs
from schedhook_plugins.schedulers.slurm.hostlist import expand_hosts
from schedhook_plugins.schedulers.slurm.queries import QueryMethod, probe, query_job, within
from tests.slurm.cluster import USER_ID, Cluster, wait_until


@pytest.fixture(autouse=True)
def slurm_conf(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_CONF", str(cluster.conf))


def usable() -> list[str]:
    """Return the methods that work here, given the time that they take on an emulated machine."""
    return [name for name, (works, _) in probe(within(queries.SECONDS)).items() if works]


def test_a_job_on_two_hosts(cluster: Cluster, methods: list[QueryMethod]) -> None:
    job = cluster.submit(
        "srun --cpu-bind=map_cpu:1,0 sleep 600", "-N2", "--ntasks-per-node=2", "--mem=300"
    )
    first, second = HostJobs(host="n1"), HostJobs(host="n2")
    for host in ("n1", "n2"):
        cluster.wait_for_step(job, "0", tasks=2, host=host)

    tasks = {task.name: task for task in first.tasks(str(job))}
    assert set(tasks) == {"batch", "0.0", "0.1"}
    assert [str(tasks[name].placement.cpus) for name in tasks] == ["0-1", "1", "0"]
    assert [str(tasks[name].placement.nodes) for name in tasks] == ["0-1", "1", "0"]
    assert tasks["0.0"].pids + tasks["0.1"].pids == tuple(sorted(cluster.step_pids(job, "0", "n1")))
    assert [task.name for task in second.tasks(str(job))] == ["0.2", "0.3"]
    (cgroup,) = first.cgroups(str(job))
    assert cgroup.path == cluster.job_cgroup(job, "n1")
    assert len(HostJobs().cgroups(str(job))) == 2

    assert first.jobs() == second.jobs() == (str(job),)
    assert first.owner(str(job)) == USER_ID
    assert usable() == [method.name for method in methods]
    for method in methods:
        assert query_job(str(job), methods=[method]).hosts == ("n1", "n2"), method.name

    assert not first.suspended(str(job))
    cluster.command("scontrol", "suspend", str(job))
    wait_until(lambda: first.suspended(str(job)), 30, "the job to stop", cluster.diagnosis)
    cluster.command("scontrol", "resume", str(job))
    wait_until(lambda: not first.suspended(str(job)), 30, "the job to go on", cluster.diagnosis)

    cluster.cancel(job)
    assert first.jobs() == first.tasks(str(job)) == ()


def test_an_unknown_job_is_an_error_and_host_lists_expand_as_slurms(
    cluster: Cluster, methods: list[QueryMethod]
) -> None:
    for method in methods:
        with pytest.raises(UsageError, match="knows no job 99999"):
            query_job("99999", methods=[method])
    text = "n[1-3,07,10-11],r[1-2]n[08-09],login"
    written = cluster.command("scontrol", "show", "hostnames", text).split()
    assert expand_hosts(text) == tuple(written)


def test_a_job_name_that_looks_like_output_changes_no_answer(
    cluster: Cluster, methods: list[QueryMethod]
) -> None:
    job = cluster.submit("sleep 600", "--job-name=x\n   99|n9", "-n1", "-w", "n1")
    cluster.wait_for_state(job, "RUNNING")  # a job that waits has no hosts
    assert {query_job(str(job), methods=[method]).hosts for method in methods} == {("n1",)}
