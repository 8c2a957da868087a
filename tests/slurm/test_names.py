"""Jobs as people write them: an array's elements, a heterogeneous job's components."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from schedhook.values.errors import UsageError
from schedhook_plugins.schedulers.slurm import scopes
from schedhook_plugins.schedulers.slurm.adapter import HostJobs
from schedhook_plugins.schedulers.slurm.queries import QueryMethod, ping, query_job
from tests.slurm import agents, jobs
from tests.slurm.cluster import Cluster, wait_until


@pytest.fixture(autouse=True)
def slurm_conf(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_CONF", str(cluster.conf))


def show(job: object) -> dict[str, Any]:
    """Return what `show --job` prints as JSON."""
    command = [
        sys.executable,
        "-P",
        "-m",
        "schedhook.cli.main",
        "show",
        "--json",
        "--job",
        str(job),
    ]
    shown: dict[str, Any] = json.loads(subprocess.check_output(command, timeout=120))
    return shown


def test_an_element_of_an_array_is_moved_and_shown_by_its_name(
    cluster: Cluster, methods: list[QueryMethod]
) -> None:
    """Three elements run, of which the last has the array's number; two wait."""
    stop = jobs.new_stop(cluster)
    script = f"srun --cpu-bind=cores {jobs.program()} 40 {stop}.$SLURM_ARRAY_TASK_ID 0"
    array = cluster.submit(script, "--array=1-3%2", "-n1", "-w", "n1", "--job-name=sweep")
    one, two = (
        jobs.ready(cluster, array, stop.with_name(f"{stop.name}.{task}"), tasks=1)[0]
        for task in (1, 2)
    )
    numbers = HostJobs().jobs()
    assert len(numbers) == 2
    second = HostJobs().resolve(f"{array}_2")
    assert second in numbers
    assert query_job(f"{array}_[2]").number == second
    for method in methods:
        assert query_job(f"{array}_2", methods=[method]).hosts == ("n1",), method.name
        assert query_job(second, methods=[method]).number == second, method.name
        with pytest.raises(UsageError, match=f"is an array; .*{array}_2 .job {second}"):
            query_job(str(array), methods=[method])
    status, answer = agents.job_migrate(cluster, array, "--cpus", "3", "--host", "n1")
    assert (status, f"{array}_1" in answer["error"]) == (2, True), answer

    status, answer = agents.job_migrate(cluster, f"{array}_2", "--cpus", "3", "--host", "n1")
    assert (status, answer["job"]) == (0, second), answer
    assert os.sched_getaffinity(two) == {3}
    assert os.sched_getaffinity(one) != {3}
    shown = show(f"{array}_2")
    assert (shown["job"], shown["alias"], shown["name"]) == (second, f"{array}_2", "sweep")
    assert [each["pid"] for each in shown["processes"]].count(two) == 1


def test_a_component_is_found_by_its_name(backfill: Cluster, methods: list[QueryMethod]) -> None:
    cluster = backfill
    script = "#SBATCH -n1\n#SBATCH hetjob\n#SBATCH -n1\nsrun --het-group=0,1 sleep 600"
    first = cluster.submit(script)
    here = HostJobs()

    def aliases() -> set[str]:
        return {about.alias for job in here.jobs() if (about := here.describe(job))}

    expected = {f"{first}+0", f"{first}+1"}
    wait_until(lambda: aliases() == expected, 120, f"jobs {expected}", cluster.diagnosis)
    (second,) = set(here.jobs()) - {str(first)}
    assert (here.resolve(f"{first}+0"), here.resolve(f"{first}+1")) == (str(first), second)
    with pytest.raises(UsageError, match="heterogeneous"):
        here.resolve(str(first))
    for method in methods:
        found = query_job(f"{first}+1", methods=[method])
        assert (found.number, found.hosts) == (second, ("n2",)), method.name


def test_slurmstepds_title_tells_the_number(cluster: Cluster) -> None:
    """It is all that tells it on Slurm 26.05; here the cgroup's name confirms it."""
    job = cluster.submit("sleep 600", "-n1", "-w", "n1")
    cluster.wait_for_step(job, "batch")
    (cgroup,) = HostJobs().cgroups(str(job))
    assert scopes._read_number(cgroup, HostJobs().root) == str(job)


def test_the_controller_is_pinged(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("schedhook_plugins.schedulers.slurm.queries.SECONDS", 30.0)
    assert cluster.conf.exists()
    assert ping() is None
