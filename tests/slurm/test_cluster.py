"""What the other tests of this tier rely on: how Slurm runs a job on this kernel."""

from __future__ import annotations

import os
from pathlib import Path

from tests.slurm.cluster import USER_ID, Cluster


def test_two_tasks_run_bound_to_their_processors(cluster: Cluster) -> None:
    """The tasks are in the cgroups that the adapter reads, bound by affinity, not by cpusets."""
    job = cluster.submit("srun --cpu-bind=map_cpu:0,1 sleep 300", "-n2", "-w", "n1")
    pids = cluster.wait_for_step(job, "0", tasks=2)
    assert {Path(f"/proc/{pid}").stat().st_uid for pid in pids} == {USER_ID}
    assert sorted(min(os.sched_getaffinity(pid)) for pid in pids) == [0, 1]
    assert all(len(os.sched_getaffinity(pid)) == 1 for pid in pids)
    here = cluster.job_cgroup(job)
    assert (here / "cpuset.cpus.effective").read_text().strip() == "0-1"
    assert (here / "cpuset.mems.effective").read_text().strip() == "0-3"
    assert cluster.host_state("n1") == "MIXED"
    cluster.cancel(job)
    assert not here.exists()


def test_a_job_of_two_hosts_has_a_cgroup_for_each(cluster: Cluster) -> None:
    """Two slurmds share this kernel, so each names its scope after itself."""
    job = cluster.submit("srun sleep 300", "-N2", "--ntasks-per-node=1")
    for host in ("n1", "n2"):
        cluster.wait_for_step(job, "0", tasks=1, host=host)
        assert cluster.job_cgroup(job, host).is_dir()


def test_a_job_that_completes_leaves_no_drained_host(cluster: Cluster) -> None:
    """Its output can be read, and no host is drained (the fixture checks that)."""
    assert cluster.run("srun echo $((6 * 7))", "-n1").strip() == "42"
