"""Footprints on fake hosts: which memory is off-node, and which does not count."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from schedhook.host import _proc
from schedhook.host.topology import read_topology
from schedhook.jobs.footprint import Footprint, read_footprint, read_jobs, tasks_of
from schedhook.jobs.lookup import find_job
from schedhook.jobs.order import Order
from schedhook.plugins.descriptors import SchedulerPlugin
from schedhook.plugins.hookspecs import hookimpl
from schedhook.plugins.loading import load_plugins
from schedhook.roles.scheduler import Task
from schedhook.testing.hosts import (
    FakeArea,
    FakeNode,
    write_cgroup,
    write_cgroup_mounts,
    write_file,
    write_host,
    write_process,
)
from schedhook.values.config import Config
from schedhook.values.errors import NoPermissionError, PluginError, ProcessGoneError
from schedhook.values.model import MemoryKind, Placement
from schedhook.values.sets import CpuSet, NodeSet
from tests.unit.topologies import KINDS

PAGE = 4096
JOB = "system.slice/slurmstepd.scope/job_{}/step_0/user/task_0"


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """Return a host with two CPUs each on nodes 0, 1 and 8, and a node 9 without memory near 8."""
    write_host(
        tmp_path,
        [
            FakeNode(number=0, cpus="0-1"),
            FakeNode(number=1, cpus="2-3"),
            FakeNode(number=8, cpus="4-5"),
            FakeNode(number=9, cpus="6-7", memory=0, free=0, distances={8: 12}),
        ],
    )
    write_cgroup_mounts(tmp_path)
    return tmp_path


def heap(pages: dict[int, int], start: int = 0x10000) -> FakeArea:
    return FakeArea(start=start, size=sum(pages.values()) * PAGE, pages=pages)


def shared(pages: dict[int, int], mappers: int = 2, *, path: str = "/dev/shm/x") -> FakeArea:
    size = sum(pages.values()) * PAGE
    device = "0:23" if path.startswith("/dev/shm") else "254:0"
    return FakeArea(
        start=0x900000,
        size=size,
        pages=pages,
        path=path,
        device=device,
        is_shared=path.startswith("/dev/shm"),
        mappers=mappers,
    )


def of(host: Path, *pids: int) -> Footprint:
    return read_footprint(tasks_of(pids, read_topology(host), host), host)


def test_memory_on_other_nodes_than_the_cpus_is_off_node(host: Path) -> None:
    write_process(host, 100, areas=[heap({0: 3, 8: 5})], cpus="4-5")
    footprint = of(host, 100)
    assert footprint.placement == Placement(cpus=CpuSet({4, 5}), nodes=NodeSet({8}))
    assert footprint.residency == {0: 3 * PAGE, 8: 5 * PAGE}
    assert footprint.off_node == {0: 3 * PAGE}
    assert footprint.processes[0].off_node == {0: 3 * PAGE}


def test_cpus_without_memory_use_the_nearest_node(host: Path) -> None:
    write_process(host, 100, areas=[heap({8: 5})], cpus="6")
    assert of(host, 100).bytes_off_node == 0


def test_every_thread_counts_for_the_placement(host: Path) -> None:
    write_process(host, 100, areas=[heap({0: 3, 1: 5})], cpus="0", threads={100: "S", 101: "S"})
    status = host / "proc/100/task/101/status"
    status.write_text(status.read_text().replace("Cpus_allowed_list:\t0", "Cpus_allowed_list:\t3"))
    footprint = of(host, 100)
    assert (str(footprint.placement.cpus), footprint.bytes_off_node) == ("0,3", 0)


def test_files_that_other_processes_map_are_not_off_node(host: Path) -> None:
    libc = shared({0: 4}, mappers=9, path="/lib/libc.so")
    own = FakeArea(start=0x800000, size=2 * PAGE, pages={0: 2}, path="/home/a/input", inode=7)
    write_process(host, 100, areas=[libc, own], cpus="2")
    footprint = of(host, 100)
    assert footprint.residency == {0: 6 * PAGE}
    assert footprint.off_node == {0: 2 * PAGE}


def test_each_task_has_its_own_nodes_and_shared_memory_may_be_on_any_of_them(host: Path) -> None:
    """Each rank's memory is on the other's node; the segment that both map is on the second's."""
    segment = shared({1: 6})
    write_process(host, 100, areas=[heap({1: 4}), segment], cpus="0")
    write_process(host, 101, areas=[heap({0: 4}), segment], cpus="2")
    footprint = of(host, 100, 101)
    assert str(footprint.placement.nodes) == "0-1"
    assert footprint.residency == {0: 4 * PAGE, 1: 10 * PAGE}
    assert footprint.off_node == {0: 4 * PAGE, 1: 4 * PAGE}


def test_shared_memory_off_node_counts_once(host: Path) -> None:
    segment = shared({8: 6})
    for pid in (100, 101):
        write_process(host, pid, areas=[segment], cpus="0")
    footprint = of(host, 100, 101)
    assert footprint.off_node == {8: 6 * PAGE}
    assert [process.off_node for process in footprint.processes] == [{8: 6 * PAGE}] * 2


def test_an_object_that_a_process_maps_three_times_counts_once(host: Path) -> None:
    heap = shared({8: 6}, mappers=3)
    views = [replace(heap, start=start << 32) for start in (1, 2, 3)]
    write_process(host, 100, areas=views, cpus="0")
    footprint = of(host, 100)
    assert footprint.residency == footprint.off_node == {8: 6 * PAGE}
    (process,) = footprint.processes
    assert process.residency == process.off_node == {8: 6 * PAGE}
    assert process.kinds == footprint.kinds == {MemoryKind.SHMEM: {8: 6 * PAGE}}


def test_copies_of_a_files_pages_are_the_jobs_own(host: Path) -> None:
    """As relocation sections of libraries, which every process shares after fork(2)."""
    section = replace(shared({8: 6}, mappers=5, path="/lib/libc.so"), anon=6)
    write_process(host, 100, areas=[section], cpus="0")
    assert of(host, 100).off_node == {8: 6 * PAGE}


def test_a_process_that_has_exited_is_skipped_unless_it_was_asked_for(host: Path) -> None:
    write_process(host, 100, areas=[heap({0: 1})])
    task = Task(
        name="0", pids=(100, 999), placement=Placement(cpus=CpuSet({0}), nodes=NodeSet({0}))
    )
    assert [each.pid for each in read_footprint([task], host).processes] == [100]
    with pytest.raises(ProcessGoneError):
        read_footprint([task], host, skip_errors=())


@pytest.fixture
def slurm_host(host: Path) -> Path:
    """Return a host: job 7 has no off-node memory, job 8 half of its own, job 9 all of little."""
    for job, pid, cpus, pages in (
        ("7", 700, "0", {0: 50}),
        ("8", 800, "2", {0: 10, 1: 10}),
        ("9", 900, "4", {0: 3}),
    ):
        write_cgroup(host, JOB.format(job), pids=[pid])
        write_process(host, pid, areas=[heap(pages)], cpus=cpus, uid=1000)
        write_file(host, f"proc/{pid}/environ", "")
    return host


def test_the_job_with_most_off_node_memory_comes_first(slurm_host: Path) -> None:
    found, problems = read_jobs(load_plugins(Config()), slurm_host)
    assert problems == []
    jobs = Order().of(each.to_dict() for each in found)
    assert [(each["scheduler"], each["job"], each["bytes_off_node"] // PAGE) for each in jobs] == [
        ("slurm", "8", 10),
        ("slurm", "9", 3),
        ("slurm", "7", 0),
    ]


def test_unreadable_processes_are_counted(
    slurm_host: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = _proc.read

    def read(pid: int, name: str, root: Path) -> bytes:
        if pid == 800 and name.endswith("numa_maps"):
            raise NoPermissionError("not permitted")
        return real(pid, name, root)

    monkeypatch.setattr("schedhook.host.areas.read", read)
    found, problems = read_jobs(load_plugins(Config()), slurm_host)
    assert problems == []
    assert {each.job: (len(each.processes), each.unreadable) for each in found} == {
        "7": (1, 0),
        "8": (0, 1),
        "9": (1, 0),
    }


class _Broken:
    """A plug-in whose adapter fails when it lists jobs."""

    name = "broken"

    @hookimpl
    def schedhook_schedulers(self) -> list[SchedulerPlugin]:
        return [SchedulerPlugin(name="broken", summary="fails", create=lambda _: self)]  # type: ignore[arg-type,return-value]

    def jobs(self) -> tuple[str, ...]:
        raise OSError("no\nlist")


def test_a_broken_adapter_does_not_hide_others(slurm_host: Path) -> None:
    found, problems = read_jobs(load_plugins(Config(), extra=[_Broken()]), slurm_host)
    assert len(found) == 3
    assert problems == ["broken: OSError: no list"]


def test_a_job_is_found_with_its_scheduler(slurm_host: Path) -> None:
    found = find_job(load_plugins(Config()), "8", None, slurm_host)
    assert (found.adapter.name, found.job) == ("slurm", "8")
    assert found.pids == (800,)


def test_an_unknown_scheduler_is_an_error(slurm_host: Path) -> None:
    with pytest.raises(PluginError):
        read_jobs(load_plugins(Config()), slurm_host, scheduler="cron")


def test_memory_of_nodes_without_processors(tmp_path: Path) -> None:
    """HBM belongs to the nearest processors; elsewhere a policy or a GPU has put it."""
    write_host(tmp_path, KINDS["hbm, snc4 flat"].nodes())
    on_purpose = replace(heap({9: 2, 1: 1}), policy="bind:9")
    areas = [on_purpose, heap({0: 1, 8: 2, 12: 4, 4: 8}, start=0x900000)]
    write_process(tmp_path, 100, areas=areas, cpus="0-3")
    footprint = of(tmp_path, 100)
    assert footprint.off_node == {1: PAGE, 12: 4 * PAGE, 4: 8 * PAGE}
    (process,) = footprint.processes
    assert process.local_nodes == {0, 8, 9}
    assert footprint.to_dict()["local"] == "0,8-9"


def test_memory_of_a_gpu_is_never_off_node(tmp_path: Path) -> None:
    write_host(tmp_path, KINDS["gpus, grace hopper"].nodes())
    write_process(tmp_path, 100, areas=[heap({0: 1, 1: 2, 10: 4})], cpus="0-71")
    assert of(tmp_path, 100).off_node == {1: 2 * PAGE}


def test_a_process_on_processors_without_a_node_has_nothing_off_node(host: Path) -> None:
    write_process(host, 100, areas=[heap({0: 1, 8: 2})], cpus="63")
    assert of(host, 100).off_node == {}


def test_pages_that_nothing_tells_apart_are_upper_bounds(host: Path) -> None:
    """On a made-up host no process can be held, and so no page be seen."""
    for pid in (100, 101):
        write_process(host, pid, areas=[replace(heap({0: 3}), mappers=2)], cpus="0")
    footprint = of(host, 100, 101)
    assert (footprint.residency, footprint.is_exact) == ({0: 6 * PAGE}, False)
    assert of(host, 100).is_exact
    assert footprint.to_dict()["exact"] is False
