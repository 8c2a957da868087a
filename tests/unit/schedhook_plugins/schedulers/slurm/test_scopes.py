"""Where the cgroups of jobs are, and which number a SLUID stands for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from schedhook.testing.hosts import (
    FakeNode,
    write_cgroup,
    write_cgroup_mounts,
    write_host,
    write_process,
)
from schedhook_plugins.schedulers.slurm import scopes
from schedhook_plugins.schedulers.slurm.scopes import JobCgroups

SLUID = "sEKNKTV3WPV500"
SCOPE = "system.slice/slurmstepd.scope"
POD = "kubepods-pod3c1b2a4e_90ab_4cde_8f01_23456789abcd.slice"
CONTAINER = "4f" * 32


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_host(tmp_path, [FakeNode(number=node, cpus=str(node)) for node in range(4)])
    write_cgroup_mounts(tmp_path)
    return tmp_path


def write_job(root: Path, job: str, title: bytes = b"slurmstepd: [4711.0]", uid: int = 0) -> None:
    """Write a job's cgroup with a slurmstepd (100) and a task (101)."""
    write_cgroup(root, f"{job}/step_0/slurm", pids=[100])
    write_cgroup(root, f"{job}/step_0/user/task_0", pids=[101])
    write_process(root, 100, name=b"slurmstepd", arguments=[title], uid=uid)
    write_process(root, 101, uid=1001)


# -- where the scope is ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "scope",
    [
        SCOPE,
        "n1_slurmstepd.scope",
        "batch.slice/batch-slurm.slice/slurmstepd.scope",
        # slurmd in a pod, in the cgroup namespace of the host
        f"kubepods.slice/kubepods-burstable.slice/{POD}/{SCOPE}",
        # … and in one of its own: containerd, CRI-O, Docker, cgroupfs instead of systemd
        f"kubepods.slice/kubepods-burstable.slice/{POD}/cri-containerd-{CONTAINER}.scope/{SCOPE}",
        f"kubepods.slice/{POD}/crio-{CONTAINER}.scope/{SCOPE}",
        f"system.slice/docker-{CONTAINER}.scope/{SCOPE}",
        f"machine.slice/libpod-{CONTAINER}.scope/{SCOPE}",
        f"kubepods/burstable/pod3c1b2a4e-90ab-4cde-8f01-23456789abcd/{CONTAINER}/{SCOPE}",
        f"docker/{CONTAINER}/{SCOPE}",
    ],
)
def test_a_job_is_found_wherever_its_slurmd_runs(root: Path, scope: str) -> None:
    write_job(root, f"{scope}/job_7")
    (cgroup,) = JobCgroups(root).of("7")
    assert cgroup.name == f"/{scope}/job_7"
    assert JobCgroups(root).jobs() == ("7",)


@pytest.mark.parametrize(
    "above",
    [
        "user.slice/user-1001.slice/user@1001.service/app.slice",
        "system.slice/site.service",
        "system.slice/x.scope",
        "lxc",
    ],
)
def test_a_cgroup_in_a_users_own_service_is_no_job(root: Path, above: str) -> None:
    write_job(root, f"{above}/slurmstepd.scope/job_7")
    assert JobCgroups(root).jobs() == ()
    assert JobCgroups(root).of("7") == ()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory to another user")
def test_a_scope_that_a_user_has_made_is_no_slurmds(root: Path) -> None:
    """In a container whose root is another user of the host, and which may make cgroups."""
    above = f"machine.slice/libpod-{CONTAINER}.scope"
    write_job(root, f"{above}/{SCOPE}/job_7")
    os.chown(root / "sys/fs/cgroup" / above / SCOPE, 100000, 100000)
    assert JobCgroups(root).jobs() == ()


def test_slurmds_in_several_pods_have_their_own_jobs(root: Path) -> None:
    for number in (1, 2):
        write_job(root, f"kubepods.slice/kubepods-pod{number}.slice/{SCOPE}/job_{number}")
    assert JobCgroups(root).jobs() == ("1", "2")
    assert len(JobCgroups(root).of("1")) == 1


def test_a_new_scope_is_noticed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the scopes are is remembered for a moment: hosts may have thousands of cgroups."""
    monkeypatch.setattr(scopes, "_CACHE_SECONDS", 0.0)
    cgroups = JobCgroups(root)
    assert cgroups.jobs() == ()
    write_job(root, f"{SCOPE}/job_7")
    assert cgroups.jobs() == ("7",)
    write_job(root, f"kubepods.slice/{SCOPE}/job_8")
    assert cgroups.jobs() == ("7", "8")


def test_the_first_job_of_another_user_is_noticed_at_once(tmp_path: Path) -> None:
    """On version 1, where each user has a cgroup above those of the jobs."""
    write_cgroup_mounts(tmp_path, version=1)
    write_cgroup(tmp_path, "slurm_n1/uid_1/job_7", version=1)
    cgroups = JobCgroups(tmp_path, "n1")
    assert cgroups.jobs() == ("7",)
    write_cgroup(tmp_path, "slurm_n1/uid_2/job_8", version=1)
    assert cgroups.jobs() == ("7", "8")
    assert len(cgroups.of("8")) == 1


# -- SLUIDs ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "title",
    [
        b"slurmstepd: [4711.0]",
        b"slurmstepd: [4711.batch]",
        b"slurmstepd: [4711.extern stepmgr]",
        b"slurmstepd: [4711]",
        b"slurmstepd: [4711.0]" + b"\0" * 40,
    ],
)
def test_slurmstepd_tells_the_number_of_a_sluid(root: Path, title: bytes) -> None:
    write_job(root, f"{SCOPE}/{SLUID}", title)
    write_cgroup(root, f"{SCOPE}/system", pids=[90])
    cgroups = JobCgroups(root)
    assert cgroups.jobs() == ("4711",)
    assert [cgroup.path.name for cgroup in cgroups.of("4711")] == [SLUID]
    assert cgroups.sluids() == {SLUID: "4711"}
    assert cgroups.unnumbered() == ()


@pytest.mark.parametrize(
    "title",
    [b"slurmstepd: [0.0]", b"slurmstepd: [x]", b"slurmstepd: [47", b"slurmstepd infinity",
     b"x slurmstepd: [4711.0]", b"slurmstepd: [4711.0] x", b""],
)  # fmt: skip
def test_another_title_tells_nothing(root: Path, title: bytes) -> None:
    write_job(root, f"{SCOPE}/{SLUID}", title)
    assert JobCgroups(root).jobs() == ()
    assert JobCgroups(root).unnumbered() == (SLUID,)


def test_what_a_user_can_forge_tells_no_number(root: Path) -> None:
    """Neither the environment and the title of the user's processes, nor where only root's are."""
    write_job(root, f"{SCOPE}/{SLUID}", uid=1001)
    write_process(root, 101, name=b"slurmstepd", arguments=[b"slurmstepd: [4711.0]"], uid=1001)
    (root / "proc/101/environ").write_bytes(b"SLURM_JOB_ID=4711\0")
    assert JobCgroups(root).jobs() == ()
    write_process(root, 100, name=b"slurmstepd", arguments=[b"slurmstepd: [12.0]"])
    assert JobCgroups(root).jobs() == ("12",)


def test_a_number_is_remembered_while_no_step_runs(root: Path) -> None:
    write_job(root, f"{SCOPE}/{SLUID}")
    cgroups = JobCgroups(root)
    assert cgroups.jobs() == ("4711",)
    (root / "sys/fs/cgroup" / SCOPE / SLUID / "step_0/slurm/cgroup.procs").write_text("")
    assert cgroups.jobs() == ("4711",)
    assert JobCgroups(root).jobs() == ()


def test_a_job_that_was_requeued_has_its_new_cgroup_too(root: Path) -> None:
    """A requeued job gets another SLUID."""
    write_job(root, f"{SCOPE}/{SLUID}")
    other = f"{SCOPE}/sEKNKTV3WPV501"
    write_cgroup(root, f"{other}/step_0/slurm", pids=[200])
    write_process(root, 200, name=b"slurmstepd", arguments=[b"slurmstepd: [4711.0]"])
    assert len(JobCgroups(root).of("4711")) == 2
