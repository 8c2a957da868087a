"""job-migrate on real jobs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.slurm import agents, jobs
from tests.slurm.cluster import Cluster
from tests.slurm.jobs import Running
from tests.slurm.sshd import sshd, with_programs

pytestmark = pytest.mark.balancing("on")

Answer = tuple[int, dict]


@pytest.fixture
def job_migrate(cluster: Cluster) -> Callable[..., Answer]:
    """Run the command as root on host n1."""

    def run(*arguments: object) -> Answer:
        status, answer = agents.job_migrate(cluster, *arguments, "--host", "n1")
        return status, answer["hosts"][0] if "hosts" in answer else answer

    return run


def test_a_job_is_moved_and_its_override_recorded(
    cluster: Cluster, job_migrate: Callable[..., Answer]
) -> None:
    running = jobs.start(cluster)
    status, result = job_migrate(running.job, "--cpus", "2-3")
    assert (status, result["outcome"]) == (0, "complete"), result
    assert (result["old"]["cpus"], result["new"]["cpus"]) == ("0-1", "2-3")
    assert min(running.shares((2, 3))) >= jobs.ENOUGH
    assert [os.sched_getaffinity(pid) for pid in running.tasks] == [{2}, {3}]
    override = agents.override_of(running.job)
    assert override is not None
    assert str(override.placement.cpus) == "2-3"
    status, result = job_migrate(running.job, "--release")
    assert status == 0
    assert agents.override_of(running.job) is None
    assert running.finish() == ["rank 0 right", "rank 1 right"]


def test_processors_are_chosen_from_nodes(
    cluster: Cluster, job_migrate: Callable[..., Answer]
) -> None:
    running = jobs.start(cluster)
    status, result = job_migrate(running.job, "--to-nodes", "2-3")
    assert (status, result["new"]["cpus"]) == (0, "2-3"), result
    assert min(running.shares((2, 3))) >= jobs.ENOUGH


def test_a_move_without_room_is_refused_and_changes_nothing(
    cluster: Cluster, job_migrate: Callable[..., Answer]
) -> None:
    running = jobs.start(cluster, mib=300)
    with jobs.full_node(cluster, 3):
        status, result = job_migrate(running.job, "--cpus", "2-3")
    assert (status, result["outcome"]) == (4, "refused"), result
    assert "room" in result["failure"]
    assert min(running.shares((0, 1))) >= jobs.ENOUGH
    assert [os.sched_getaffinity(pid) for pid in running.tasks] == [{0}, {1}]
    assert running.finish() == ["rank 0 right", "rank 1 right"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("999999", "--cpus", "2"), "999999"),
        (("1;reboot", "--cpus", "2"), "not the number"),
        (("1",), "--cpus"),
    ],
)
def test_wrong_usage_is_reported_in_one_line(
    job_migrate: Callable[..., Answer], arguments: tuple[str, ...], words: str
) -> None:
    status, result = job_migrate(*arguments)
    assert status == 2
    assert words in result["error"]
    assert result["error"].count("\n") == 1


HOSTS = ("n1", "n2")


@pytest.fixture
def two_hosts(cluster: Cluster) -> Iterator[Running]:
    """A job with two tasks on each host."""
    stop = jobs.new_stop(cluster)
    script = f"srun --cpu-bind=map_cpu:0,1 {jobs.program()} 60 {stop} 0"
    job = cluster.submit(script, "-N2", "-n4", "--ntasks-per-node=2")
    tasks = jobs.ready(cluster, job, stop, tasks=4)
    running = Running(cluster=cluster, job=job, tasks=tuple(tasks), stop=stop)
    yield running
    assert running.finish() == [f"rank {rank} right" for rank in range(4)]


def test_a_job_on_two_hosts_is_moved_on_each(
    cluster: Cluster, two_hosts: Running, tmp_path: Path
) -> None:
    """From a host of which Slurm knows nothing, over a real sshd."""
    job = two_hosts.job
    with sshd(tmp_path, HOSTS, with_programs(cluster.conf)):
        status, result = agents.job_migrate(cluster, job, "--cpus", "2-3")
        assert status == 0, result
        assert [(each["host"], each["outcome"]) for each in result["hosts"]] == [
            ("n1", "complete"),
            ("n2", "complete"),
        ]
        assert [[task["task"] for task in each["tasks"] if task["task"].startswith("0.")]
                for each in result["hosts"]] == [["0.0", "0.1"], ["0.2", "0.3"]]  # fmt: skip
        assert [os.sched_getaffinity(pid) for pid in two_hosts.tasks] == [{2}, {3}, {2}, {3}]
        assert min(two_hosts.shares((2, 3, 2, 3))) >= jobs.ENOUGH
        assert agents.override_of(job) is not None
        status, result = agents.job_migrate(cluster, job, "--release")
        assert status == 0, result
        assert [each["outcome"] for each in result["hosts"]] == ["released", "released"]
        assert agents.override_of(job) is None


def test_a_host_that_cannot_be_reached_does_not_stop_the_others(
    cluster: Cluster, two_hosts: Running, tmp_path: Path
) -> None:
    job = two_hosts.job
    with sshd(tmp_path, HOSTS, with_programs(cluster.conf), unreachable=["n2"]):
        status, result = agents.job_migrate(cluster, job, "--cpus", "2-3")
    one, two = result["hosts"]
    assert (status, one["outcome"], two["outcome"]) == (3, "complete", "failed"), result
    assert "Connection refused" in two["failure"]
    assert min(two_hosts.shares((2, 3, 0, 1))) >= jobs.ENOUGH


def test_show_lists_the_jobs_of_the_hosts_that_can_be_reached(
    cluster: Cluster, two_hosts: Running, tmp_path: Path
) -> None:
    """Of two hosts one: n1 is this machine, and so has the job with all of its tasks."""
    with sshd(tmp_path, HOSTS, with_programs(cluster.conf), unreachable=["n2"]):
        status, shown = agents.show(cluster, "--hosts", "n[1-2]", "--sort", "memory")
    assert status == 3, shown
    assert shown["error"].count("\n") == 1
    assert "n2: ssh: connect to host" in shown["error"]
    (found,) = [each for each in shown["jobs"] if each["job"] == str(two_hosts.job)]
    assert found["host"] == "n1"
    assert found["bytes"] >= 4 * 60 << 20
