"""Slurm in the role of a scheduler: the parts that go beyond the contract for schedulers."""

from __future__ import annotations

import time

import pytest

from schedhook.roles.scheduler import EventKind
from schedhook.values.model import PlacementOverride
from schedhook_plugins.schedulers.slurm.scheduler import Slurm
from tests.unit.schedhook_plugins.schedulers.slurm.job_host import JOB, JobHost, place


def test_each_point_has_a_kind_in_both_spellings() -> None:
    assert Slurm.kinds == {
        "prolog": EventKind.JOB_STARTED,
        "epilog": EventKind.JOB_ENDED,
        "task-prolog": EventKind.STEP_STARTED,
        "task_prolog": EventKind.STEP_STARTED,
        "job-migrate": EventKind.RELOCATED,
        "job_migrate": EventKind.RELOCATED,
    }


def test_a_job_can_be_found_and_placed_again(job_host: JobHost) -> None:
    slurm = Slurm(job_host.root)
    assert slurm.jobs() == ("7",)
    assert job_host.root / "sys/fs/cgroup/cpuset" / JOB in slurm.cgroups("7")
    override = PlacementOverride(was=place("0-1"), placement=place("2-3"))
    line = slurm.reapply("7", override, job_host.relocate, {})
    assert line == "override reapplied: processors 2-3, moved 100.0 MiB, left 0.0 MiB"
    assert [task.placement for task in slurm.tasks("7")] == [place("2"), place("3")]
    assert slurm.rebind("7", {}) is False


def test_the_environment_tells_when_a_job_ends(
    job_host: JobHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    slurm = Slurm(job_host.root)
    assert slurm.time_left("7") is None
    pid = slurm.tasks("7")[0].pids[0]
    environ = job_host.root / "proc" / str(pid) / "environ"
    monkeypatch.setattr(time, "time", lambda: 1_000_000.0)
    for end, left in ((b"1000030", 30.0), (b"999999", 0.0), (b"never", None)):
        environ.write_bytes(b"SLURM_PROCID=0\0SLURM_JOB_END_TIME=" + end + b"\0")
        assert slurm.time_left("7") == left
