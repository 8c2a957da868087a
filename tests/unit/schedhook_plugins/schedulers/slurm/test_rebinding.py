"""Tasks that lost their binding to a changed cpuset are bound again, and no other task is."""

from __future__ import annotations

import pytest

from schedhook_plugins.schedulers.slurm.rebinding import rebind
from tests.unit.schedhook_plugins.schedulers.slurm.job_host import JOB, JobHost, cpus, place

BOUND = {"0.0": place("0"), "0.1": place("1")}


def change_cpuset(job_host: JobHost, wanted: str, bound: dict[int, str]) -> None:
    """Write another cpuset as another process would, and change the bindings as the kernel does."""
    job_host.cpuset(JOB, wanted)
    job_host.cpuset(f"{JOB}/step_0", wanted, [200, 201])
    for pid, its in bound.items():
        job_host.bind(pid, cpus(its))


@pytest.mark.parametrize(
    ("now", "lost", "then"),
    [
        ("2-3", {200: "2-3", 201: "2-3"}, {200: "2", 201: "3"}),
        ("1-2", {200: "1-2", 201: "1-2"}, {200: "1", 201: "2"}),
        ("3", {200: "3", 201: "3"}, {200: "3", 201: "3"}),
        ("2-3", {200: "2-3", 201: "2"}, {200: "2", 201: "2"}),
    ],
)
def test_a_lost_binding_is_restored_at_its_place_in_the_new_cpuset(
    job_host: JobHost, now: str, lost: dict[int, str], then: dict[int, str]
) -> None:
    change_cpuset(job_host, now, lost)
    assert rebind(job_host.here, "7", BOUND)
    assert job_host.bound() == then


def test_a_task_that_did_not_lose_its_binding_is_left_alone(job_host: JobHost) -> None:
    assert not rebind(job_host.here, "7", BOUND)
    assert not rebind(job_host.here, "7", {})
    assert not rebind(job_host.here, "8", BOUND)
    # A task that has unbound itself, in the cpuset that it always had.
    job_host.bind(200, {0, 1})
    assert not rebind(job_host.here, "7", BOUND)
    # The cpuset has grown.
    change_cpuset(job_host, "0-3", {200: "0-3", 201: "0-3"})
    assert not rebind(job_host.here, "7", BOUND)
    # A kernel that keeps bindings has already bound them.
    change_cpuset(job_host, "2-3", {200: "2", 201: "3"})
    assert not rebind(job_host.here, "7", BOUND)
    # Tasks that were never bound within the job.
    change_cpuset(job_host, "2-3", {200: "2-3", 201: "2-3"})
    assert not rebind(job_host.here, "7", {"0.0": place("0-1"), "0.1": place("0-1")})
    assert job_host.bound() == {200: "2-3", 201: "2-3"}
