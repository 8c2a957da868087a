"""The pipeline over the simulated backend: what it decides, counts and refuses."""

from __future__ import annotations

import errno
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schedhook import (
    BackendPlugin,
    MapperPlugin,
    MigrationRefused,
    StrategyPlugin,
    hookimpl,
)
from schedhook.backends.simulated import PAGE, SimulatedArea, SimulatedBackend, four_nodes
from schedhook.backends.simulated.target import SimulatedTarget
from schedhook.control.affinity import Binding
from schedhook.migration.move import Move
from schedhook.plugins.loading import load_plugins
from schedhook.relocation import pipeline
from schedhook.relocation.pipeline import relocate
from schedhook.relocation.verify import explain
from schedhook.roles.backend import Limits
from schedhook.roles.request import Request
from schedhook.values.config import Config, PluginsSection, RelocationSection, RetrySection
from schedhook.values.errors import (
    KernelThreadError,
    PluginError,
    ProcessGoneError,
    UsageError,
    from_errno,
)
from schedhook.values.model import MemoryKind, NodeMap, Outcome, Reason, Report, Shared
from schedhook.values.nodemap import parse_map
from schedhook.values.sets import CpuSet, NodeSet

QUICK = Config(
    relocation=RelocationSection(backend="test", threads=2),
    retry=RetrySection(attempts=3, first_wait_s=0.0, longest_wait_s=0.001, give_up_s=5),
    plugins=PluginsSection(third_party=False),
)
STRATEGIES = ["move-pages", "migrate-process"]
AT = 0x7F0000000000


class Plug:
    """Brings a backend, and whatever else a test gives it."""

    def __init__(self, backend: SimulatedBackend, **parts: Any) -> None:
        self.backend = backend
        self.parts = parts
        self.reports: list[Report] = []

    @hookimpl
    def schedhook_backends(self) -> list[BackendPlugin]:
        return [BackendPlugin(name="test", summary="a test's", create=lambda _: self.backend)]

    @hookimpl
    def schedhook_strategies(self) -> list[StrategyPlugin]:
        return [
            StrategyPlugin(name=name, summary="a test's", move=move)
            for name, move in self.parts.get("strategies", {}).items()
        ]

    @hookimpl
    def schedhook_mappers(self) -> list[MapperPlugin]:
        return [
            MapperPlugin(name=name, summary="a test's", map=function)
            for name, function in self.parts.get("mappers", {}).items()
        ]

    @hookimpl
    def schedhook_before_migrate(self) -> None:
        if why := self.parts.get("refusal"):
            raise MigrationRefused(why)
        if self.parts.get("observer_fails"):
            raise RuntimeError("out of coffee")

    @hookimpl
    def schedhook_after_migrate(self, report: Report) -> None:
        self.reports.append(report)


def host(*nodes_of_areas: list[int | None], pid: int = 100, **area: Any) -> SimulatedBackend:
    backend = SimulatedBackend()
    backend.add_process(
        pid,
        areas=[
            SimulatedArea(start=AT + index * (1 << 30), nodes=nodes, **area)
            for index, nodes in enumerate(nodes_of_areas)
        ],
    )
    return backend


def run(backend: SimulatedBackend, config: Config = QUICK, **request: Any) -> Report:
    parts = {key: request.pop(key) for key in list(request) if key in _PARTS}
    request.setdefault("pids", (100,))
    if "node_map" in request:
        request["node_map"] = parse_map(request["node_map"])
    elif "sources" not in request:
        request |= {"sources": NodeSet({0}), "destinations": NodeSet({2})}
    plugins = load_plugins(config, extra=[Plug(backend, **parts)], environ={})
    report = relocate(Request(**request), config, plugins)
    assert report.bytes_planned == report.bytes_moved + report.bytes_left
    assert report.bytes_left == sum(report.left_by_reason.values())
    return report


_PARTS = ("strategies", "mappers", "refusal", "observer_fails")


def residency(backend: SimulatedBackend, pid: int = 100) -> dict[int, int]:
    """Pages per node, whatever the pipeline says."""
    total: dict[int, int] = {}
    with backend.attach(pid) as target:
        for area in target.areas():
            for node, size in area.residency.items():
                total[node] = total.get(node, 0) + size // PAGE
    return {node: pages for node, pages in total.items() if pages}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_memory_of_the_old_node_moves_and_no_other(strategy: str) -> None:
    backend = host([0] * 50 + [1] * 7, [3, 0, None, 0])
    report = run(backend, strategy=strategy)
    assert report.outcome is Outcome.COMPLETE
    assert report.bytes_moved == 52 * PAGE
    assert residency(backend) == {2: 52, 1: 7, 3: 1}
    assert report.processes[0].residency_before == {0: 52 * PAGE, 1: 7 * PAGE, 3: PAGE}
    assert report.processes[0].residency_after == {2: 52 * PAGE, 1: 7 * PAGE, 3: PAGE}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_nothing_there_is_nothing_to_do(strategy: str) -> None:
    report = run(host([1] * 5), strategy=strategy)
    assert (report.outcome, report.bytes_planned) == (Outcome.NOTHING_TO_DO, 0)


def test_busy_pages_are_tried_again_until_they_move() -> None:
    backend = host([0] * 10)
    backend.fail(100, AT + 3 * PAGE, [errno.EBUSY, errno.EBUSY])
    report = run(backend)
    assert (report.outcome, report.attempts) == (Outcome.COMPLETE, 3)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_pages_that_never_move_are_counted(strategy: str) -> None:
    backend = host([0] * 10)
    backend.fail(100, AT, always=errno.EBUSY)
    backend.fail(100, AT + 5 * PAGE, always=errno.EACCES)
    report = run(backend, strategy=strategy)
    assert report.outcome is Outcome.PARTIAL
    assert report.left_by_reason == {"EBUSY": PAGE, "shared": PAGE}
    assert residency(backend) == {0: 2, 2: 8}


def test_what_was_mapped_anew_is_tried_again() -> None:
    backend = host([0] * 10)
    backend.fail(100, AT, [errno.EFAULT, 0])
    report = run(backend)
    assert (report.outcome, report.attempts) == (Outcome.COMPLETE, 2)


def test_permanent_failures_are_not_tried_again() -> None:
    backend = host([0] * 10)
    backend.fail(100, AT, [errno.EACCES, 0])
    report = run(backend)
    assert (report.attempts, report.left_by_reason) == (1, {"shared": PAGE})


def test_leftovers_of_a_whole_process_call_can_be_reported_instead() -> None:
    backend = host([0] * 10)
    backend.fail(100, AT, [errno.EBUSY])
    report = run(backend, strategy="migrate-process", sweep_leftovers=False)
    assert report.outcome is Outcome.PARTIAL
    assert report.left_by_reason == {"unexplained": PAGE}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_swap_is_a_swap(strategy: str) -> None:
    backend = host([0] * 30 + [1] * 10, [1, 0] * 6)
    report = run(backend, strategy=strategy, node_map="0:1,1:0")
    assert report.outcome is Outcome.COMPLETE
    assert residency(backend) == {1: 36, 0: 16}
    assert bool(report.notes) == (strategy == "migrate-process")


def test_a_swap_of_shared_memory_happens_once() -> None:
    backend = SimulatedBackend()
    for pid in (100, 101):
        backend.add_process(
            pid, areas=[SimulatedArea(start=AT, nodes=[0] * 9 + [1] * 4, name="segment")]
        )
    report = run(backend, pids=(100, 101), node_map="0:1,1:0")
    assert report.outcome is Outcome.COMPLETE
    assert residency(backend) == {1: 9, 0: 4}


@given(
    pages=st.lists(st.sampled_from([None, 0, 1, 2, 3]), min_size=1, max_size=60),
    targets=st.lists(st.integers(0, 3), min_size=4, max_size=4),
    failing=st.dictionaries(st.integers(0, 59), st.lists(st.just(errno.EBUSY), max_size=4)),
    strategy=st.sampled_from(STRATEGIES),
)
@settings(max_examples=150)
def test_any_map_puts_every_page_where_it_says(
    pages: list[int | None], targets: list[int], failing: dict[int, list[int]], strategy: str
) -> None:
    backend = host(pages)
    stubborn = 0
    for index, errnos in failing.items():
        if index < len(pages) and pages[index] is not None:
            backend.fail(100, AT + index * PAGE, errnos)
            stubborn += (
                len(errnos) >= QUICK.retry.attempts and targets[pages[index]] != pages[index]
            )
    report = run(
        backend, strategy=strategy, node_map=",".join(f"{o}:{n}" for o, n in enumerate(targets))
    )
    with backend.attach(100) as target:
        (area,) = target.areas() or (None,)
        where = {
            run.start + offset: run.node
            for run in (target.locate(area, area.start, area.end) if area else ())
            for offset in range(0, run.end - run.start, PAGE)
        }
    wrong = [
        index
        for index, node in enumerate(pages)
        if node is not None and where[AT + index * PAGE] != targets[node]
    ]
    assert len(wrong) * PAGE == report.bytes_left
    if strategy == "move-pages":
        assert len(wrong) == stubborn
    assert (report.outcome is Outcome.PARTIAL) == bool(wrong)


def test_a_plan_that_does_not_fit_is_refused_with_the_numbers() -> None:
    backend = host([0] * 100)
    report = run(backend, reserve=(1 << 30) - 50 * PAGE)
    assert report.outcome is Outcome.REFUSED
    assert "node 2 has no room: 0.4 MiB would arrive, 1024.0 MiB are free" in report.notes[0]
    assert residency(backend) == {0: 100}


def test_a_swap_of_full_nodes_fits() -> None:
    backend = host([0] * 100 + [1] * 100)
    report = run(backend, node_map="0:1,1:0", reserve=(1 << 30) - 150 * PAGE)
    assert report.outcome is Outcome.COMPLETE


def test_a_dry_run_plans_and_moves_nothing() -> None:
    backend = host([0] * 10)
    report = run(backend, dry_run=True)
    assert report.outcome is Outcome.PLANNED
    assert report.plan is not None
    assert report.plan.moves == {(0, 2): 10 * PAGE}
    assert report.to_dict()["plan"]["moves"] == [{"from": 0, "to": 2, "bytes": 10 * PAGE}]
    assert residency(backend) == {0: 10}


def test_an_observer_may_refuse() -> None:
    backend = host([0] * 10)
    report = run(backend, refusal="maintenance at noon")
    assert report.outcome is Outcome.REFUSED
    assert "maintenance at noon" in report.notes[0]
    assert residency(backend) == {0: 10}


def test_a_failing_observer_stops_nothing() -> None:
    assert run(host([0] * 10), observer_fails=True).outcome is Outcome.COMPLETE


def test_kinds_that_were_not_asked_for_stay_and_are_said() -> None:
    backend = host([0] * 10, kind=MemoryKind.SHMEM, name="x")
    report = run(backend, kinds=frozenset({MemoryKind.ANON}))
    assert report.outcome is Outcome.NOTHING_TO_DO
    assert report.kept == {"shmem": 10 * PAGE}


def test_pages_of_others_stay_without_the_privilege() -> None:
    backend = SimulatedBackend()
    for pid in (100, 101):
        backend.add_process(pid, areas=[SimulatedArea(start=AT, nodes=[0] * 5, name="segment")])
    report = run(backend, shared=Shared.NONE)
    assert report.left_by_reason == {"shared": 5 * PAGE}


def test_a_process_that_exits_in_mid_move_is_no_failure() -> None:
    backend = host([0] * 10)

    def move(work: Move) -> None:
        backend.end_process(100)
        work.sweep()

    report = run(backend, strategies={"late": move}, strategy="late")
    assert report.outcome is Outcome.NOTHING_TO_DO
    assert report.processes[0].error


def test_a_process_that_becomes_another_program_is_moved_as_that() -> None:
    backend = host([0] * 10)

    def move(work: Move) -> None:
        work.processes[0].gone = True  # its old address space is

    report = run(backend, strategies={"late": move}, strategy="late")
    assert report.outcome is Outcome.COMPLETE
    assert residency(backend) == {2: 10}
    assert report.processes[0].error is None
    assert report.notes == ("process 100 became another program meanwhile",)


def test_a_new_program_stays_where_nodes_change_places() -> None:
    """Nobody could tell what it has put on a node from what arrived there."""
    backend = host([0] * 10 + [1] * 5)

    def move(work: Move) -> None:
        work.processes[0].gone = True

    report = run(backend, node_map="0:1,1:0", strategies={"late": move}, strategy="late")
    assert (report.bytes_planned, residency(backend)) == (0, {0: 10, 1: 5})
    assert "became another program" in str(report.processes[0].error)


class WithKernelThread(SimulatedBackend):
    def attach(self, pid: int) -> Any:
        if pid == 2:
            raise KernelThreadError("process 2 is a kernel thread")
        return super().attach(pid)


def test_kernel_threads_are_passed_over_unless_named() -> None:
    backend = WithKernelThread()
    backend.add_process(100, areas=[SimulatedArea(start=AT, nodes=[0] * 4)])
    backend.add_cgroup("/job", [2, 100])
    with pytest.raises(KernelThreadError):
        run(backend, pids=(2, 100))
    assert run(backend, pids=(2, 100), job="7", dry_run=True).bytes_planned == 4 * PAGE
    assert run(backend, pids=(), cgroup="/job").outcome is Outcome.COMPLETE


def test_what_may_not_be_moved_whole_is_moved_page_by_page(monkeypatch: pytest.MonkeyPatch) -> None:
    def deny(target: SimulatedTarget, *_: NodeSet) -> int:
        raise from_errno(errno.EPERM, target.pid, "migrate_pages")

    monkeypatch.setattr(SimulatedTarget, "migrate", deny)
    backend = host([0] * 10)
    report = run(backend, strategy="migrate-process", sweep_leftovers=False)
    assert (report.outcome, residency(backend)) == (Outcome.FAILED, {0: 10})
    report = run(backend, strategy="migrate-process")
    assert (report.outcome, residency(backend)) == (Outcome.COMPLETE, {2: 10})
    assert "page by page" in report.notes[0]


@pytest.mark.parametrize("call", range(1, 4))
def test_memory_that_went_with_its_process_has_not_moved(call: int) -> None:
    backend = SimulatedBackend()
    areas = [SimulatedArea(start=AT, nodes=[0] * 10)]
    backend.add_process(100, areas=areas, exit_after=call)
    report = run(backend, strategy="migrate-process")
    assert report.processes[0].error
    assert (report.outcome, report.bytes_moved) == (Outcome.NOTHING_TO_DO, 0)


def test_a_newcomer_with_the_number_of_one_that_exited_is_moved_too() -> None:
    backend = host([0] * 10)
    backend.add_cgroup("/job", [100])

    def move(work: Move) -> None:
        work.sweep()
        if residency(backend) == {2: 10}:
            backend.end_process(100)
            backend.add_process(100, areas=[SimulatedArea(start=AT, nodes=[0] * 4)])

    report = run(backend, pids=(), cgroup="/job", strategies={"slow": move}, strategy="slow")
    assert (report.outcome, report.bytes_moved) == (Outcome.COMPLETE, 14 * PAGE)
    assert residency(backend) == {2: 4}
    told = [(each.bytes_moved, each.error is None) for each in report.processes]
    assert told == [(4 * PAGE, True), (10 * PAGE, False)]


def test_a_number_that_left_the_cgroup_before_it_was_held_is_a_strangers() -> None:
    backend = host([0] * 10)
    backend.add_process(101, areas=[SimulatedArea(start=AT, nodes=[0] * 4)])
    backend.add_cgroup("/job", [100])
    listed = iter([[100, 101]])
    tell = backend.cgroup_pids
    backend.cgroup_pids = lambda path: next(listed, None) or tell(path)  # type: ignore[method-assign]
    report = run(backend, pids=(), cgroup="/job")
    assert [each.pid for each in report.processes] == [100]
    assert residency(backend, 101) == {0: 4}


def test_a_number_that_the_job_has_no_more_is_a_strangers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks has found the job's processes some time ago."""
    backend = host([0] * 10)
    backend.add_process(101, areas=[SimulatedArea(start=AT, nodes=[0] * 4)])
    monkeypatch.setattr(pipeline, "find_pids", lambda *_: (100,))
    report = run(backend, pids=(100, 101), job="7", scheduler="slurm")
    assert [each.pid for each in report.processes] == [100]
    assert residency(backend, 101) == {0: 4}


def test_a_process_that_joins_the_cgroup_is_moved_too() -> None:
    backend = host([0] * 10)
    backend.add_cgroup("/job", [100])

    def move(work: Move) -> None:
        work.sweep()
        if len(work.processes) == 1:
            backend.add_process(101, areas=[SimulatedArea(start=AT, nodes=[0] * 4)])
            backend.add_cgroup("/job", [100, 101])

    report = run(backend, pids=(), cgroup="/job", strategies={"slow": move}, strategy="slow")
    assert report.outcome is Outcome.COMPLETE
    assert residency(backend, 101) == {2: 4}


def test_a_process_that_joins_and_may_not_be_moved_is_a_failure_with_what_moved() -> None:
    backend = host([0] * 10)
    backend.add_cgroup("/job", [100])

    def move(work: Move) -> None:
        work.sweep()
        backend.add_process(101, areas=[SimulatedArea(start=AT, nodes=[0])], permitted=False)
        backend.add_cgroup("/job", [100, 101])

    report = run(backend, pids=(), cgroup="/job", strategies={"slow": move}, strategy="slow")
    assert (report.outcome, report.bytes_moved) == (Outcome.FAILED, 10 * PAGE)
    assert "process 101: not permitted" in report.notes[-1]


def test_a_cgroup_that_ends_in_mid_move_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = host([0] * 10)
    backend.add_cgroup("/job", [100])

    def gone(path: str) -> list[int]:
        raise UsageError(f"no cgroup {path}")

    def move(work: Move) -> None:
        work.sweep()
        backend.end_process(100)
        monkeypatch.setattr(backend, "cgroup_pids", gone)

    report = run(backend, pids=(), cgroup="/job", strategies={"late": move}, strategy="late")
    assert (report.outcome, report.bytes_moved) == (Outcome.COMPLETE, 10 * PAGE)


@pytest.mark.parametrize("error", [ZeroDivisionError("oh"), SystemExit(0)], ids=repr)
def test_a_strategy_that_breaks_is_a_failure_with_what_moved(error: BaseException) -> None:
    backend = host([0] * 10)

    def move(work: Move) -> None:
        work.sweep()
        raise error

    report = run(backend, strategies={"broken": move}, strategy="broken")
    assert report.outcome is Outcome.FAILED
    assert report.bytes_moved == 10 * PAGE
    assert type(error).__name__ in report.notes[-1]


def test_what_a_strategy_passes_over_is_followed_up() -> None:
    backend = host([0] * 10)
    report = run(backend, strategies={"lazy": lambda _: None}, strategy="lazy")
    assert (report.outcome, residency(backend)) == (Outcome.COMPLETE, {2: 10})
    backend = host([0] * 10)
    report = run(
        backend, strategies={"lazy": lambda _: None}, strategy="lazy", sweep_leftovers=False
    )
    assert (report.outcome, residency(backend)) == (Outcome.PARTIAL, {0: 10})


def test_a_mapper_that_leads_elsewhere_is_an_error() -> None:
    def astray(old: NodeSet, _new: NodeSet, _topology: object) -> NodeMap:
        return NodeMap(pairs=dict.fromkeys(old, 3))

    with pytest.raises(PluginError, match="astray"):
        run(host([0]), mappers={"astray": astray}, mapper="astray")


def test_a_mapper_is_asked_about_nodes_that_are_there_only() -> None:
    """Of `--from 0-65535` the mapper nearest made work for hours."""

    def startled(old: NodeSet, new: NodeSet, _topology: object) -> NodeMap:
        raise AssertionError(old | new)

    for nodes in ({"sources": "0-9", "destinations": "1"}, {"sources": "0", "destinations": "8-9"}):
        sets = {key: NodeSet.parse(text) for key, text in nodes.items()}
        with pytest.raises(UsageError, match="9 is not online"):
            run(host([0]), mappers={"startled": startled}, mapper="startled", **sets)


@pytest.mark.parametrize(
    ("request_", "error", "message"),
    [
        ({"node_map": "0:9"}, UsageError, "node 9 is not online"),
        ({"pids": (7,)}, ProcessGoneError, "7"),
        ({"strategy": "telepathy"}, PluginError, "migrate-process, move-pages"),
        ({"sources": NodeSet({0}), "destinations": None}, UsageError, "--to"),
    ],
)
def test_wrong_requests_say_what_is_wrong(
    request_: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        run(host([0]), **request_)


def test_observers_see_the_report() -> None:
    plug = Plug(host([0] * 3))
    plugins = load_plugins(QUICK, extra=[plug], environ={})
    report = relocate(Request(pids=(100,), node_map=parse_map("0:2")), QUICK, plugins)
    assert [replace(seen, seconds=0) for seen in plug.reports] == [replace(report, seconds=0)]


@given(
    left=st.integers(0, 1 << 20),
    reasons=st.dictionaries(st.sampled_from(list(Reason)), st.integers(0, 1 << 20)),
)
def test_reasons_always_add_up(left: int, reasons: dict[str, int]) -> None:
    explained = explain(left, reasons, Reason.APPEARED)
    assert sum(explained.values()) == left
    assert all(size > 0 for size in explained.values())


def test_what_is_in_swap_is_told_and_not_counted() -> None:
    backend = host([0] * 8)
    backend.add_process(101, areas=[SimulatedArea(start=AT, nodes=[0] * 4)], swapped=5 << 20)
    report = run(backend, pids=(100, 101))
    assert report.bytes_moved == 12 * PAGE
    assert [note for note in report.notes if "5.0 MiB are in swap" in note]


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("node_map", ["0:2", "0:2,2:0"])
def test_memory_that_two_processes_run_in_moves_once(strategy: str, node_map: str) -> None:
    """As of a parent and its child of vfork(2), until that runs a program."""
    backend = host([0] * 8)
    backend.add_process(101, memory_owner_pid=100)
    report = run(backend, pids=(101, 100), node_map=node_map, strategy=strategy)
    assert report.outcome is Outcome.COMPLETE
    assert residency(backend) == {2: 8}
    assert {each.pid: each.bytes_moved for each in report.processes} == {100: 8 * PAGE, 101: 0}
    assert any("101 has no memory of its own" in note for note in report.notes)


def test_memory_whose_first_process_ends_is_counted_for_the_other() -> None:
    backend = host([0] * 8)
    backend.add_process(101, memory_owner_pid=100)

    def move(work: Move) -> None:
        backend.end_process(100)
        work.sweep()

    report = run(backend, pids=(100, 101), strategies={"late": move}, strategy="late")
    assert report.outcome is Outcome.COMPLETE
    assert residency(backend, 101) == {2: 8}
    assert run(backend, pids=(101,), node_map="2:0").bytes_moved == 8 * PAGE


def with_a_bare_node(bare: int) -> SimulatedBackend:
    """A node has a processor, and no memory."""
    whole = four_nodes()
    node = replace(whole.nodes[bare], memory_total=0, memory_free=0)
    return SimulatedBackend(topology=replace(whole, nodes={**whole.nodes, bare: node}))


def test_a_destination_without_memory() -> None:
    backend = with_a_bare_node(2)
    backend.add_process(100, areas=[SimulatedArea(start=AT, nodes=[0] * 4)])
    with pytest.raises(UsageError, match="node 2 has no memory"):
        run(backend)
    assert residency(backend) == {0: 4}


def test_processors_of_a_node_without_memory_get_it_from_the_nearest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Binding, "bind", lambda *_: None)
    backend = with_a_bare_node(0)
    backend.add_process(100, areas=[SimulatedArea(start=AT, nodes=[3] * 4)])
    report = run(backend, sources=NodeSet({3}), cpus=CpuSet({0}))
    assert (report.outcome, residency(backend)) == (Outcome.COMPLETE, {1: 4})


def test_what_went_along_with_other_pages_is_counted() -> None:
    """As when two areas have parts of one huge page: the first one's sweep takes all of it."""
    backend = host([0] * 8, [0] * 4 + [2] * 4)

    def move(work: Move) -> None:
        (process,) = work.processes
        second = process.selection.selected[1].area
        process.target.sweep(
            second, second.start, second.end, {0: 2}, shared=False, limits=Limits()
        )
        work.sweep()

    report = run(backend, strategies={"along": move}, strategy="along")
    assert report.outcome is Outcome.COMPLETE
    assert report.bytes_moved == 12 * PAGE
