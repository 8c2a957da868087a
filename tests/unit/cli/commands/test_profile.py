"""`schedhook profile`: whose accesses count, which pages move, and what is said about it."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from schedhook.backends.simulated import PAGE, SimulatedArea, SimulatedBackend
from schedhook.cli.main import run as run_command
from schedhook.host.topology import Node, Topology
from schedhook.migration.profiling.survey import survey
from schedhook.plugins.loading import load_plugins
from schedhook.relocation.pipeline import relocate
from schedhook.roles.guidance import Guidance
from schedhook.roles.profile import Profile
from schedhook.roles.request import Request
from schedhook.testing.hosts import FakeArea, FakeNode, write_host, write_process
from schedhook.values.config import Config, PluginsSection, RelocationSection
from schedhook.values.errors import UsageError
from schedhook.values.model import MemoryKind, Outcome, Report
from schedhook.values.sets import CpuSet, NodeSet
from schedhook_plugins.strategies import profile_guided
from tests.unit.migration.test_page_choice import AT, Plug, layout, process

HUGE = 2 << 20


def guidance(counts: dict[int, dict[int, int]], **more: Any) -> Guidance:
    """Of process 100: accesses by node for pages by number."""
    profile = Profile()
    for page, by_node in counts.items():
        for node, count in by_node.items():
            profile.add(100, AT + page * PAGE, node, count)
    return Guidance(
        **{"accesses": {100: profile.accesses([100])}, "nodes": NodeSet(range(4)), **more}
    )


def guided(backend: SimulatedBackend, by: Guidance | None, **request: Any) -> Report:
    config = Config(
        relocation=RelocationSection(backend="test", strategy="profile-guided"),
        plugins=PluginsSection(third_party=False),
    )
    plugins = load_plugins(config, extra=[Plug(backend, lambda _: None)], environ={})
    return relocate(Request(**{"pids": (100,), "guidance": by, **request}), config, plugins)


def test_pages_move_to_the_node_that_uses_them_most() -> None:
    backend = process([0] * 6, [0] * 2)
    by = guidance({0: {1: 5}, 1: {0: 5}, 2: {0: 2, 3: 9}, 3: {0: 5, 1: 5}, 4: {1: 1}})
    report = guided(backend, by)
    assert report.outcome is Outcome.COMPLETE
    assert layout(backend) == [[1, 0, 3, 0, 0, 0], [0, 0]]
    effect = by.effects[100]
    assert effect.before == {(0, 0): 12, (1, 0): 11, (3, 0): 9}
    assert effect.after == {(1, 1): 5, (0, 0): 10, (0, 3): 2, (3, 3): 9, (1, 0): 6}
    assert (effect.total, effect.local_before, effect.local_after) == (32, 12, 24)


@pytest.mark.parametrize(
    ("counts", "more", "goes"),
    [
        ({1: 2}, {}, 1),
        ({1: 1}, {}, 0),
        ({1: 1}, {"min_samples": 1}, 1),
        ({1: 6, 2: 4}, {}, 1),
        ({1: 59, 2: 41}, {}, 0),
        ({1: 59, 2: 41}, {"min_share": 0.5}, 1),
        ({0: 5, 1: 5}, {"min_share": 0.5}, 0),
        ({3: 9}, {"nodes": NodeSet({0, 1})}, 0),
        ({3: 5, 1: 5}, {"nodes": NodeSet({0, 1}), "min_share": 0.5}, 1),
        ({3: 9, 1: 5}, {"nodes": NodeSet({0, 1})}, 0),
        ({2: 5, 1: 5}, {"min_share": 0.5}, 1),
    ],
)
def test_thresholds_and_the_jobs_nodes(
    counts: dict[int, int], more: dict[str, Any], goes: int
) -> None:
    backend = process([0])
    guided(backend, guidance({0: counts}, **more))
    assert layout(backend) == [[goes]]


def test_a_page_that_two_nodes_use_alike_stays() -> None:
    backend = process([1, 2])
    guided(backend, guidance({0: {0: 5, 1: 5}, 1: {1: 5, 2: 5}}, min_share=0.5))
    assert layout(backend) == [[1, 2]]


def test_nodes_outside_the_cpuset_are_not_proposed() -> None:
    backend = process([0], allowed_nodes=NodeSet({0, 1}))
    report = guided(backend, guidance({0: {2: 9}}))
    assert report.outcome is Outcome.NOTHING_TO_DO


def test_a_huge_page_counts_as_one() -> None:
    backend = SimulatedBackend()
    backend.add_process(100, areas=[SimulatedArea(start=AT, nodes=[0, 0], folio_size=HUGE)])
    report = guided(backend, guidance({0: {0: 3}, 7: {1: 4}, 511: {1: 5}, 512: {1: 1}}))
    assert report.bytes_moved == HUGE
    with backend.attach(100) as target:
        (area,) = target.areas()
        assert [run.node for run in target.locate(area, area.start, area.end)] == [1, 0]


def test_shared_memory_counts_what_every_process_does() -> None:
    backend = SimulatedBackend()
    for pid, start in ((100, AT), (200, AT + (1 << 30))):
        area = SimulatedArea(start=start, nodes=[0, 0], kind=MemoryKind.SHMEM, name="segment")
        backend.add_process(pid, areas=[area])
    profile = Profile()
    profile.add(100, AT, 0, 4)
    profile.add(200, AT + (1 << 30), 2, 9)
    profile.add(200, AT + (1 << 30) + PAGE, 3, 2)
    by = Guidance(
        accesses={pid: profile.accesses([pid]) for pid in (100, 200)}, nodes=NodeSet(range(4))
    )
    report = guided(backend, by, pids=(100, 200))
    assert report.outcome is Outcome.COMPLETE
    assert layout(backend, 100) == layout(backend, 200) == [[2, 3]]
    assert sum(each.total for each in by.effects.values()) == 15


def test_64_nodes_with_gaps() -> None:
    numbers = [5 * n + 2 for n in range(64)]
    topology = Topology(
        nodes={
            n: Node(number=n, cpus=CpuSet({n}), memory_total=1 << 30, memory_free=1 << 30)
            for n in numbers
        }
    )
    backend = process([numbers[0]] * 64, topology=topology)
    by = guidance({i: {n: 3} for i, n in enumerate(numbers)}, nodes=NodeSet(numbers))
    assert guided(backend, by).outcome is Outcome.COMPLETE
    assert layout(backend) == [numbers]


def test_it_needs_a_profile() -> None:
    with pytest.raises(UsageError, match="schedhook profile LOG"):
        guided(process([0]), None)


def test_thresholds_are_inclusive() -> None:
    by = guidance({}, min_samples=4, min_share=0.75)
    assert profile_guided.best_node({1: 3, 0: 1}, 0, NodeSet({0, 1}), by) == 1
    assert profile_guided.best_node({1: 2, 0: 1}, 0, NodeSet({0, 1}), by) is None


# -- whose accesses they are ---------------------------------------------------------------------

AREA = FakeArea(start=AT, size=16 * PAGE, pages={0: 8})


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """Process 100 with threads 100 and 101 on processors 0-1; process 300."""
    write_host(tmp_path, [FakeNode(number=n, cpus=str(n)) for n in range(4)])
    (tmp_path / "proc/stat").write_text("cpu 0\nbtime 1000000\n")
    write_process(
        tmp_path, 100, areas=[AREA], cpus="0-1", nodes="0-3", threads={100: "S", 101: "S"}
    )
    write_process(tmp_path, 300, areas=[AREA], cpus="2", nodes="0-3")
    return tmp_path


def topology_of(root: Path) -> Topology:
    return SimulatedBackend(root).topology()


def test_every_access_is_told_to_somebody(host: Path) -> None:
    profile = Profile()
    for number, address, count in (
        (100, AT, 1), (101, AT, 2), (100, AT + 16 * PAGE, 4), (300, AT, 8), (999, AT, 16),
    ):  # fmt: skip
        profile.add(number, address, 1, count)
    found = survey(profile, [100], topology_of(host), root=host)
    assert found.accesses[100].total == 7
    assert (found.unmapped, found.others, found.gone) == (4, 8, 16)
    assert found.nodes == NodeSet({0, 1})


def test_a_number_used_again_is_another_process(host: Path) -> None:
    began = 1_000_000 + 1000 / os.sysconf("SC_CLK_TCK")
    profile = Profile()
    profile.add(100, AT, 1, 3)
    profile.add(300, AT, 1, 4)
    before = survey(profile, [100], topology_of(host), recorded=began - 1, root=host)
    assert (dict(before.accesses), before.gone, before.others) == ({}, 7, 0)
    after = survey(profile, [100], topology_of(host), recorded=began + 1, root=host)
    assert (after.accesses[100].total, after.gone, after.others) == (3, 0, 4)


# -- the command ---------------------------------------------------------------------------------

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], host: Path) -> Run:
    def run(*arguments: object) -> tuple[int, str, str]:
        words = ["profile", *arguments, "--root", host, "--backend", "simulated"]
        monkeypatch.setattr(sys, "argv", ["schedhook", *map(str, words)])
        with pytest.raises(SystemExit) as leave:
            run_command()
        printed = capsys.readouterr()
        assert isinstance(leave.value.code, int)
        return leave.value.code, printed.out, printed.err

    return run


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Node 1 uses the first four pages of process 100."""
    path = tmp_path / "log"
    lines = [f"app 100/101 [001] 1.5: 1 page-faults: {AT + n % 4 * PAGE:x}\n" for n in range(20)]
    lines += [f"app 100/100 [000] 1.5: 1 page-faults: {AT + 5 * PAGE:x}\n"] * 5
    lines += ["app 999/999 [000] 1.5: 1 page-faults: 1000\n", "?\n"]
    path.write_text("".join(lines))
    return path


def test_only_a_plan_by_default(run: Run, log: Path) -> None:
    status, out, err = run(log, "--pid", 100, "--json")
    report = json.loads(out)
    assert (status, err, report["outcome"]) == (0, "", "planned")
    assert report["strategy"] == "profile-guided"
    assert report["plan"]["moves"] == [{"from": 0, "to": 1, "bytes": 4 * PAGE}]
    assert report["bytes_kept"] == {"left-by-strategy": 4 * PAGE}
    profile = report["profile"]
    assert (profile["lines"], profile["bad_lines"], profile["samples"]) == (27, 1, 26)
    assert profile["unused"] == {"process-gone": 1}
    assert (profile["accesses"], profile["local_before"], profile["local_after"]) == (25, 5, 25)
    assert profile["nodes"] == "0-1"
    assert profile["processes"][0]["pairs"] == [
        {"accessing": 0, "memory": 0, "before": 5, "after": 5},
        {"accessing": 1, "memory": 0, "before": 20, "after": 0},
        {"accessing": 1, "memory": 1, "before": 0, "after": 20},
    ]


def test_with_move_the_pages_move(run: Run, log: Path) -> None:
    status, out, _ = run(log, "--pid", 100, "--move", "--json")
    report = json.loads(out)
    assert (status, report["outcome"], report["bytes_moved"]) == (0, "complete", 4 * PAGE)
    assert report["processes"][0]["residency_after"] == {"0": 4 * PAGE, "1": 4 * PAGE}


def test_for_people(run: Run, log: Path) -> None:
    status, out, _ = run(log, "--pid", 100)
    assert status == 0
    assert "local accesses: 20 % before, 100 % after" in out
    assert "not used: 1 process-gone" in out


def test_the_log_from_standard_input(run: Run, log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with log.open() as file:
        monkeypatch.setattr(sys, "stdin", file)
        status, out, _ = run("-", "--pid", 100, "--json")
    assert (status, json.loads(out)["bytes_planned"]) == (0, 4 * PAGE)


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["--pid", "300"], 2, "no usable sample is of these processes: 1 are of processes"),
        (["--pid", "100", "--min-share", "2"], 2, "--min-share"),
        (["--pid", "100", "--format", "csv"], 2, "pid,cpu,address"),
        (["--pid", "100", "--kinds", "swap"], 2, "anon"),
        (["--pid", "100", "--strategy", "move-pages"], 2, "page by page"),
        (["--pid", "100", "--strategy", "none"], 2, "profile-guided"),
        ([], 2, "one of --pid"),
    ],
)
def test_errors_are_one_line(
    run: Run, log: Path, arguments: list[str], status: int, words: str
) -> None:
    got, out, err = run(log, *arguments)
    assert (got, out, err.count("\n")) == (status, "", 1), err
    assert words in err


def test_a_log_that_cannot_be_read(run: Run, tmp_path: Path) -> None:
    for path, words in ((tmp_path / "none", "No such file"), (tmp_path, "directory")):
        status, _, err = run(path, "--pid", 100)
        assert (status, err.count("\n")) == (2, 1)
        assert words in err


def test_an_old_log_says_nothing_of_a_new_process(run: Run, log: Path) -> None:
    os.utime(log, (1_000_000, 1_000_000))
    status, _, err = run(log, "--pid", 100)
    assert status == 2
    assert "26 are of processes that have exited" in err
    os.utime(log, (time.time(), time.time()))
    assert run(log, "--pid", 100)[0] == 0
