"""Cgroups that are fenced to nodes, and what their memory limits still allow."""

from __future__ import annotations

from pathlib import Path

import pytest

from schedhook.host.grants import cpuset_path, read_grants
from schedhook.testing.hosts import (
    write_cgroup,
    write_cgroup_mounts,
    write_file,
    write_process,
)
from schedhook.values.errors import SchedhookError
from schedhook.values.sets import NodeSet

MIB = 1 << 20
ALL = NodeSet(range(4))


@pytest.fixture
def host(tmp_path: Path) -> Path:
    write_cgroup_mounts(tmp_path)
    write_file(tmp_path, "sys/fs/cgroup/cgroup.subtree_control", "cpuset memory\n")
    return tmp_path


def write_job(
    root: Path, name: str, nodes: str, limit: str = "max", used: int = 0, **files: str
) -> None:
    its = {
        "cgroup.events": "populated 1\nfrozen 0\n",
        "cgroup.subtree_control": "cpuset memory\n",
        "memory.max": f"{limit}\n",
        "memory.current": f"{used}\n",
    }
    write_cgroup(root, name, nodes=nodes, effective_nodes=nodes, files=its | files)


def read(root: Path) -> dict[str, tuple[str, int | None]]:
    """Return (nodes, more) of each grant by its cgroup's name."""
    found, pending = {}, [*read_grants(ALL, root)]
    while pending:
        grant = pending.pop()
        name = str(Path(grant.path).relative_to(root / "sys/fs/cgroup"))
        found[name] = (str(grant.nodes), grant.more)
        pending += grant.parts
    return found


def test_a_fenced_cgroup_may_still_take_what_its_limit_allows(host: Path) -> None:
    write_job(host, "a", "2", str(600 * MIB), 200 * MIB)
    write_job(host, "b", "2", "max", 200 * MIB)
    write_job(host, "c", "2", str(100 * MIB), 200 * MIB)
    assert read(host) == {"a": ("2", 400 * MIB), "b": ("2", None), "c": ("2", 0)}


def test_the_cache_of_a_cgroup_is_no_use_of_its_limit(host: Path) -> None:
    """The kernel drops it for the cgroup, and it counts as room on the node."""
    stat = "anon 5\nactive_file 30\ninactive_file 20\nslab_reclaimable 10\nshmem 7\n"
    write_job(host, "a", "2", "100", 90, **{"memory.stat": stat})
    assert read(host) == {"a": ("2", 70)}


def test_cgroups_without_a_fence_are_left_out(host: Path) -> None:
    write_job(host, "wide", "0-3", "100")
    write_job(host, "wide/below", "0-3", "50")
    write_job(host, "scope", "0-3", "1000", 100)
    write_job(host, "scope/job", "1-2", "300")
    assert read(host) == {"scope": ("0-3", 900), "scope/job": ("1-2", 300)}


def test_a_cgroup_without_processes_claims_nothing(host: Path) -> None:
    write_job(host, "empty", "2", "100", **{"cgroup.events": "populated 0\nfrozen 0\n"})
    assert read(host) == {}


def test_a_cgroup_without_a_cpuset_has_that_of_its_parent(host: Path) -> None:
    write_job(host, "job", "2")
    write_cgroup(host, "job/step", files={"memory.max": "70\n", "memory.current": "50\n"})
    assert read(host) == {"job": ("2", None), "job/step": ("2", 20)}


def test_a_part_of_the_tree_without_cpusets_is_not_read(host: Path) -> None:
    write_job(host, "slice", "0-3", **{"cgroup.subtree_control": "memory\n"})
    write_job(host, "slice/never", "2", "no number")
    assert read(host) == {}


def test_a_limit_that_is_no_number_is_an_error(host: Path) -> None:
    write_job(host, "a", "2", "plenty")
    with pytest.raises(SchedhookError, match="'plenty' is not a number"):
        read(host)


def test_a_host_without_cgroups_has_no_grants(tmp_path: Path) -> None:
    write_file(tmp_path, "proc/mounts", "")
    assert read_grants(ALL, tmp_path) == ()


def test_version_1_has_a_hierarchy_for_each_controller(tmp_path: Path) -> None:
    write_cgroup_mounts(tmp_path, version=1)
    for name, limit in (("1.pbs", 300), ("2.pbs", (1 << 63) - 4096)):
        write_cgroup(tmp_path, f"pbs/{name}", version=1, pids=[7], nodes="2")
        memory = f"sys/fs/cgroup/memory/pbs/{name}"
        write_file(tmp_path, f"{memory}/memory.limit_in_bytes", f"{limit}\n")
        write_file(tmp_path, f"{memory}/memory.usage_in_bytes", "100\n")
        write_file(tmp_path, f"{memory}/memory.stat", "total_inactive_file 40\ncache 41\n")
    write_cgroup(tmp_path, "pbs/3.pbs", version=1, nodes="2")
    (pbs,) = read_grants(ALL, tmp_path)
    assert [(part.nodes, part.more) for part in pbs.parts] == [({2}, 240), ({2}, None)]


def test_the_nearest_cpuset_of_a_process(host: Path) -> None:
    write_job(host, "job", "2")
    write_cgroup(host, "job/step", pids=[7])
    write_process(host, 7, cgroup="0::/job/step\n")
    write_process(host, 8, cgroup="0::/\n")
    assert cpuset_path(7, host) == str(host / "sys/fs/cgroup/job")
    assert cpuset_path(8, host) == ""
