"""Strategies that decide page by page, through the pipeline over a simulated host."""

from __future__ import annotations

import errno
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schedhook import BackendPlugin, StrategyPlugin, hookimpl
from schedhook.backends.simulated import PAGE, SimulatedArea, SimulatedBackend
from schedhook.host.topology import Node, Topology
from schedhook.migration.move import Move
from schedhook.plugins.loading import load_plugins
from schedhook.relocation.pipeline import relocate
from schedhook.roles.request import Request
from schedhook.roles.strategy import PageChoice, Pages
from schedhook.values.config import Config, PluginsSection, RelocationSection, RetrySection
from schedhook.values.errors import PluginError
from schedhook.values.model import Outcome, Report
from schedhook.values.nodemap import parse_map
from schedhook.values.sets import CpuSet, NodeSet

QUICK = Config(
    relocation=RelocationSection(backend="test", strategy="mine", threads=2),
    retry=RetrySection(attempts=3, first_wait_s=0.0, longest_wait_s=0.001, give_up_s=5),
    plugins=PluginsSection(third_party=False),
)
AT = 0x7F0000000000


class Plug:
    """A third party's plug-in, with a backend and a strategy."""

    def __init__(self, backend: SimulatedBackend, choose: PageChoice) -> None:
        self.backend = backend
        self.choose = choose

    @hookimpl
    def schedhook_backends(self) -> list[BackendPlugin]:
        return [BackendPlugin(name="test", summary="for tests", create=lambda _: self.backend)]

    @hookimpl
    def schedhook_strategies(self) -> list[StrategyPlugin]:
        return [
            StrategyPlugin(name="mine", summary="for tests", choose_nodes=lambda _: self.choose)
        ]


def process(*nodes: list[int | None], pid: int = 100, **more: Any) -> SimulatedBackend:
    backend = SimulatedBackend(topology=more.pop("topology", None))
    areas = [SimulatedArea(start=AT + i * (1 << 30), nodes=each) for i, each in enumerate(nodes)]
    backend.add_process(pid, areas=areas, **more)
    return backend


def run(backend: SimulatedBackend, choose: PageChoice, **request: Any) -> Report:
    plugins = load_plugins(QUICK, extra=[Plug(backend, choose)], environ={})
    report = relocate(Request(**{"pids": (100,), **request}), QUICK, plugins)
    assert report.bytes_planned == report.bytes_moved + report.bytes_left
    assert report.bytes_left == sum(report.left_by_reason.values())
    return report


def layout(backend: SimulatedBackend, pid: int = 100) -> list[list[int]]:
    """Return the nodes of each area's pages."""
    with backend.attach(pid) as target:
        return [
            [
                run.node
                for run in target.locate(area, area.start, area.end)
                for _ in range(run.start, run.end, PAGE)
            ]
            for area in target.areas()
        ]


def by_number(nodes: dict[int, int]) -> PageChoice:
    """Return a choice by the page's number in the first area."""
    return lambda pages: [nodes.get((each - AT) // PAGE) for each in pages.addresses]


def test_without_a_map_every_page_may_go_anywhere() -> None:
    backend = process([0, 0, 1, 1, 2], [3] * 5)
    report = run(backend, by_number({0: 1, 2: 0, 3: 3, 4: 2}))
    assert report.outcome is Outcome.COMPLETE
    assert layout(backend) == [[1, 0, 0, 3, 2], [3] * 5]
    assert report.bytes_moved == 3 * PAGE
    assert report.kept == {"left-by-strategy": 7 * PAGE}
    assert (report.node_map.mapper, str(report.node_map)) == ("by-page", "")


def test_with_a_map_only_pages_of_the_old_nodes_are_asked_about() -> None:
    backend = process([0, 1, 0, 1, 2])
    seen: list[tuple[int, NodeSet]] = []

    def choose(pages: Pages) -> int:
        seen.append((pages.node, pages.allowed))
        return 3

    report = run(backend, choose, node_map=parse_map("1:3"))
    assert report.outcome is Outcome.COMPLETE
    assert set(seen) == {(1, NodeSet({3}))}
    assert layout(backend) == [[0, 3, 0, 3, 2]]


def test_a_plan_moves_nothing() -> None:
    backend = process([0, 0, 1])
    report = run(backend, by_number({0: 2, 2: 3}), dry_run=True)
    assert report.outcome is Outcome.PLANNED
    assert report.plan
    assert report.plan.moves == {(0, 2): PAGE, (1, 3): PAGE}
    assert report.plan.free[2] == 1 << 30
    assert layout(backend) == [[0, 0, 1]]


def test_leaving_every_page_is_nothing_to_do() -> None:
    report = run(process([0, 1]), lambda _: None)
    assert report.outcome is Outcome.NOTHING_TO_DO
    assert report.kept == {"left-by-strategy": 2 * PAGE}


def test_pages_that_fail_are_retried_and_counted() -> None:
    backend = process([0] * 10)
    backend.fail(100, AT, [errno.EBUSY, errno.EBUSY])
    backend.fail(100, AT + 4 * PAGE, always=errno.EBUSY)
    backend.fail(100, AT + 6 * PAGE, always=errno.EBUSY)
    report = run(backend, by_number({0: 1, 4: 1, 5: 1}))
    assert (report.outcome, report.attempts) == (Outcome.PARTIAL, 3)
    assert report.left_by_reason == {"EBUSY": PAGE}
    assert layout(backend) == [[1, 0, 0, 0, 0, 1, 0, 0, 0, 0]]


@pytest.mark.parametrize("node", [9, 3])
def test_a_node_that_the_process_may_not_use_is_refused(node: int) -> None:
    backend = process([0] * 3, allowed_nodes=NodeSet({0, 1}))
    report = run(backend, lambda _: node)
    assert report.outcome is Outcome.REFUSED
    assert f"on node {node}" in report.notes[-1]
    assert layout(backend) == [[0] * 3]


def test_a_choice_that_does_not_fit_is_refused() -> None:
    backend = process([0] * 64)
    backend.add_process(7, areas=[SimulatedArea(start=AT, nodes=[2] * ((1 << 30) // PAGE - 32))])
    report = run(backend, lambda _: 2, reserve=0)
    assert report.outcome is Outcome.REFUSED
    assert "node 2 has no room" in report.notes[-1]
    forced = run(backend, lambda _: 2, reserve=0, force=True)
    assert forced.left_by_reason == {"reserve": 32 * PAGE}
    assert forced.bytes_moved == 32 * PAGE


def test_pages_that_change_places_need_no_room() -> None:
    half = (1 << 30) // PAGE // 2
    backend = process([0] * half + [1] * half)
    report = run(backend, lambda pages: 1 - pages.node)
    assert report.outcome is Outcome.COMPLETE
    assert layout(backend) == [[1] * half + [0] * half]


def test_an_answer_of_the_wrong_length_is_an_error() -> None:
    with pytest.raises(PluginError, match="answered 2"):
        run(process([0] * 3), lambda _: [1, 1])


def test_a_choice_that_raises_moves_nothing() -> None:
    backend = process([0] * 3)

    def broken(_: Pages) -> int:
        raise RuntimeError("out of ideas")

    report = run(backend, broken)
    assert report.outcome is Outcome.FAILED
    assert report.notes[-1] == "strategy 'mine' failed: RuntimeError: out of ideas"


def test_a_page_that_something_else_moves_is_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel's NUMA balancing may move it: the report states where it is in the end."""
    backend = process([0] * 4)
    real = Move.carry_out

    def and_the_kernel(move: Move) -> None:
        real(move)
        (mapping,) = backend._machine.processes[100].mappings
        mapping.memory.place(0, PAGE, 3)

    monkeypatch.setattr(Move, "carry_out", and_the_kernel)
    report = run(backend, lambda _: 1)
    assert report.outcome is Outcome.PARTIAL
    assert report.left_by_reason == {"elsewhere": PAGE}


def test_many_nodes_with_gaps() -> None:
    numbers = [3 * n + 1 for n in range(64)]
    topology = Topology(
        nodes={
            n: Node(number=n, cpus=CpuSet({n}), memory_total=1 << 30, memory_free=1 << 30)
            for n in numbers
        }
    )
    backend = process(list(numbers), topology=topology)
    onwards = dict(zip(numbers, [*numbers[1:], numbers[0]], strict=True))
    report = run(backend, lambda pages: onwards[pages.node])
    assert report.outcome is Outcome.COMPLETE
    assert layout(backend) == [[onwards[n] for n in numbers]]


def test_a_strategy_either_moves_or_chooses_nodes() -> None:
    for ways in ({}, {"move": print, "choose_nodes": print}):
        with pytest.raises(PluginError, match="`move` or `choose_nodes`"):
            StrategyPlugin(name="both", summary="for tests", **ways)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.one_of(st.none(), st.integers(0, 3))), min_size=1))
def test_any_choice_is_carried_out(pages: list[tuple[int, int | None]]) -> None:
    backend = process([node for node, _ in pages])
    report = run(backend, by_number({i: to for i, (_, to) in enumerate(pages) if to is not None}))
    assert layout(backend) == [[node if to is None else to for node, to in pages]]
    wanted = sum(to not in (None, node) for node, to in pages)
    assert report.bytes_moved == wanted * PAGE
