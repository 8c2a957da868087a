"""Relocations over a simulated host for tests of the pipeline and of migration."""

from __future__ import annotations

from typing import Any

from schedhook import (
    BackendPlugin,
    MapperPlugin,
    MigrationRefused,
    SchedulerPlugin,
    StrategyPlugin,
    hookimpl,
)
from schedhook.backends.simulated import PAGE, SimulatedArea, SimulatedBackend
from schedhook.plugins.loading import load_plugins
from schedhook.relocation.pipeline import relocate
from schedhook.roles.request import Request
from schedhook.values.config import Config, PluginsSection, RelocationSection, RetrySection
from schedhook.values.model import Report
from schedhook.values.nodemap import parse_map
from schedhook.values.sets import NodeSet

QUICK = Config(
    relocation=RelocationSection(backend="test", threads=2),
    retry=RetrySection(attempts=3, first_wait_s=0.0, longest_wait_s=0.001, give_up_s=5),
    plugins=PluginsSection(third_party=False),
)
STRATEGIES = ["move-pages", "migrate-process"]
AT = 0x7F0000000000


_PARTS = ("schedulers", "strategies", "mappers", "refusal", "observer_fails", "choose")


class Plug:
    """A plug-in with a backend, and with what else a test gives it."""

    def __init__(self, backend: SimulatedBackend, **parts: Any) -> None:
        self.backend = backend
        self.parts = parts
        self.reports: list[Report] = []

    @hookimpl
    def schedhook_backends(self) -> list[BackendPlugin]:
        return [BackendPlugin(name="test", summary="for tests", create=lambda _: self.backend)]

    @hookimpl
    def schedhook_schedulers(self) -> list[SchedulerPlugin]:
        return [
            SchedulerPlugin(name=name, summary="for tests", create=create)
            for name, create in self.parts.get("schedulers", {}).items()
        ]

    @hookimpl
    def schedhook_strategies(self) -> list[StrategyPlugin]:
        choose = self.parts.get("choose")
        chooser = StrategyPlugin(name="choose", summary="for tests", choose_nodes=lambda _: choose)
        return [chooser] * (choose is not None) + [
            StrategyPlugin(name=name, summary="for tests", move=move)
            for name, move in self.parts.get("strategies", {}).items()
        ]

    @hookimpl
    def schedhook_mappers(self) -> list[MapperPlugin]:
        return [
            MapperPlugin(name=name, summary="for tests", map=function)
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
    if "choose" in parts:
        request.setdefault("strategy", "choose")
    plugins = load_plugins(config, extra=[Plug(backend, **parts)], environ={})
    report = relocate(Request(**request), config, plugins)
    assert report.bytes_planned == report.bytes_moved + report.bytes_left
    assert report.bytes_left == sum(report.left_by_reason.values())
    return report


def residency(backend: SimulatedBackend, pid: int = 100) -> dict[int, int]:
    """Return the pages per node, read without the pipeline."""
    total: dict[int, int] = {}
    with backend.attach(pid) as target:
        for area in target.areas():
            for node, size in area.residency.items():
                total[node] = total.get(node, 0) + size // PAGE
    return {node: pages for node, pages in total.items() if pages}
