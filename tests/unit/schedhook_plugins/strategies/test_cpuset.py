"""The strategy `cpuset` on fake cgroups, over a fake kernel that moves memory upon each write."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from schedhook import BackendPlugin, hookimpl
from schedhook.backends.simulated import PAGE, SimulatedArea, SimulatedBackend
from schedhook.control.cpusets import write_nodes
from schedhook.host.cgroups import Cgroup
from schedhook.migration.move import Move
from schedhook.plugins.loading import load_plugins
from schedhook.relocation.pipeline import relocate
from schedhook.roles.backend import Target
from schedhook.roles.request import Request
from schedhook.testing.hosts import (
    FakeNode,
    write_cgroup,
    write_cgroup_mounts,
    write_file,
    write_host,
    write_process,
)
from schedhook.values.config import Config, PluginsSection, RelocationSection, RetrySection
from schedhook.values.errors import BackendError, ConfigError, RefusedError
from schedhook.values.model import MemoryKind, Outcome, Report
from schedhook.values.nodemap import kernel_rule, parse_map
from schedhook.values.sets import NodeSet
from schedhook_plugins.strategies import cpuset_tree

AT = 0x7F0000000000
DEFERS = "ffffffff81458b20 t flush_migrate_mm_task_workfn\n"
MIB_PAGES = 256
GIB = 1 << 30


class Host:
    """Four nodes, and a kernel that moves the memory of a cpuset's processes when it narrows."""

    def __init__(self, root: Path, version: int) -> None:
        self.root, self.version = root, version
        write_host(root, [FakeNode(number=n, cpus=str(n), free=GIB) for n in range(4)])
        write_cgroup_mounts(root, version=version)
        write_file(root, "proc/kallsyms", DEFERS)
        self.backend = SimulatedBackend(root)
        self.members: dict[Path, list[int]] = {}
        self.writes: list[tuple[str, str]] = []
        self.fails_at = 0
        self.cgroup("", nodes="0-3")

    def cgroup(self, name: str, *, nodes: str, pids: tuple[int, ...] = ()) -> Path:
        files = {"cpuset.memory_migrate": "0\n"} if self.version == 1 else {}
        path = write_cgroup(
            self.root, name, version=self.version, nodes=nodes, pids=pids, files=files
        )
        if nodes:
            self._effective(path, nodes)
        self.members[path] = list(pids)
        return path

    def process(self, pid: int, cgroup: str, *nodes: int | None, policy: str = "default") -> None:
        self.backend.add_process(pid, areas=[SimulatedArea(start=AT, nodes=nodes, policy=policy)])
        line = f"4:cpuset:{cgroup}\n" if self.version == 1 else f"0::{cgroup}\n"
        write_process(self.root, pid, cgroup=line, nodes="0-3")

    def mems(self, path: Path) -> str:
        return (path / "cpuset.mems").read_text().strip()

    def write(self, cgroup: Cgroup, nodes: NodeSet) -> None:
        """Do what the kernel does upon a write."""
        before = NodeSet.parse(self.mems(cgroup.path))
        if before == nodes:
            return
        self.writes.append((cgroup.name, str(nodes)))
        if len(self.writes) == self.fails_at:
            raise RefusedError("the kernel says no")
        for path in self.members:
            mems = NodeSet.parse(self.mems(path))
            assert not (path in cgroup.path.parents and nodes - mems), "a child outside its parent"
            assert not (cgroup.path in path.parents and mems - nodes), "a parent without its child"
        write_nodes(cgroup, nodes)
        self._effective(cgroup.path, str(nodes))
        migrates = cgroup.path / "cpuset.memory_migrate"
        if self.version == 1 and migrates.read_text().strip() != "1":
            return
        for pid in self.members[cgroup.path]:
            with self.backend.attach(pid) as target:
                for old, new in kernel_rule(before, nodes).items():
                    target.migrate(NodeSet({old}), NodeSet({new}))

    def _effective(self, path: Path, nodes: str) -> None:
        name = "effective_mems" if self.version == 1 else "mems.effective"
        (path / f"cpuset.{name}").write_text(f"{nodes}\n")

    @hookimpl
    def schedhook_backends(self) -> list[BackendPlugin]:
        return [BackendPlugin(name="test", summary="for tests", create=lambda _: self.backend)]


@pytest.fixture(params=[2, 1])
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Host:
    host = Host(tmp_path, request.param)
    monkeypatch.setattr(cpuset_tree, "write_nodes", host.write)
    return host


def run(
    host: Host, node_map: str = "0:2", options: Mapping[str, Any] | None = None, **request: Any
) -> Report:
    config = Config(
        relocation=RelocationSection(backend="test", strategy="cpuset", threads=1),
        retry=RetrySection(attempts=2, first_wait_s=0.0, longest_wait_s=0.001, give_up_s=5),
        plugins=PluginsSection(third_party=False, options={"cpuset": options or {}}),
    )
    if not request.get("pids"):
        request.setdefault("cgroup", "/job")
    plugins = load_plugins(config, extra=[host], environ={})
    asked = Request(node_map=parse_map(node_map), **request)
    report = relocate(asked, config, plugins, root=host.root)
    assert report.bytes_planned == report.bytes_moved + report.bytes_left
    assert report.bytes_left == sum(report.left_by_reason.values())
    return report


def residency(host: Host, pid: int = 100) -> dict[int, int]:
    """Return the pages per node."""
    total: dict[int, int] = {}
    with host.backend.attach(pid) as target:
        for area in target.areas():
            for node, size in area.residency.items():
                total[node] = total.get(node, 0) + size // PAGE
    return {node: pages for node, pages in total.items() if pages}


def test_the_kernel_moves_when_the_cpuset_narrows(host: Host) -> None:
    job = host.cgroup("/job", nodes="0", pids=(100,))
    host.process(100, "/job", *[0] * 512)
    report = run(host)
    assert report.outcome is Outcome.COMPLETE
    assert residency(host) == {2: 512}
    assert host.writes == [("/job", "0,2"), ("/job", "2")]
    assert host.mems(job) == "2"
    assert "/job 0 → 2: the kernel moved 2.0 MiB, the sweep 0.0 MiB" in report.notes[-1]
    if host.version == 1:
        assert (job / "cpuset.memory_migrate").read_text() == "0"


def test_pages_that_the_kernel_leaves_are_swept(host: Host) -> None:
    host.cgroup("/job", nodes="0", pids=(100,))
    host.process(100, "/job", *[0] * 256, *[1] * 512)
    host.backend.fail(100, AT, [errno.EBUSY])
    report = run(host, "0:2,1:2")
    assert report.outcome is Outcome.COMPLETE
    assert residency(host) == {2: 768}
    assert report.bytes_moved == 768 * PAGE
    assert "the kernel moved 1.0 MiB, the sweep 2.0 MiB" in report.notes[-1]


def test_leftovers_are_reported_on_request(host: Host) -> None:
    host.cgroup("/job", nodes="0", pids=(100,))
    host.process(100, "/job", *[0] * 10)
    host.backend.fail(100, AT, [errno.EBUSY])
    report = run(host, sweep_leftovers=False)
    assert report.left_by_reason == {"unexplained": PAGE}


def test_a_tree_is_widened_from_the_top_and_narrowed_from_the_bottom(host: Host) -> None:
    host.cgroup("/job", nodes="0-1")
    host.cgroup("/job/a", nodes="0", pids=(100,))
    host.cgroup("/job/b", nodes="1", pids=(101,))
    host.process(100, "/job/a", *[0] * 5)
    host.process(101, "/job/b", *[1] * 7)
    report = run(host, "0:2,1:3")
    assert report.outcome is Outcome.COMPLETE
    assert (residency(host), residency(host, 101)) == ({2: 5}, {3: 7})
    assert host.writes[0] == ("/job", "0-3")
    assert host.writes[-1] == ("/job", "2-3")


@pytest.mark.parametrize(
    ("nodes", "node_map", "after"),
    [("0-1", "0:2", "1-2"), ("0-1", "0:1,1:0", "0-1"), ("0-1", "0:1,1:2", "1-2")],
)
def test_a_map_that_the_kernel_would_not_follow(
    host: Host, nodes: str, node_map: str, after: str
) -> None:
    job = host.cgroup("/job", nodes=nodes, pids=(100,))
    host.process(100, "/job", *[0] * 5, *[1] * 3)
    pairs = parse_map(node_map).pairs
    report = run(host, node_map)
    assert report.outcome is Outcome.COMPLETE
    assert residency(host) == {pairs[0]: 5, pairs.get(1, 1): 3}
    assert host.mems(job) == after
    assert "the kernel pairs nodes by their order" in report.notes[0]
    assert "the kernel moved 0.0 MiB" in report.notes[-1]


def test_pages_that_arrive_are_not_moved_on(host: Host) -> None:
    """The kernel would follow this map, but the sweep after it would move too much."""
    host.cgroup("/a", nodes="0", pids=(100,))
    host.cgroup("/b", nodes="1", pids=(101,))
    host.process(100, "/a", *[0] * 5)
    host.process(101, "/b", *[1] * 3)
    report = run(host, "0:1,1:2", pids=(100, 101))
    assert report.outcome is Outcome.COMPLETE
    assert (residency(host), residency(host, 101)) == ({1: 5}, {2: 3})


def test_a_bandwidth_limit_is_kept(host: Host) -> None:
    job = host.cgroup("/job", nodes="0", pids=(100,))
    host.process(100, "/job", *[0] * 5)
    report = run(host, bandwidth_mb_s=1000.0)
    assert "cannot keep to a bandwidth" in report.notes[0]
    assert (residency(host), host.mems(job)) == ({2: 5}, "2")


def test_no_room_is_refused_with_nothing_written(host: Host) -> None:
    host.cgroup("/job", nodes="0", pids=(100,))
    host.process(100, "/job", *[0] * MIB_PAGES * 10)
    report = run(host, reserve=GIB - (5 << 20))
    assert report.outcome is Outcome.REFUSED
    assert host.writes == []


def test_with_force_what_fits_moves_and_the_cpuset_stays_wide(host: Host) -> None:
    job = host.cgroup("/job", nodes="0", pids=(100,))
    host.process(100, "/job", *[0] * MIB_PAGES * 100)
    host.process(101, "/", *[2] * MIB_PAGES * (1024 - 60))
    report = run(host, force=True, reserve=20 << 20)
    assert report.outcome is Outcome.PARTIAL
    assert report.left_by_reason == {"reserve": 60 << 20}
    assert host.mems(job) == "0,2"
    assert "2" not in {nodes for _, nodes in host.writes}, "it was narrow for a moment"
    assert residency(host) == {0: MIB_PAGES * 60, 2: MIB_PAGES * 40}
    assert any("left wide: node 2" in note for note in report.notes)


def test_the_cpuset_is_widened_again_if_a_node_fills_up(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = host.cgroup("/job", nodes="0", pids=(100,))
    host.process(100, "/job", *[0] * 5)

    def sweep(_: Move) -> None:
        host.process(101, "/", *[2] * MIB_PAGES * 1010)

    monkeypatch.setattr(Move, "sweep", sweep)
    report = run(host)
    assert report.outcome is Outcome.COMPLETE
    assert [nodes for _, nodes in host.writes] == ["0,2", "2", "0,2"]
    assert host.mems(job) == "0,2"


@pytest.mark.parametrize("fails_at", [1, 2])
def test_after_a_failed_write_everything_is_restored(host: Host, fails_at: int) -> None:
    host.cgroup("/job", nodes="0-1")
    step = host.cgroup("/job/step", nodes="0", pids=(100,))
    host.process(100, "/job/step", *[0] * 5)
    host.fails_at = fails_at
    report = run(host)
    assert report.outcome is Outcome.FAILED
    assert report.notes[-1] == "the kernel says no; cpuset.mems was restored"
    assert (host.mems(step.parent), host.mems(step)) == ("0-1", "0")
    assert residency(host) == {0: 5}


@pytest.mark.parametrize("error", [BackendError("oh", errno.EIO), ValueError("oh")])
def test_a_failure_after_the_move_brings_the_memory_back(
    host: Host, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    job = host.cgroup("/job", nodes="0", pids=(100,))
    host.process(100, "/job", *[0] * 5)

    def sweep(_: Move) -> None:
        assert residency(host) == {2: 5}
        raise error

    monkeypatch.setattr(Move, "sweep", sweep)
    report = run(host)
    assert report.outcome is Outcome.FAILED
    assert any("cpuset.mems was restored" in note for note in report.notes)
    assert "oh" in report.notes[-1]
    assert (host.mems(job), residency(host)) == ("0", {0: 5})
    assert (report.bytes_moved, report.left_by_reason) == (0, {"aborted": 5 * PAGE})


def test_the_cpuset_is_not_restored_without_room(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = host.cgroup("/job", nodes="0", pids=(100,))
    host.process(100, "/job", *[0] * MIB_PAGES * 50)

    def sweep(_: Move) -> None:
        host.process(101, "/", *[0] * MIB_PAGES * 1000)
        raise BackendError("oh", errno.EIO)

    monkeypatch.setattr(Move, "sweep", sweep)
    report = run(host)
    assert "left wide, not restored: node 0 has 24.0 MiB free" in report.notes[-1]
    assert (host.mems(job), residency(host)) == ("0,2", {2: MIB_PAGES * 50})
    assert report.bytes_moved == 50 << 20


def refused(host: Host, **request: Any) -> str:
    """Assert that a dry run and a real run are refused; return why."""
    for dry_run in (True, False):
        report = run(host, dry_run=dry_run, **request)
        assert report.outcome is Outcome.REFUSED
    assert host.writes == []
    return report.notes[-1]


def test_a_process_among_others_is_refused(host: Host) -> None:
    job = host.cgroup("/job", nodes="0", pids=(100, 101))
    for pid in (100, 101):
        host.process(pid, "/job", *[0] * 5)
    assert f"{job} has other processes too (101)" in refused(host, pids=(100,))
    assert run(host, pids=(100, 101)).outcome is Outcome.COMPLETE
    assert (residency(host), residency(host, 101)) == ({2: 5}, {2: 5})


def test_a_process_without_a_cpuset_of_its_own_is_refused(host: Host) -> None:
    host.process(100, "/", *[0] * 5)
    assert "process 100 is in no cgroup with cpuset.mems" in refused(host, pids=(100,))


def test_a_cgroup_without_cpuset_mems_of_its_own_is_refused(host: Host) -> None:
    job = host.cgroup("/job", nodes="", pids=(100,))
    host.process(100, "/job", *[0] * 5)
    assert f"{job} has no cpuset.mems of its own" in refused(host)


def test_a_parent_that_lacks_the_new_node_is_refused(host: Host) -> None:
    parent = host.cgroup("/jobs", nodes="0-1")
    host.cgroup("/jobs/1", nodes="0", pids=(100,))
    host.process(100, "/jobs/1", *[0] * 5)
    assert f"{parent} allows node 0-1, not 2" in refused(host, cgroup="/jobs/1")


def test_a_map_from_nodes_that_the_cpuset_does_not_have_is_refused(host: Host) -> None:
    host.cgroup("/job", nodes="1", pids=(100,))
    host.process(100, "/job", *[0] * 5)
    assert "does not lead to node 2" in refused(host)


def test_a_part_of_the_memory_is_refused(host: Host) -> None:
    host.cgroup("/job", nodes="0", pids=(100,))
    host.process(100, "/job", *[0] * 5)
    assert "leave out --kinds" in refused(host, kinds=frozenset({MemoryKind.ANON}))


@pytest.mark.parametrize("symbols", ["ffffffff81458b20 t cpuset_post_attach\n", None])
def test_a_kernel_that_blocks_the_host_is_refused_unless_allowed(
    host: Host, symbols: str | None
) -> None:
    (host.root / "proc/kallsyms").unlink()
    if symbols:
        write_file(host.root, "proc/kallsyms", symbols)
    host.cgroup("/job", nodes="0", pids=(100,))
    host.process(100, "/job", *[0] * 5)
    assert "set allow_blocking = true in [plugins.options.cpuset]" in refused(host)
    report = run(host, options={"allow_blocking": True})
    assert report.outcome is Outcome.COMPLETE
    assert "keep other jobs and services from starting" in report.notes[0]


def test_if_the_scheduler_has_written_the_cpuset_only_the_sweep_remains(host: Host) -> None:
    """Then it does not matter whether the kernel would block the host."""
    (host.root / "proc/kallsyms").unlink()
    host.cgroup("/job", nodes="2", pids=(100,))
    host.process(100, "/job", *[0] * 256)
    report = run(host)
    assert (report.outcome, host.writes) == (Outcome.COMPLETE, [])
    assert "the kernel moved 0.0 MiB, the sweep 1.0 MiB" in report.notes[-1]


@pytest.mark.parametrize("options", [{"allow": True}, {"allow_blocking": "yes"}])
def test_wrong_options_are_an_error(host: Host, options: dict[str, Any]) -> None:
    host.cgroup("/job", nodes="0", pids=(100,))
    host.process(100, "/job", *[0] * 5)
    with pytest.raises(ConfigError, match=r"allow_blocking(: must be true or false|$)"):
        run(host, options=options)


def test_other_strategies_do_not_leave_the_cpuset(host: Host) -> None:
    host.cgroup("/job", nodes="0", pids=(100,))
    area = SimulatedArea(start=AT, nodes=[0] * 5)
    host.backend.add_process(100, areas=[area], allowed_nodes=NodeSet({0}))
    write_process(host.root, 100, cgroup="4:cpuset:/job\n0::/job\n", nodes="0")
    report = run(host, strategy="move-pages", dry_run=True)
    assert "widen its cgroup's cpuset.mems" in report.notes[-1]
    assert run(host, dry_run=True).outcome is Outcome.PLANNED


# -- memory policies -----------------------------------------------------------------------------


def test_a_cpuset_that_would_change_another_policy_stays_wide(host: Host) -> None:
    job = host.cgroup("/job", nodes="0-3", pids=(100, 101, 102))
    for pid, node in ((100, 0), (101, 1), (102, 3)):
        host.process(pid, "/job", *[node] * 256, policy=f"bind:{node}")
    report = run(host)
    assert (report.outcome, residency(host)) == (Outcome.COMPLETE, {2: 256})
    assert host.writes == []
    assert host.mems(job) == "0-3"
    assert "left wide: with cpuset.mems 1-3" in report.notes[0]
    assert "bind:1 → bind:2, bind:3 → bind:1" in report.notes[0]


def test_policies_that_follow_as_the_map_says_are_no_hindrance(host: Host) -> None:
    job = host.cgroup("/job", nodes="0-1", pids=(100,))
    host.process(100, "/job", *[0] * 256, policy="interleave:0-1")
    report = run(host, "0:2,1:3")
    assert (report.outcome, host.mems(job)) == (Outcome.COMPLETE, "2-3")


def test_a_wider_cpuset_that_would_change_a_policy_is_refused(host: Host) -> None:
    job = host.cgroup("/job", nodes="2-3", pids=(100,))
    host.process(100, "/job", *[2] * 256, policy="bind:3")
    report = run(host, "2:0")
    assert (report.outcome, host.writes) == (Outcome.REFUSED, [])
    assert "with cpuset.mems 0,2-3" in report.notes[-1]
    assert "bind:3 → bind:2" in report.notes[-1]
    assert host.mems(job) == "2-3"


def test_it_is_said_which_policies_change_back(host: Host) -> None:
    host.cgroup("/job", nodes="0", pids=(100,))
    host.process(100, "/job", *[0] * 256, policy="bind:2")  # as the kernel leaves it
    report = run(host)
    assert any("changes them back: bind:2 → bind:0" in note for note in report.notes)


def test_policies_that_could_not_be_read_are_not_risked(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.cgroup("/job", nodes="0", pids=(100,))
    host.process(100, "/job", *[0] * 256)
    monkeypatch.setattr(Target, "thread_policies", lambda *_: {100: None})
    report = run(host)
    assert (report.outcome, host.writes) == (Outcome.REFUSED, [])
    assert "those of 1 threads, which could not be read" in report.notes[-1]
