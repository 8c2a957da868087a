"""Cgroups of both versions, as systemd, Slurm, PBS and containers lay them out."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from schedhook.host import cgroups
from schedhook.testing.hosts import (
    FakeNode,
    write_cgroup,
    write_cgroup_mounts,
    write_file,
    write_host,
    write_process,
)
from schedhook.values.errors import NoPermissionError, ProcessGoneError, SchedhookError, UsageError
from schedhook.values.sets import CpuSet, NodeSet

SLURM = "system.slice/slurmstepd.scope/job_7"
PBS = "pbs_jobs.service/jobid/7.host"


@pytest.fixture
def v2(tmp_path: Path) -> Path:
    write_cgroup_mounts(tmp_path, version=2)
    return tmp_path


@pytest.fixture
def v1(tmp_path: Path) -> Path:
    write_cgroup_mounts(tmp_path, version=1)
    return tmp_path


class TestResolve:
    @pytest.mark.parametrize(
        "text",
        [SLURM, f"/{SLURM}", f"/sys/fs/cgroup/{SLURM}", f"/{SLURM}/", f"sys/fs/cgroup/{SLURM}"],
    )
    def test_every_form_of_a_name(self, v2: Path, text: str) -> None:
        path = write_cgroup(v2, SLURM)
        found = cgroups.resolve_cgroup(text, v2)
        assert (found.path, found.version) == (path, 2)
        assert found.name == f"/{SLURM}"

    def test_the_directory_with_the_root_in_front(self, v2: Path) -> None:
        path = write_cgroup(v2, SLURM)
        assert cgroups.resolve_cgroup(str(path), v2).path == path

    def test_the_root(self, v2: Path) -> None:
        found = cgroups.resolve_cgroup("/", v2)
        assert (found.path, found.name) == (v2 / "sys/fs/cgroup", "/")

    def test_version_1_searches_the_cpuset_hierarchy_first(self, v1: Path) -> None:
        path = write_cgroup(v1, PBS, version=1)
        write_file(v1, f"sys/fs/cgroup/memory/{PBS}/cgroup.procs", "")
        found = cgroups.resolve_cgroup(PBS, v1)
        assert (found.path, found.version) == (path, 1)

    def test_version_1_takes_another_hierarchy_if_it_is_named(self, v1: Path) -> None:
        write_cgroup(v1, PBS, version=1)
        write_file(v1, f"sys/fs/cgroup/memory/{PBS}/cgroup.procs", "")
        found = cgroups.resolve_cgroup(f"/sys/fs/cgroup/memory/{PBS}", v1)
        assert found.path == v1 / "sys/fs/cgroup/memory" / PBS

    def test_hybrid_hosts_keep_services_in_version_2(self, v1: Path) -> None:
        write_file(v1, "sys/fs/cgroup/unified/system.slice/x/cgroup.procs", "")
        assert cgroups.resolve_cgroup("system.slice/x", v1).version == 2

    def test_hybrid_hosts_prefer_version_2_to_hierarchies_without_cpusets(self, v1: Path) -> None:
        for hierarchy in ("memory", "unified"):
            write_file(v1, f"sys/fs/cgroup/{hierarchy}/system.slice/x/cgroup.procs", "")
        found = cgroups.resolve_cgroup("system.slice/x", v1)
        assert found.mount == v1 / "sys/fs/cgroup/unified"

    def test_a_hierarchy_mounted_below_another(self, tmp_path: Path) -> None:
        mounts = "c /cg cgroup2 rw 0 0\nc /cg/freezer cgroup rw,freezer 0 0\n"
        write_file(tmp_path, "proc/mounts", mounts)
        write_file(tmp_path, "cg/freezer/job/cgroup.procs", "")
        found = cgroups.resolve_cgroup("/cg/freezer/job", tmp_path)
        assert (found.version, found.name) == (1, "/job")

    def test_controllers_mounted_together(self, tmp_path: Path) -> None:
        write_file(
            tmp_path, "proc/mounts", "cgroup /sys/fs/cgroup/cpu,cpuset cgroup rw,cpu,cpuset 0 0\n"
        )
        write_file(tmp_path, "sys/fs/cgroup/cpu,cpuset/a/cgroup.procs", "")
        found = cgroups.resolve_cgroup("a", tmp_path)
        assert (found.version, found.name) == (1, "/a")

    def test_a_mount_point_with_a_blank(self, tmp_path: Path) -> None:
        write_file(tmp_path, "proc/mounts", "none /my\\040groups cgroup2 rw 0 0\n")
        write_file(tmp_path, "my groups/a/cgroup.procs", "")
        assert cgroups.resolve_cgroup("a", tmp_path).path == tmp_path / "my groups/a"

    def test_an_unknown_name_lists_what_was_tried(self, v2: Path) -> None:
        with pytest.raises(UsageError) as caught:
            cgroups.resolve_cgroup("/job_8", v2)
        message = str(caught.value)
        assert "'/job_8'" in message
        assert str(v2 / "sys/fs/cgroup/job_8") in message
        assert len(message.splitlines()) == 1

    @pytest.mark.parametrize(
        "text", ["", " ", "\0", "..", "/a/../..", "sys/fs", "x" * 5000, "a\nb\x1b[2J"]
    )
    def test_invalid_names_are_refused_in_one_line(self, v2: Path, text: str) -> None:
        with pytest.raises(UsageError) as caught:
            cgroups.resolve_cgroup(text, v2)
        assert str(caught.value).isprintable()

    def test_a_plain_directory_is_not_a_cgroup(self, v2: Path) -> None:
        (v2 / "sys/fs/cgroup/empty").mkdir()
        with pytest.raises(UsageError):
            cgroups.resolve_cgroup("empty", v2)

    def test_a_host_without_cgroups(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="no cgroup file system"):
            cgroups.resolve_cgroup("a", tmp_path)


def test_the_tops_of_hierarchies_come_in_the_order_of_search(v1: Path) -> None:
    tops = cgroups.hierarchies(v1)
    assert [(top.path.name, top.version) for top in tops[:2]] == [("cpuset", 1), ("unified", 2)]
    assert {top.path.name for top in tops[2:]} == {"memory", "freezer", "systemd"}
    assert all(top.name == "/" for top in tops)


class TestOfProcess:
    def test_version_2(self, v2: Path) -> None:
        path = write_cgroup(v2, SLURM)
        write_process(v2, 5, cgroup=f"0::/{SLURM}\n")
        assert cgroups.cgroup_of(5, v2).path == path

    def test_version_1_takes_the_cpuset(self, v1: Path) -> None:
        path = write_cgroup(v1, PBS, version=1)
        text = f"9:memory:/other\n3:cpu,cpuset:/{PBS}\n1:name=systemd:/x\n0::/unified\n"
        write_process(v1, 5, cgroup=text)
        found = cgroups.cgroup_of(5, v1)
        assert (found.path, found.version) == (path, 1)

    def test_version_1_without_cpusets_takes_version_2(self, tmp_path: Path) -> None:
        mounts = "c /v1 cgroup rw,memory 0 0\nc /v2 cgroup2 rw 0 0\n"
        write_file(tmp_path, "proc/mounts", mounts)
        write_file(tmp_path, "v2/a/cgroup.procs", "5\n")
        write_process(tmp_path, 5, cgroup="3:memory:/b\n0::/a\n")
        assert cgroups.cgroup_of(5, tmp_path).path == tmp_path / "v2/a"

    def test_a_name_with_colons(self, v2: Path) -> None:
        path = write_cgroup(v2, "job:7:a")
        write_process(v2, 5, cgroup="0::/job:7:a\n")
        assert cgroups.cgroup_of(5, v2).path == path

    def test_a_container_that_sees_a_part_of_the_hierarchy(self, tmp_path: Path) -> None:
        write_file(
            tmp_path,
            "proc/self/mountinfo",
            "30 1 0:26 /docker/abc /sys/fs/cgroup rw - cgroup2 cgroup rw\n",
        )
        write_file(tmp_path, "sys/fs/cgroup/job/cgroup.procs", "5\n")
        write_process(tmp_path, 5, cgroup="0::/docker/abc/job\n")
        write_process(tmp_path, 6, cgroup="0::/docker/other\n")
        write_process(tmp_path, 7, cgroup="0::/../other\n")
        assert cgroups.cgroup_of(5, tmp_path).path == tmp_path / "sys/fs/cgroup/job"
        for pid in (6, 7):
            with pytest.raises(SchedhookError, match=f"process {pid}"):
                cgroups.cgroup_of(pid, tmp_path)

    def test_a_cgroup_above_what_the_container_sees_is_not_searched(self, v2: Path) -> None:
        write_file(v2, "sys/fs/other/cgroup.procs", "5\n")
        write_process(v2, 5, cgroup="0::/../other\n")
        with pytest.raises(SchedhookError, match="process 5"):
            cgroups.cgroup_of(5, v2)

    def test_a_cgroup_that_was_removed(self, v2: Path) -> None:
        write_process(v2, 5, cgroup="0::/job_7 (deleted)\n")
        with pytest.raises(ProcessGoneError):
            cgroups.cgroup_of(5, v2)


class TestPids:
    def test_all_below(self, v2: Path) -> None:
        write_cgroup(v2, f"{SLURM}/step_0/user/task_0", pids=[30, 10])
        write_cgroup(v2, f"{SLURM}/step_0/slurm", pids=[20])
        write_cgroup(v2, "system.slice/other", pids=[99])
        job = cgroups.resolve_cgroup(SLURM, v2)
        assert cgroups.pids(job, v2) == [10, 20, 30]

    def test_processes_of_other_namespaces_have_no_number(self, v2: Path) -> None:
        write_cgroup(v2, "job", pids=[0, 5, 0])
        assert cgroups.pids(cgroups.resolve_cgroup("job", v2), v2) == [5]

    def test_gone(self, v2: Path) -> None:
        path = write_cgroup(v2, "job", pids=[5])
        job = cgroups.resolve_cgroup("job", v2)
        (path / "cgroup.procs").unlink()
        path.rmdir()
        assert cgroups.pids(job, v2) == []

    @pytest.mark.parametrize("number", [errno.ENOENT, errno.ENODEV])
    def test_a_child_vanishes_during_the_walk(
        self, v2: Path, monkeypatch: pytest.MonkeyPatch, number: int
    ) -> None:
        write_cgroup(v2, "job", pids=[5])
        write_cgroup(v2, "job/step", pids=[6])
        fail_to_read(monkeypatch, "step/cgroup.procs", number)
        assert cgroups.pids(cgroups.resolve_cgroup("job", v2), v2) == [5]

    def test_threaded_cgroups_have_threads_only(
        self, v2: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write_cgroup(v2, "job/workers", files={"cgroup.threads": "51\n0\n62\n999\n"})
        write_process(v2, 50, threads={50: "S", 51: "S"})
        for thread, process in ((51, 50), (62, 60)):
            text = f"Name:\tx\nState:\tS\nTgid:\t{process}\nUid:\t0\t0\t0\t0\n"
            write_file(v2, f"proc/{thread}/status", text)
        fail_to_read(monkeypatch, "workers/cgroup.procs", errno.EOPNOTSUPP)
        assert cgroups.pids(cgroups.resolve_cgroup("job", v2), v2) == [50, 60]

    def test_a_list_with_holes_is_an_error(self, v2: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write_cgroup(v2, "job/step", pids=[6])
        fail_to_read(monkeypatch, "step/cgroup.procs", errno.EACCES)
        with pytest.raises(NoPermissionError, match="step"):
            cgroups.pids(cgroups.resolve_cgroup("job", v2), v2)


def fail_to_read(monkeypatch: pytest.MonkeyPatch, name: str, number: int) -> None:
    """Let reading any file whose path ends in `name` fail with the errno `number`."""
    read = Path.read_bytes

    def failing(path: Path) -> bytes:
        if str(path).endswith(name):
            raise OSError(number, "made up", str(path))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", failing)


class TestCpusets:
    def test_version_2(self, v2: Path) -> None:
        write_cgroup(v2, "job", cpus="0-3", nodes="", effective_cpus="0-2", effective_nodes="0-1")
        job = cgroups.resolve_cgroup("job", v2)
        assert cgroups.effective_cpus(job, v2) == CpuSet.parse("0-2")
        assert cgroups.effective_nodes(job, v2) == NodeSet.parse("0-1")
        assert cgroups.configured_cpus(job) == CpuSet.parse("0-3")
        assert cgroups.configured_nodes(job) == NodeSet()

    def test_without_the_controller_the_nearest_cpuset_above_counts(self, v2: Path) -> None:
        write_cgroup(v2, "", effective_cpus="0-7", effective_nodes="0-3")
        write_cgroup(v2, "job", effective_cpus="2-3", effective_nodes="1")
        write_cgroup(v2, "job/step/user/task")
        task = cgroups.resolve_cgroup("job/step/user/task", v2)
        assert cgroups.effective_cpus(task, v2) == {2, 3}
        assert cgroups.effective_nodes(task, v2) == {1}
        assert cgroups.configured_nodes(task) == NodeSet()

    def test_without_a_cpuset_everything_is_allowed(self, v2: Path) -> None:
        write_host(v2, [FakeNode(number=0, cpus="0"), FakeNode(number=2, cpus="4")])
        write_cgroup(v2, "job")
        job = cgroups.resolve_cgroup("job", v2)
        assert cgroups.effective_cpus(job, v2) == {0, 4}
        assert cgroups.effective_nodes(job, v2) == {0, 2}

    def test_version_1(self, v1: Path) -> None:
        write_cgroup(
            v1, PBS, version=1, cpus="0-3", nodes="0-1", effective_cpus="0-1", effective_nodes="0"
        )
        job = cgroups.resolve_cgroup(PBS, v1)
        assert cgroups.effective_cpus(job, v1) == {0, 1}
        assert cgroups.effective_nodes(job, v1) == {0}
        assert cgroups.configured_cpus(job) == CpuSet.parse("0-3")
        assert cgroups.configured_nodes(job) == {0, 1}

    def test_old_kernels_have_no_effective_sets_in_version_1(self, v1: Path) -> None:
        write_cgroup(v1, PBS, version=1, cpus="2-3", nodes="1")
        job = cgroups.resolve_cgroup(PBS, v1)
        assert cgroups.effective_cpus(job, v1) == {2, 3}
        assert cgroups.effective_nodes(job, v1) == {1}

    def test_the_cpuset_file_system(self, tmp_path: Path) -> None:
        write_file(tmp_path, "proc/mounts", "none /dev/cpuset cpuset rw 0 0\n")
        for name, value in (("tasks", ""), ("cpus", "0-3"), ("mems", "1")):
            write_file(tmp_path, f"dev/cpuset/job/{name}", value)
        job = cgroups.resolve_cgroup("job", tmp_path)
        assert cgroups.effective_cpus(job, tmp_path) == CpuSet.parse("0-3")
        assert cgroups.configured_nodes(job) == {1}


def test_frozen_in_version_2(v2: Path) -> None:
    for name, text in (("still", "populated 1\nfrozen 1\n"), ("runs", "populated 1\nfrozen 0\n")):
        write_cgroup(v2, name, files={"cgroup.events": text})
    assert cgroups.frozen(cgroups.resolve_cgroup("still", v2), v2)
    assert not cgroups.frozen(cgroups.resolve_cgroup("runs", v2), v2)
    assert not cgroups.frozen(cgroups.resolve_cgroup("/", v2), v2)


def test_in_version_1_the_freezers_hierarchy_decides(v1: Path) -> None:
    write_cgroup(v1, PBS, version=1)
    job = cgroups.resolve_cgroup(PBS, v1)
    assert not cgroups.frozen(job, v1)
    for state, expected in (("FROZEN\n", True), ("FREEZING\n", False), ("THAWED\n", False)):
        write_file(v1, f"sys/fs/cgroup/freezer/{PBS}/freezer.state", state)
        assert cgroups.frozen(job, v1) is expected


STRANGE = ("x\r0::/victim", "x\x0b0::/victim", "\x85\u2028\udcff\x1b[m")


@pytest.mark.parametrize("name", [f"user.slice/{strange}" for strange in STRANGE])
def test_a_name_can_contain_any_character(v2: Path, name: str) -> None:
    """Only a newline is impossible: users can make cgroups and choose their names."""
    write_file(v2, f"sys/fs/cgroup/{name}/cgroup.procs", "10\n")
    write_file(v2, "proc/10/cgroup", os.fsencode(f"9:name=systemd:/{name}\n0::/{name}\n"))
    assert cgroups.memberships(10, v2) == (("name=systemd", f"/{name}"), ("", f"/{name}"))
    assert cgroups.cgroup_of(10, v2).path == v2 / "sys/fs/cgroup" / name
