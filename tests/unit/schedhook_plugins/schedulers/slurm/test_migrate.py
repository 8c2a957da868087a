"""job-migrate's decisions on a made-up host; tests/slurm moves real jobs."""

from __future__ import annotations

from pathlib import Path

import pytest

from schedhook.roles.request import Request
from schedhook.testing.hosts import (
    FakeNode,
    write_cgroup,
    write_cgroup_mounts,
    write_file,
    write_host,
)
from schedhook.values.errors import RefusedError, UsageError
from schedhook.values.model import Outcome, Placement, Report
from schedhook.values.sets import NodeSet
from schedhook_plugins.schedulers.slurm.adapter import HostJobs
from schedhook_plugins.schedulers.slurm.migrate import (
    check_free,
    check_later_steps,
    cpus_of_nodes,
    migrate,
)
from tests.unit.schedhook_plugins.schedulers.slurm.job_host import JOB, MIB, JobHost, cpus, place


def test_each_task_keeps_its_place_within_the_job(job_host: JobHost) -> None:
    move = migrate(job_host.here, "7", cpus("2-3"), job_host.relocate)
    assert (move.failure, move.not_restored, move.notes) == (None, (), ())
    assert (job_host.cpus_at(), job_host.cpus_at(f"{JOB}/step_0")) == ("2-3", "2-3")
    assert job_host.cpus_at("slurm/uid_2001") == "0-3"
    assert job_host.bound() == {200: "2", 201: "3"}
    assert job_host.asked() == [({0: 2, 1: 3}, (200, 201), True), ({0: 2, 1: 3}, (200, 201), False)]
    assert (move.old, move.new) == (place("0-1"), place("2-3"))
    assert [task.placement for task in move.after] == [place("2"), place("3")]


def test_old_and_new_nodes_may_overlap(job_host: JobHost) -> None:
    """One task leaves node 1 before the other's memory comes there."""
    migrate(job_host.here, "7", cpus("1-2"), job_host.relocate)
    assert job_host.bound() == {200: "1", 201: "2"}
    moved = [asked[:2] for asked in job_host.asked() if not asked[2]]
    assert moved == [({1: 2}, (201,)), ({0: 1}, (200, 201))]


def test_a_dry_run_changes_nothing(job_host: JobHost) -> None:
    move = migrate(job_host.here, "7", cpus("2-3"), job_host.relocate, dry_run=True)
    assert move.done
    assert [report.outcome for report in move.reports] == [Outcome.PLANNED]
    assert job_host.is_untouched()


def test_a_move_without_room_is_refused_before_anything_changes(job_host: JobHost) -> None:
    job_host.refusal = "node 2 has no room"
    move = migrate(job_host.here, "7", cpus("2-3"), job_host.relocate)
    assert move.failure == "node 2 has no room"
    assert job_host.is_untouched()
    assert [dry for _, _, dry in job_host.asked()] == [True]


def test_processors_are_put_back_if_the_memory_fails(job_host: JobHost) -> None:
    job_host.outcomes = [Outcome.FAILED]
    move = migrate(job_host.here, "7", cpus("2-3"), job_host.relocate)
    assert move.failure == "the memory could not follow: it went wrong"
    assert job_host.is_untouched()
    assert len(move.reports) == 3
    assert move.notes == ("back again: moved 200.0 MiB, left 0.0 MiB",)


@pytest.mark.parametrize(
    ("left", "back"),
    [([Outcome.REFUSED], ""), ([], "back again: moved 100.0 MiB, left 0.0 MiB; ")],
)
def test_memory_that_cannot_come_back_is_said_to_stay(
    job_host: JobHost, left: list[Outcome], back: str
) -> None:
    job_host.outcomes = [Outcome.FAILED, Outcome.REFUSED, *left]
    move = migrate(job_host.here, "7", cpus("2-3"), job_host.relocate)
    assert move.notes == (f"{back}memory stays on its new nodes: refused",)
    assert job_host.is_untouched()
    assert job_host.asked()[-2:] == [({2: 0, 3: 1}, (201,), False), ({2: 0, 3: 1}, (200,), False)]


def test_a_step_that_starts_meanwhile_keeps_its_processors(job_host: JobHost) -> None:
    """The job was moved to 2-3 before: to put that back alone would take the step's 0-1 away."""
    migrate(job_host.here, "7", cpus("2-3"), job_host.relocate)

    def slurm_starts_a_step(request: Request) -> Report:
        if not request.dry_run:
            job_host.add_step("1", {300: "0", 301: "1"})
        return job_host.relocate(request)

    move = migrate(job_host.here, "7", cpus("1-2"), slurm_starts_a_step)
    assert "step 1 of the job is starting" in (move.failure or "")
    assert (job_host.cpus_at(), job_host.cpus_at(f"{JOB}/step_1")) == ("0-3", "0-1")
    assert job_host.bound() == {200: "2", 201: "3"}
    # The memory of both ranks, which had gone to nodes 1 and 2, follows them again.
    last = job_host.requests[-1]
    assert (last.pids, last.home, str(last.sources)) == ((200,), True, "1-2")
    assert job_host.asked()[-2] == ({2: 3}, (201,), False)


def test_an_interruption_brings_memory_back(job_host: JobHost) -> None:
    """Also what was on its way, of which there is no report."""

    def interrupted(request: Request) -> Report:
        done = job_host.relocate(request)
        if request.node_map and not request.dry_run and 0 in request.node_map.pairs:
            raise KeyboardInterrupt
        return done

    with pytest.raises(KeyboardInterrupt):
        migrate(job_host.here, "7", cpus("2-3"), interrupted)
    assert job_host.is_untouched()
    assert sorted(asked[1] for asked in job_host.asked()[-2:]) == [(200,), (201,)]
    assert {tuple(asked[0].items()) for asked in job_host.asked()[-2:]} == {((2, 0), (3, 1))}


def test_the_first_error_is_raised_whatever_follows(job_host: JobHost) -> None:
    left = [OSError("the pipeline broke"), OSError("and again")]

    def broken(request: Request) -> Report:
        if request.dry_run:
            return job_host.relocate(request)
        raise left.pop(0)

    with pytest.raises(OSError, match="the pipeline broke"):
        migrate(job_host.here, "7", cpus("2-3"), broken)
    assert job_host.is_untouched()
    assert not left


def test_a_task_of_which_nothing_had_moved_is_left_alone(job_host: JobHost) -> None:
    job_host.outcomes = [Outcome.FAILED]
    job_host.stays = {200}
    assert migrate(job_host.here, "7", cpus("2-3"), job_host.relocate).failure
    assert [asked[1] for asked in job_host.asked()[-1:]] == [(201,)]
    assert len(job_host.asked()) == 3


def test_processors_stay_if_part_of_the_memory_does_not_move(job_host: JobHost) -> None:
    job_host.outcomes = [Outcome.PARTIAL]
    move = migrate(job_host.here, "7", cpus("2-3"), job_host.relocate)
    assert move.done
    assert [report.outcome for report in move.reports] == [Outcome.PARTIAL]


def test_plans_that_fit_one_by_one_must_fit_together(job_host: JobHost) -> None:
    """Two ranks of one node go to two nodes, and so by two maps, of which both are planned."""
    job_host.cpuset(f"{JOB}/step_0", "0-1", [200, 201])
    for node, text in enumerate(("0-1", "2", "3", "")):
        write_file(job_host.root, f"sys/devices/system/node/node{node}/cpulist", f"{text}\n")
    job_host.free = 150 * MIB
    move = migrate(job_host.here, "7", cpus("2-3"), job_host.relocate)
    assert move.done
    assert [pairs for pairs, _, _ in job_host.asked()] == [{0: 1}, {0: 2}] * 2
    job_host.free = 50 * MIB
    again = migrate(job_host.here, "7", cpus("0-1"), job_host.relocate)
    assert "has no room" in (again.failure or "")


def test_notes_tell_of_fewer_processors_and_of_other_jobs(job_host: JobHost) -> None:
    job_host.cpuset("slurm/uid_5/job_8", "3")
    move = migrate(job_host.here, "7", cpus("3"), job_host.relocate)
    assert move.done
    assert job_host.bound() == {200: "3", 201: "3"}
    assert move.notes == (
        "2 processors become 1: some tasks now share one",
        "job 8 has processors 3 too",
    )


@pytest.mark.parametrize(
    ("job", "wanted", "error", "says"),
    [
        ("8", "2-3", UsageError, "job 8 has no process on this host"),
        ("7", "", UsageError, "empty"),
        ("7", "3-4", UsageError, "processor 4 is not online"),
    ],
)
def test_wrong_jobs_and_processors_are_usage_errors(
    job_host: JobHost, job: str, wanted: str, error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        migrate(job_host.here, job, cpus(wanted), job_host.relocate)
    assert job_host.is_untouched()
    assert not job_host.requests


def test_processors_outside_slurms_own_cpuset_are_refused(job_host: JobHost) -> None:
    job_host.cpuset("slurm", "0-2")
    with pytest.raises(RefusedError, match="allows processors 0-2, not 3"):
        migrate(job_host.here, "7", cpus("2-3"), job_host.relocate)


def test_processors_of_other_jobs_are_not_free(job_host: JobHost) -> None:
    job_host.cpuset("slurm/uid_5/job_8", "2")
    job_host.cpuset("slurm/uid_5/job_9", "0")
    check_free(job_host.here, "7", cpus("1,3"))
    with pytest.raises(RefusedError, match="processors 2-3 are not free: job 8 has 2"):
        check_free(job_host.here, "7", cpus("2-3"))


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(
    ("wanted", "may"), [("2-3", False), ("1-2", False), ("0-1", True), ("1", True)]
)
def test_a_job_on_version_1_keeps_the_processors_that_slurm_writes_again(
    tmp_path: Path, version: int, wanted: str, may: bool
) -> None:
    """Else its next step fails to start."""
    write_host(tmp_path, [FakeNode(number=n, cpus=str(n)) for n in range(4)])
    write_cgroup_mounts(tmp_path, version=version)
    base = "slurm/uid_2001" if version == 1 else "system.slice/slurmstepd.scope"
    write_cgroup(
        tmp_path, f"{base}/job_7/step_0", version=version, pids=[], cpus="0-1", nodes="0-3"
    )
    write_cgroup(tmp_path, f"{base}/job_7", version=version, pids=[], cpus="0-1", nodes="0-3")
    here = HostJobs(tmp_path)
    assert here.allocated() == ("7",)
    if may or version == 2:
        check_later_steps(here, "7", cpus(wanted))
    else:
        with pytest.raises(
            RefusedError, match=r"no further step .* other processors than 0-1; --force"
        ):
            check_later_steps(here, "7", cpus(wanted))


def test_processors_are_chosen_evenly_and_free_ones_first(job_host: JobHost) -> None:
    for node, text in enumerate(("0-3", "4-7", "8-11", "12-15")):
        write_file(job_host.root, f"sys/devices/system/node/node{node}/cpulist", f"{text}\n")
    assert cpus_of_nodes(job_host.here, "7", NodeSet({1})) == cpus("4-5")
    assert cpus_of_nodes(job_host.here, "7", NodeSet({2, 3})) == cpus("8,12")
    job_host.cpuset("slurm/uid_5/job_8", "8-10")
    assert cpus_of_nodes(job_host.here, "7", NodeSet({2})) == cpus("8,11")
    job_host.cpuset(JOB, "0-5")
    with pytest.raises(UsageError, match="nodes 2 have 4 processors, and job 7 has 6"):
        cpus_of_nodes(job_host.here, "7", NodeSet({2}))


def test_processors_that_two_nodes_share_are_chosen_once(job_host: JobHost) -> None:
    """With numa=fake a processor is in the lists of several nodes."""
    for node, text in enumerate(("0-3", "0-3", "4-7", "4-7")):
        write_file(job_host.root, f"sys/devices/system/node/node{node}/cpulist", f"{text}\n")
    assert cpus_of_nodes(job_host.here, "7", NodeSet({2, 3})) == cpus("4-5")
    job_host.cpuset(JOB, "0-5")
    with pytest.raises(UsageError, match="nodes 2-3 have 4 processors, and job 7 has 6"):
        cpus_of_nodes(job_host.here, "7", NodeSet({2, 3}))


@pytest.mark.parametrize("adjacent", [False, True], ids=["n-and-n+8", "2n-and-2n+1"])
def test_cores_are_kept_whole(job_host: JobHost, adjacent: bool) -> None:
    """With two hardware threads; Slurm gives no two jobs threads of one core."""
    for core in range(8):
        pair = (2 * core, 2 * core + 1) if adjacent else (core, core + 8)
        for cpu in pair:
            name = f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"
            write_file(job_host.root, name, f"{pair[0]},{pair[1]}\n")
    lists = ("0-7", "8-15") if adjacent else ("0-3,8-11", "4-7,12-15")
    for node, text in enumerate((*lists, "", "")):
        write_file(job_host.root, f"sys/devices/system/node/node{node}/cpulist", f"{text}\n")
    assert cpus_of_nodes(job_host.here, "7", NodeSet({1})) == cpus("8-9" if adjacent else "4,12")
    job_host.cpuset("slurm/uid_5/job_8", "8" if adjacent else "4")  # of its first core one thread
    job_host.cpuset(JOB, "0-3")
    assert cpus_of_nodes(job_host.here, "7", NodeSet({1})) == cpus(
        "10-13" if adjacent else "5-6,13-14"
    )
    job_host.cpuset(JOB, "0-2")
    assert len(cpus_of_nodes(job_host.here, "7", NodeSet({0, 1}))) == 3
    job_host.cpuset(JOB, "0-8")
    with pytest.raises(UsageError, match="nodes 1 have 8 processors, and job 7 has 9"):
        cpus_of_nodes(job_host.here, "7", NodeSet({1}))


def test_begin_is_called_before_anything_changes(job_host: JobHost) -> None:
    """An interrupted move can only be finished if it was recorded before."""
    calls: list[tuple[bool, Placement]] = []
    migrate(
        job_host.here, "7", cpus("2-3"), job_host.relocate,
        begin=lambda move: calls.append((job_host.is_untouched(), move.new)),
    )  # fmt: skip
    assert calls == [(True, place("2-3"))]
