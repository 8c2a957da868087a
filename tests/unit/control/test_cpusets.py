"""Write cpuset files."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from schedhook.control import cpusets
from schedhook.control.cpusets import write_cpus, write_nodes
from schedhook.host.cgroups import Cgroup
from schedhook.values.errors import NoPermissionError, RefusedError
from schedhook.values.sets import CpuSet, NodeSet

NEW = CpuSet({2, 3})


def test_a_cpuset_is_written_unless_it_is_gone(tmp_path: Path) -> None:
    cgroup = Cgroup(path=tmp_path / "job", version=2, mount=tmp_path)
    write_cpus(cgroup, NEW)
    cgroup.path.mkdir()
    file = cgroup.path / "cpuset.cpus"
    file.write_text("0-1\n")
    write_cpus(cgroup, NEW)
    assert file.read_text().startswith("2-3\n")


@pytest.fixture
def cgroup(tmp_path: Path) -> Cgroup:
    path = tmp_path / "job"
    path.mkdir()
    (path / "cgroup.procs").write_text("10\n11\n")
    for name in ("cpuset.cpus", "cpuset.mems"):
        (path / name).write_text("0-1\n")
    return Cgroup(path=path, version=2, mount=tmp_path)


def test_nodes_are_written_only_if_they_differ(
    cgroup: Cgroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(cpusets, "answers", lambda pid: not asked.append(pid))
    write_nodes(cgroup, NodeSet({0, 1}))
    assert asked == []
    write_nodes(cgroup, NodeSet({2}))
    assert (cgroup.path / "cpuset.mems").read_text().startswith("2\n")
    assert sorted(asked) == [10, 11]


def test_nodes_of_a_process_that_does_not_answer_are_not_written(
    cgroup: Cgroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpusets, "answers", lambda pid: pid != 11)
    with pytest.raises(RefusedError, match="process 11 does not answer"):
        write_nodes(cgroup, NodeSet({2}))
    assert (cgroup.path / "cpuset.mems").read_text() == "0-1\n"


def test_what_the_kernel_refuses_is_an_error_unless_the_cgroup_is_gone(
    cgroup: Cgroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(error: int) -> Callable[..., object]:
        def opened(*_: object, **__: object) -> object:
            raise OSError(error, os.strerror(error))

        return opened

    monkeypatch.setattr(cpusets, "configured_cpus", lambda _: CpuSet())
    monkeypatch.setattr(Path, "open", fail(errno.EINVAL))
    with pytest.raises(RefusedError, match=r"cpuset.cpus: the kernel refuses '2-3': Invalid"):
        write_cpus(cgroup, NEW)
    monkeypatch.setattr(Path, "open", fail(errno.EACCES))
    with pytest.raises(NoPermissionError, match="not permitted to write; run as root"):
        write_cpus(cgroup, NEW)
    shutil.rmtree(cgroup.path)
    monkeypatch.setattr(Path, "open", fail(errno.ENODEV))
    write_cpus(cgroup, NEW)
