"""A job is found on this host by what people call it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from schedhook.jobs.lookup import find_job
from schedhook.plugins.loading import load_plugins
from schedhook.testing.hosts import (
    FakeNode,
    write_cgroup,
    write_cgroup_mounts,
    write_file,
    write_host,
    write_process,
)
from schedhook.values.config import Config
from schedhook.values.errors import UsageError


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """Return a host with Slurm's job 38, the element 36_2 of an array."""
    write_host(tmp_path, [FakeNode(number=0, cpus="0")])
    write_cgroup_mounts(tmp_path)
    task = "system.slice/slurmstepd.scope/job_38/step_batch/user/task_0"
    write_cgroup(tmp_path, task, pids=[100])
    write_process(tmp_path, 100, cgroup=f"0::/{task}\n")
    text = "SLURM_JOB_ID=38\0SLURM_ARRAY_JOB_ID=36\0SLURM_ARRAY_TASK_ID=2\0"
    write_file(tmp_path, "proc/100/environ", text)
    return tmp_path


@pytest.mark.parametrize("scheduler", [None, "slurm"])
def test_a_job_is_found_by_its_alias(host: Path, scheduler: str | None) -> None:
    plugins = load_plugins(Config(), environ={"SCHEDHOOK_DISABLE_PLUGINS": "all"})
    found = find_job(plugins, "36_2", scheduler, host)
    assert (found.adapter.name, found.job, found.pids) == ("slurm", "38", (100,))


@pytest.mark.parametrize("user", [0, 1000])
def test_a_user_who_may_not_read_aliases_is_told(
    host: Path, monkeypatch: pytest.MonkeyPatch, user: int
) -> None:
    """Only root reads the environment of other users' tasks, which has the alias."""
    monkeypatch.setattr(os, "geteuid", lambda: user)
    plugins = load_plugins(Config(), environ={"SCHEDHOOK_DISABLE_PLUGINS": "all"})
    with pytest.raises(UsageError, match="no process of job '36_3' on this host") as error:
        find_job(plugins, "36_3", None, host)
    assert ("run as root" in str(error.value)) == (user != 0)
