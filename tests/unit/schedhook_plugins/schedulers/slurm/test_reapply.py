"""A job gets the processors of its override again, also after an interrupted relocation."""

from __future__ import annotations

import pytest

from schedhook.roles.request import Request
from schedhook.testing.hosts import write_process
from schedhook.values.errors import RefusedError
from schedhook.values.model import Outcome, PlacementOverride, Report
from schedhook_plugins.schedulers.slurm.reapply import reapply
from tests.unit.schedhook_plugins.schedulers.slurm.job_host import JOB, JobHost, cpus, place

OVERRIDE = PlacementOverride(was=place("0-1"), placement=place("2-3"))
HOMES = {"0.0": place("2"), "0.1": place("3")}


def start_step(job_host: JobHost) -> None:
    """Start step 1 of a job that was relocated to 2-3, and give the job 0-1 again as Slurm does."""
    job_host.add_step("1", {300: "0", 301: "1"})
    job_host.cpuset(JOB, "0-1")
    job_host.cpuset(f"{JOB}/step_0", "0-1", [200, 201])
    for pid in (200, 201):
        job_host.bind(pid, {0, 1})


def test_old_and_new_steps_get_the_overrides_processors(job_host: JobHost) -> None:
    start_step(job_host)
    line = reapply(job_host.here, "7", OVERRIDE, job_host.relocate, HOMES)
    assert line == "override reapplied: processors 2-3, moved 100.0 MiB, left 0.0 MiB"
    assert [job_host.cpus_at(f"{JOB}/step_{step}") for step in (0, 1)] == ["2-3", "2-3"]
    assert {pid: str(job_host.affinity(pid)) for pid in (200, 201, 300, 301)} == {
        200: "2",
        201: "3",
        300: "2",
        301: "3",
    }


def test_a_step_that_still_has_the_overrides_processors_keeps_them(job_host: JobHost) -> None:
    """On version 2 Slurm writes the job's cpuset and leaves those of older steps alone."""
    start_step(job_host)
    job_host.cpuset(f"{JOB}/step_0", "2-3", [200, 201])
    job_host.bind(200, {2})
    job_host.bind(201, {2, 3})
    job_host.cpuset(JOB, "0-3")
    reapply(job_host.here, "7", OVERRIDE, job_host.relocate, HOMES)
    assert job_host.cpus_at(f"{JOB}/step_0") == "2-3"
    assert job_host.bound() == {200: "2", 201: "3"}


def test_a_step_that_starts_meanwhile_keeps_what_slurm_gave_it(job_host: JobHost) -> None:
    """Else Slurm could not bind its tasks, and they would never run."""

    def slurm_starts_a_step(request: Request) -> Report:
        if not request.dry_run:
            start_step(job_host)
        return job_host.relocate(request)

    with pytest.raises(RefusedError, match="step 1 of the job is starting"):
        reapply(job_host.here, "7", OVERRIDE, slurm_starts_a_step, HOMES)
    assert [job_host.cpus_at(), job_host.cpus_at(f"{JOB}/step_1")] == ["0-1", "0-1"]
    assert [str(job_host.affinity(pid)) for pid in (300, 301)] == ["0", "1"]
    reapply(job_host.here, "7", OVERRIDE, job_host.relocate, HOMES)
    assert [job_host.cpus_at(), job_host.cpus_at(f"{JOB}/step_1")] == ["2-3", "2-3"]


def test_a_step_that_is_about_to_bind_its_tasks_is_waited_for(job_host: JobHost) -> None:
    """It was not there when the agent looked. Its tasks are known if the job has been requeued."""
    homes = {**HOMES, "1.0": place("2")}
    job_host.add_step("1", {300: "0-1"})
    write_process(job_host.root, 300, name=b"slurmstepd", cpus="0-1")
    with pytest.raises(RefusedError, match="step 1 of the job is starting"):
        reapply(job_host.here, "7", OVERRIDE, job_host.relocate, homes)
    assert job_host.is_untouched()
    assert [dry for _, _, dry in job_host.asked()] == [True]


def test_memory_that_is_at_home_is_not_moved_again(job_host: JobHost) -> None:
    """From 0-1 to 1-2: the first step's memory on node 1 came from node 0 and stays."""
    job_host.add_step("1", {300: "0", 301: "1"})
    homes = {"0.0": place("1"), "0.1": place("2")}
    override = PlacementOverride(was=place("0-1"), placement=place("1-2"))
    reapply(job_host.here, "7", override, job_host.relocate, homes)
    moved = [asked[:2] for asked in job_host.asked() if not asked[2]]
    assert moved == [({1: 2}, (301,)), ({0: 1}, (300, 301))]
    assert job_host.bound() == {200: "1", 201: "2"}
    assert str(job_host.affinity(301)) == "2"


@pytest.mark.parametrize(
    ("job", "step", "bound"),
    [
        ("0-1", "0-1", {200: "0", 201: "1"}),  # killed before anything
        ("0-3", "0-1", {200: "0", 201: "1"}),  # while it widened
        ("0-3", "0-3", {200: "2", 201: "1"}),  # while it bound
        ("0-3", "0-3", {200: "2", 201: "3"}),  # while memory moved
        ("0-3", "2-3", {200: "2-3", 201: "2-3"}),  # while it narrowed, which unbinds
        ("2-3", "2-3", {200: "2", 201: "3"}),  # at the end
    ],
)
def test_an_interrupted_move_is_finished(
    job_host: JobHost, job: str, step: str, bound: dict[int, str]
) -> None:
    job_host.cpuset(JOB, job)
    job_host.cpuset(f"{JOB}/step_0", step, [200, 201])
    for pid, wanted in bound.items():
        job_host.bind(pid, cpus(wanted))
    override = PlacementOverride(was=place("0-1"), placement=place("2-3"), leaving=cpus("0-1"))
    reapply(job_host.here, "7", override, job_host.relocate, {"0.0": place("0"), "0.1": place("1")})
    assert (job_host.cpus_at(), job_host.cpus_at(f"{JOB}/step_0")) == ("2-3", "2-3")
    assert job_host.bound() == {200: "2", 201: "3"}
    assert job_host.asked()[-1] == ({0: 2, 1: 3}, (200, 201), False)


def test_what_stayed_is_reported_with_its_reason(job_host: JobHost) -> None:
    start_step(job_host)
    job_host.outcomes, job_host.left = [Outcome.PARTIAL], {"hidden": 3 << 20}
    line = reapply(job_host.here, "7", OVERRIDE, job_host.relocate, HOMES)
    assert line.endswith("moved 100.0 MiB, left 3.0 MiB (hidden)")


def test_an_override_that_cannot_be_reapplied_changes_nothing(job_host: JobHost) -> None:
    job_host.refusal = "node 2 has no room"
    with pytest.raises(RefusedError, match="no room"):
        reapply(job_host.here, "7", OVERRIDE, job_host.relocate, {})
    job_host.refusal, job_host.outcomes = None, [Outcome.REFUSED]
    with pytest.raises(RefusedError, match="could not follow"):
        reapply(job_host.here, "7", OVERRIDE, job_host.relocate, {})
    assert job_host.is_untouched()


def test_a_job_that_has_ended_is_no_error(job_host: JobHost) -> None:
    assert reapply(job_host.here, "8", OVERRIDE, job_host.relocate, {}) == "no process on this host"
