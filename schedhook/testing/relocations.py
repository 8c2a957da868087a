"""Whole relocations over the simulated backend, with nothing of this host in them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from schedhook import BackendPlugin, hookimpl
from schedhook.plugins.loading import load_plugins
from schedhook.plugins.manager import Plugins
from schedhook.relocation.pipeline import Progress, relocate
from schedhook.roles.request import Request
from schedhook.values.config import Config, PluginsSection, RelocationSection, RetrySection
from schedhook.values.nodemap import parse_map
from schedhook_plugins import BUILT_IN

if TYPE_CHECKING:
    from schedhook.backends.simulated import SimulatedBackend
    from schedhook.values.model import Report

_QUICK = Config(
    relocation=RelocationSection(backend="given", threads=2),
    retry=RetrySection(attempts=3, first_wait_s=0.0, longest_wait_s=0.001, give_up_s=5),
    plugins=PluginsSection(third_party=False),
)


class _Given:
    def __init__(self, backend: SimulatedBackend) -> None:
        self._backend = backend

    @hookimpl
    def schedhook_backends(self) -> list[BackendPlugin]:
        return [BackendPlugin(name="given", summary="a test's", create=self._give)]

    def _give(self, _root: Path) -> SimulatedBackend:
        return self._backend


def load_given(*plugins: object) -> Plugins:
    """These plug-ins, and those that ship. AssertionError where one cannot be used."""
    given = [each for each in plugins if getattr(each, "__name__", "") not in BUILT_IN]
    loaded = load_plugins(_QUICK, extra=given, environ={})
    for problem in loaded.problems:
        raise AssertionError(f"{problem.source}: {problem.what}")
    return loaded


def relocate_simulated(
    backend: SimulatedBackend,
    *plugins: object,
    node_map: str = "0:2",
    progress: Progress | None = None,
    **request: Any,
) -> Report:
    """Relocate on `backend` with these plug-ins and those that ship, and no others.

    `request` has the fields of schedhook.roles.request.Request; `pids` are all by default.
    Fails with
    AssertionError where the report's bytes do not add up.
    """
    request.setdefault("pids", () if "cgroup" in request else backend.pids())
    loaded = load_given(_Given(backend), *plugins)
    asked = Request(node_map=parse_map(node_map), **request)
    report = relocate(asked, _QUICK, loaded, progress=progress)
    assert report.bytes_planned == report.bytes_moved + report.bytes_left, report
    assert report.bytes_left == sum(report.left_by_reason.values()), report
    return report
