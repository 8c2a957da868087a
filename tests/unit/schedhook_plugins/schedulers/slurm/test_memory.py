"""The memory of a job moves in groups of tasks, after all groups were planned together."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest

from schedhook.roles.request import Request
from schedhook.values.errors import ProcessGoneError, RefusedError
from schedhook.values.model import Outcome, Report
from schedhook_plugins.schedulers.slurm.memory import MAPPER, JobMemory
from tests.unit.schedhook_plugins.schedulers.slurm.job_host import MIB, JobHost


def memory(job_host: JobHost) -> JobMemory:
    """Return the memory of job 7, whose two tasks go by different maps to node 2."""
    first, second = job_host.here.tasks("7")
    groups = [({0: 2}, [first]), ({1: 2}, [second])]
    return JobMemory("7", job_host.root, job_host.relocate, groups)


def test_each_group_moves_by_its_own_map(job_host: JobHost) -> None:
    moved = memory(job_host)
    assert [report.outcome for report in moved.plan()] == [Outcome.PLANNED] * 2
    assert moved.reports == []
    moved.move()
    assert [report.outcome for report in moved.reports] == [Outcome.COMPLETE] * 2
    assert job_host.asked() == [
        ({0: 2}, (200,), True),
        ({1: 2}, (201,), True),
        ({0: 2}, (200,), False),
        ({1: 2}, (201,), False),
    ]
    assert {each.node_map and each.node_map.mapper for each in job_host.requests} == {MAPPER}
    assert {(each.scheduler, each.job) for each in job_host.requests} == {("slurm", "7")}


def test_groups_that_fit_one_by_one_must_fit_together(job_host: JobHost) -> None:
    job_host.free = 200 * MIB
    memory(job_host).plan()
    job_host.free = 199 * MIB
    with pytest.raises(
        RefusedError, match=r"node 2 has no room: 200\.0 MiB would arrive, .* 199\.0"
    ):
        memory(job_host).plan()


def test_what_leaves_a_node_makes_room_for_what_arrives_later(job_host: JobHost) -> None:
    first, second = job_host.here.tasks("7")
    groups = [({1: 0}, [second]), ({0: 1}, [first])]
    job_host.free_on = {0: 100 * MIB, 1: 0}
    JobMemory("7", job_host.root, job_host.relocate, groups).plan()
    with pytest.raises(RefusedError, match="node 1 has no room"):
        JobMemory("7", job_host.root, job_host.relocate, groups[::-1]).plan()


def test_a_refused_plan_is_an_error_with_the_reason(job_host: JobHost) -> None:
    job_host.refusal = "process 200 may not move"
    with pytest.raises(RefusedError, match="process 200 may not move"):
        memory(job_host).plan()


def test_a_failed_move_keeps_the_reports_of_what_was_moved(job_host: JobHost) -> None:
    job_host.outcomes = [Outcome.COMPLETE, Outcome.FAILED]
    moved = memory(job_host)
    with pytest.raises(RefusedError, match="the memory could not follow: it went wrong"):
        moved.move()
    assert [report.outcome for report in moved.reports] == [Outcome.COMPLETE, Outcome.FAILED]


def test_a_task_that_has_ended_is_left_out(job_host: JobHost) -> None:
    def relocate(request: Request) -> Report:
        if (job_host.root / "proc/200").exists():
            shutil.rmtree(job_host.root / "proc/200")
            raise ProcessGoneError("process 200 has ended")
        return job_host.relocate(request)

    moved = replace(memory(job_host), relocate=relocate)
    moved.move()
    assert [request.pids for request in job_host.requests] == [(201,)]
