"""The strategy over the simulated backend."""

from __future__ import annotations

from pathlib import Path

import schedhook_largest_first

from schedhook import BackendPlugin, hookimpl
from schedhook.config import Config, PluginsSection
from schedhook.model import Outcome
from schedhook.nodemap import parse_map
from schedhook.plugins import load_plugins
from schedhook.relocation import Request, relocate
from schedhook.simulated import SimulatedArea, SimulatedBackend


def test_everything_moves_and_the_largest_process_goes_first() -> None:
    backend = SimulatedBackend()
    for pid, pages in ((100, 5), (101, 50), (102, 20)):
        backend.add_process(pid, areas=[SimulatedArea(start=0x10000, nodes=[0] * pages)])

    class Host:
        @hookimpl
        def schedhook_backends(self) -> list[BackendPlugin]:
            return [BackendPlugin(name="test", summary="a test's", create=give)]

    def give(_root: Path) -> SimulatedBackend:
        return backend

    config = Config(plugins=PluginsSection(third_party=False))
    plugins = load_plugins(config, extra=[Host(), schedhook_largest_first])
    moved: list[int] = []
    report = relocate(
        Request(
            pids=(100, 101, 102),
            node_map=parse_map("0:2"),
            strategy="largest-first",
            backend="test",
        ),
        config,
        plugins,
        progress=lambda done, _: moved.append(done),
    )
    assert report.outcome is Outcome.COMPLETE
    assert report.bytes_moved == 75 * 4096
    assert moved[0] == 50 * 4096
