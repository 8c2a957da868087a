"""A user without rights shows, plans, relocates and profiles processes and jobs of their own."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.numa.callers import Answer, be_nobody, call
from tests.numa.jobs import MIB, Job
from tests.numa.slurm_jobs import slurm_job
from tests.users import NOBODY

pytestmark = pytest.mark.nodes(4)

SIZE = 32
"""MiB of each task."""
JOB = "4711"
PAGE = mmap.PAGESIZE
AS_NOBODY = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")


def bind(tasks: list[Job], *cpus: int) -> None:
    for task, cpu in zip(tasks, cpus, strict=True):
        os.sched_setaffinity(task.pid, {cpu})


@pytest.fixture
def tasks() -> Iterator[list[Job]]:
    """The tasks of a job of the user, on nodes 0 and 1, whose processors are now 2 and 3."""
    with slurm_job(JOB, SIZE, prefix=AS_NOBODY) as (cgroup, tasks):
        (cgroup / "cpuset.cpus").write_text("0-3")
        bind(tasks, 2, 3)
        assert {Path(f"/proc/{task.pid}").stat().st_uid for task in tasks} == {NOBODY}
        yield tasks


def user(*words: object) -> Answer:
    """Run `schedhook … --json` as the user, after root has imported what it imports."""
    call("plan", "--all", "--home", "--json")
    return call(*words, "--json", become=be_nobody)


def test_a_job_of_their_own_comes_home(tasks: list[Job]) -> None:
    sums = [task.checksum() for task in tasks]
    shown = user("show", "--job", JOB)
    assert shown.status == 0, shown.said
    assert shown.report["bytes_off_node"] >= 2 * SIZE * MIB
    assert shown.report["user"] == NOBODY
    page = user("report").report
    assert [(job["job"], job["user"]) for job in page["jobs"]] == [(JOB, NOBODY)]
    plan = user("plan", "--job", JOB, "--home")
    assert (plan.status, plan.report["outcome"]) == (0, "planned"), plan.said
    assert plan.report["bytes_planned"] >= 2 * SIZE * MIB
    assert [task.share_on(node) for task, node in zip(tasks, (0, 1), strict=True)] == [1, 1]
    moved = user("relocate", "--job", JOB, "--home")
    assert moved.status in (0, 3), moved.said
    assert moved.report["bytes_moved"] >= 2 * SIZE * MIB
    assert [task.share_on(node) for task, node in zip(tasks, (2, 3), strict=True)] == [1, 1]
    assert [task.checksum() for task in tasks] == sums


def test_pages_that_processes_share_stay_for_them_and_not_for_root(tasks: list[Job]) -> None:
    """Without CAP_SYS_NICE there is no MPOL_MF_MOVE_ALL."""
    task = tasks[0]
    child = int(task.say("fork"))
    os.sched_setaffinity(child, {2})
    moved = user("relocate", "--pid", task.pid, "--pid", child, "--from", 0, "--to", 2)
    assert (moved.status, moved.report["outcome"]) == (3, "partial"), moved
    left = moved.report["left_by_reason"]
    assert sum(left.values()) == moved.report["bytes_left"] >= SIZE * MIB
    assert set(left) <= {"EACCES", "shared"}
    assert task.share_on(0) == 1
    moved = call("relocate", "--pid", task.pid, "--pid", child, "--from", 0, "--to", 2, "--json")
    assert moved.report["outcome"] == "complete"
    assert task.share_on(2) == 1


def test_another_users_process_is_neither_shown_nor_moved() -> None:
    with Job("anon", SIZE, 0) as root:
        os.sched_setaffinity(root.pid, {2})
        relocation = user("relocate", "--pid", root.pid, "--home")
        assert relocation.status == 4, relocation
        assert "not permitted" in " ".join(relocation.report["notes"])
        shown = user("show", "--pid", root.pid)
        assert (shown.status, shown.said.count("\n")) == (4, 1), shown
        assert "not permitted" in shown.said
        assert root.share_on(0) == 1


def test_single_pages_move_by_a_profile(tasks: list[Job], tmp_path: Path) -> None:
    task = tasks[0]
    pages = range(0, 16 * MIB // PAGE, 2)
    rows = [f"{task.pid},{task.start + page * PAGE:#x},2" for page in pages for _ in range(3)]
    log = tmp_path / "samples.csv"
    log.write_text("pid,address,node\n" + "\n".join(rows) + "\n")
    for parent in (tmp_path, *tmp_path.parents):
        parent.chmod(0o755) if parent.is_relative_to("/tmp/pytest-of-root") else None
    log.chmod(0o644)
    found = user("profile", log, "--pid", task.pid)
    assert found.report["bytes_planned"] == len(pages) * PAGE, found
    moved: dict[str, Any] = user("profile", log, "--pid", task.pid, "--move").report
    assert (moved["outcome"], moved["bytes_moved"]) == ("complete", len(pages) * PAGE), moved
    assert task.residency()[2] == len(pages) * PAGE
