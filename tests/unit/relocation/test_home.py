"""Bringing memory home: off-node memory goes to the nodes of the processors that use it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from schedhook.plugins.loading import load_plugins
from schedhook.relocation.pipeline import relocate
from schedhook.roles.request import Request
from schedhook.testing.hosts import (
    PAGE,
    FakeArea,
    FakeNode,
    write_cgroup,
    write_cgroup_mounts,
    write_file,
    write_host,
    write_process,
)
from schedhook.values.config import Config, PluginsSection, RelocationSection
from schedhook.values.errors import UsageError
from schedhook.values.model import Outcome, Policies, Report
from schedhook.values.sets import NodeSet
from tests.unit.topologies import KINDS, may_be_chosen

CONFIG = Config(
    relocation=RelocationSection(backend="simulated", threads=1),
    plugins=PluginsSection(third_party=False),
)
AT = 0x7F0000000000
HBM = "hbm, snc4 flat"


def run(root: Path, *pids: int, **request: Any) -> Report:
    plugins = load_plugins(CONFIG, environ={})
    report = relocate(Request(pids=pids, home=True, **request), CONFIG, plugins, root=root)
    assert report.bytes_planned == report.bytes_moved + report.bytes_left
    return report


def heap(pages: Mapping[int, int], number: int = 0, **more: Any) -> FakeArea:
    """Return an area of a process with so many pages by node."""
    at = AT + (number << 30)
    return FakeArea(start=at, size=sum(pages.values()) * PAGE, pages=pages, **more)


def process(root: Path, pid: int, cpus: str, *areas: FakeArea) -> None:
    write_process(root, pid, areas=areas, cpus=cpus, nodes="0-255")


def after(report: Report) -> dict[int, dict[int, int]]:
    """Return the pages by process and node after the relocation."""
    return {
        each.pid: {node: size // PAGE for node, size in each.residency_after.items() if size}
        for each in report.processes
    }


@pytest.mark.parametrize("kind", KINDS)
def test_no_memory_comes_to_a_node_without_processors(tmp_path: Path, kind: str) -> None:
    """Whatever the processor: memory lies on all nodes, and what moves goes where it may."""
    host = KINDS[kind].nodes()
    write_host(tmp_path, host)
    spread = {node.number: 3 for node in host if node.memory}
    for pid, node in enumerate([node for node in host if node.cpus], 100):
        process(tmp_path, pid, node.cpus, heap(spread))
        report = run(tmp_path, pid)
        planned = run(tmp_path, pid, dry_run=True).plan
        new = report.node_map.destinations | (to for _, to in (planned.moves if planned else ()))
        assert new <= may_be_chosen(host)
        assert report.outcome in (Outcome.COMPLETE, Outcome.NOTHING_TO_DO), report.notes
        gained = {node for node, pages in after(report).get(pid, {}).items() if pages > 3}
        assert gained <= may_be_chosen(host)


def test_memory_comes_to_the_node_of_the_processors(tmp_path: Path) -> None:
    write_host(tmp_path, KINDS["eight nodes"].nodes())
    process(tmp_path, 100, "8-11", heap({0: 5, 2: 7, 3: 1}), heap({6: 9}, 1))
    planned = run(tmp_path, 100, dry_run=True)
    assert (planned.outcome, planned.bytes_planned) == (Outcome.PLANNED, 15 * PAGE)
    report = run(tmp_path, 100)
    assert report.outcome is Outcome.COMPLETE
    assert report.node_map.mapper == "nearest"
    assert after(report) == {100: {2: 22}}


def test_sources_limit_what_comes_home(tmp_path: Path) -> None:
    write_host(tmp_path, KINDS["eight nodes"].nodes())
    process(tmp_path, 100, "8-11", heap({0: 5, 2: 7, 3: 1}))
    assert after(run(tmp_path, 100, sources=NodeSet({2, 3}))) == {100: {0: 5, 2: 8}}


def test_at_home_there_is_nothing_to_do(tmp_path: Path) -> None:
    write_host(tmp_path, KINDS["eight nodes"].nodes())
    process(tmp_path, 100, "0-31", heap(dict.fromkeys(range(8), 2)))
    report = run(tmp_path, 100)
    assert report.outcome is Outcome.NOTHING_TO_DO
    assert report.notes == ("no memory is off-node",)
    assert run(tmp_path, 100, dry_run=True).bytes_planned == 0


def test_high_bandwidth_memory_belongs_to_the_nearest_processors(tmp_path: Path) -> None:
    write_host(tmp_path, KINDS[HBM].nodes())
    process(tmp_path, 100, "0-3", heap({0: 1, 4: 1, 8: 5, 12: 7}))
    assert after(run(tmp_path, 100)) == {100: {0: 9, 8: 5}}


def test_memory_that_a_policy_put_without_processors_stays(tmp_path: Path) -> None:
    write_host(tmp_path, KINDS[HBM].nodes())
    process(tmp_path, 100, "0-3", heap({4: 1, 12: 7}, policy="bind:12"), heap({13: 3}, 1))
    assert after(run(tmp_path, 100)) == {100: {0: 4, 12: 7}}


def test_processes_on_different_nodes_each_get_their_own(tmp_path: Path) -> None:
    write_host(tmp_path, KINDS["eight nodes"].nodes())
    process(tmp_path, 100, "0-3", heap({0: 2, 1: 3, 7: 1}))
    process(tmp_path, 101, "4-7", heap({0: 5, 1: 4}))
    process(tmp_path, 102, "0-31", heap({3: 6}))
    report = run(tmp_path, 100, 101, 102)
    assert report.outcome is Outcome.COMPLETE
    assert (report.strategy, report.bytes_moved) == ("home", 9 * PAGE)
    assert after(report) == {100: {0: 6}, 101: {1: 9}, 102: {3: 6}}


def test_a_strategy_that_is_not_used_is_said(tmp_path: Path) -> None:
    write_host(tmp_path, KINDS["eight nodes"].nodes())
    for pid, cpus in ((100, "0-3"), (101, "4-7")):
        process(tmp_path, pid, cpus, heap({2: 4}))
    report = run(tmp_path, 100, 101, strategy="migrate-process", dry_run=True)
    assert report.notes[0].endswith("that map it, not by strategy migrate-process")
    assert "strategy" not in run(tmp_path, 100, 101, dry_run=True).notes[0]


@pytest.mark.parametrize("dry_run", [True, False])
def test_policies_that_no_map_can_rebind_are_said(tmp_path: Path, dry_run: bool) -> None:
    """`--policies rebind` must not be passed over in silence if each page has its own way."""
    write_host(tmp_path, KINDS["eight nodes"].nodes())
    process(tmp_path, 100, "0-3", heap({2: 4}, policy="bind:2"))
    process(tmp_path, 101, "4-7", heap({2: 4}, policy="bind:2"))
    report = run(tmp_path, 100, 101, policies=Policies.REBIND, dry_run=dry_run)
    assert any("memory policies stay as they are" in note for note in report.notes)
    assert any("names an old node (bind:2)" in note for note in report.notes)
    one = run(tmp_path, 100, policies=Policies.REBIND, dry_run=dry_run)
    assert not any("memory policies stay as they are" in note for note in one.notes)


def segment(pages: Mapping[int, int]) -> FakeArea:
    return heap(pages, 5, path="/dev/shm/segment", device="0:23", is_shared=True, mappers=2)


def test_memory_that_they_share_may_be_on_the_node_of_any(tmp_path: Path) -> None:
    """It would otherwise go back and forth between them, time and again."""
    write_host(tmp_path, KINDS["eight nodes"].nodes())
    for pid, cpus in ((100, "0-3"), (101, "4-7")):
        process(tmp_path, pid, cpus, segment({0: 5, 1: 6, 5: 4}))
    report = run(tmp_path, 100, 101)
    assert report.bytes_moved == 4 * PAGE
    kept = after(report)[100]
    assert kept[0] >= 5
    assert kept[1] >= 6
    assert sum(kept.values()) == kept[0] + kept[1] == 15


def job(root: Path, cpus: Mapping[int, str], pages: Mapping[int, int]) -> None:
    """Write Slurm's job 7, whose tasks have these processors and the same memory each."""
    write_cgroup_mounts(root)
    for rank, (pid, text) in enumerate(cpus.items()):
        name = f"system.slice/slurmstepd.scope/job_7/step_0/user/task_{rank}"
        write_cgroup(root, name, pids=[pid])
        process(root, pid, text, heap(pages, rank))
        write_file(root, f"proc/{pid}/environ", "")


def test_the_tasks_of_a_job(tmp_path: Path) -> None:
    write_host(tmp_path, KINDS["eight nodes"].nodes())
    job(tmp_path, {100: "0-3", 101: "4-7"}, {0: 2, 1: 3, 2: 4})
    report = run(tmp_path, job="7")
    assert (report.job, report.bytes_moved) == ("7", (3 + 4 + 2 + 4) * PAGE)
    assert after(report) == {100: {0: 9}, 101: {1: 9}}


def test_some_tasks_of_a_job_respect_what_is_shared_with_the_others(tmp_path: Path) -> None:
    write_host(tmp_path, KINDS["eight nodes"].nodes())
    job(tmp_path, {100: "0-3", 101: "4-7"}, {2: 4})
    for pid, cpus in ((100, "0-3"), (101, "4-7")):
        process(tmp_path, pid, cpus, segment({0: 5, 1: 6}))
    report = run(tmp_path, 100, job="7", scheduler="slurm")
    assert report.bytes_moved == 0
    assert [each.pid for each in report.processes] == [100]


def test_home_names_the_nodes_itself(tmp_path: Path) -> None:
    write_host(tmp_path, KINDS["eight nodes"].nodes())
    process(tmp_path, 100, "0-3", heap({1: 1}))
    with pytest.raises(UsageError, match="--home names the nodes itself"):
        run(tmp_path, 100, destinations=NodeSet({2}))


def test_a_full_home_is_refused(tmp_path: Path) -> None:
    nodes = [FakeNode(number=0, cpus="0", free=65 << 20), FakeNode(number=1, cpus="1")]
    write_host(tmp_path, nodes)
    process(tmp_path, 100, "0", heap({1: 512}))
    report = run(tmp_path, 100)
    assert report.outcome is Outcome.REFUSED
    assert "node 0 has no room" in report.notes[-1]
