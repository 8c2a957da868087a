"""Write cpuset files."""

from __future__ import annotations

from pathlib import Path

from schedhook.control.cpusets import write_cpus
from schedhook.host.cgroups import Cgroup
from schedhook.values.sets import CpuSet

NEW = CpuSet({2, 3})


def test_a_cpuset_is_written_unless_it_is_gone(tmp_path: Path) -> None:
    cgroup = Cgroup(path=tmp_path / "job", version=2, mount=tmp_path)
    write_cpus(cgroup, NEW)
    cgroup.path.mkdir()
    file = cgroup.path / "cpuset.cpus"
    file.write_text("0-1\n")
    write_cpus(cgroup, NEW)
    assert file.read_text().startswith("2-3\n")
