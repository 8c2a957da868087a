"""Drive plug-ins in tests: whole relocations on the simulated backend, and events.

The plug-ins that ship and the given ones are loaded, and no others; nothing of this host is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from schedhook import BackendPlugin, SchedulerPlugin, hookimpl
from schedhook.plugins.loading import load_plugins
from schedhook.plugins.manager import Plugins
from schedhook.plugins.options import check_options, unknown_options
from schedhook.plugins.sources import PluginSource
from schedhook.relocation.pipeline import relocate
from schedhook.roles.request import Progress, Request
from schedhook.roles.scheduler import EventKind, Scheduler
from schedhook.values.config import Config, PluginsSection, RelocationSection, RetrySection
from schedhook.values.nodemap import parse_map
from schedhook_plugins import BUILT_IN

if TYPE_CHECKING:
    from schedhook.backends.simulated import SimulatedBackend
    from schedhook.values.model import Event, Report

_QUICK = Config(
    relocation=RelocationSection(backend="given", threads=2),
    retry=RetrySection(attempts=3, first_wait_s=0.0, longest_wait_s=0.001, give_up_s=5),
    plugins=PluginsSection(third_party=False),
)

Options = Mapping[str, Mapping[str, Any]]
"""[plugins.options.NAME] of the configuration, by NAME."""


class _Given:
    """A plug-in that provides a backend which exists already."""

    def __init__(self, backend: SimulatedBackend) -> None:
        self._backend = backend

    @hookimpl
    def schedhook_backends(self) -> list[BackendPlugin]:
        return [BackendPlugin(name="given", summary="the test's", create=self._give)]

    def _give(self, _root: Path) -> SimulatedBackend:
        return self._backend


def load_given(*plugins: object, config: Config = _QUICK) -> Plugins:
    """Load these plug-ins and those that ship; raise AssertionError if one cannot be used.

    An observer that fails makes the test fail too, while schedhook itself only logs it. Raise
    ConfigError if the configuration has options for a name that does not exist.
    """
    ours = [import_module(name) for name in BUILT_IN]
    given = [each for each in plugins if not any(each is module for module in ours)]
    loaded = load_plugins(config, extra=given, environ={}, observer_failed=_fail)
    for problem in loaded.problems:
        raise AssertionError(f"{problem.source}: {problem.what}")
    check_options(config, loaded, unknown_options(config, loaded), left_out=())
    return loaded


def _fail(hook: str, source: PluginSource, error: BaseException) -> NoReturn:
    raise AssertionError(f"{source}: {hook} failed: {error!r}") from error


def relocate_simulated(
    backend: SimulatedBackend,
    *plugins: object,
    node_map: str | None = "0:2",
    progress: Progress | None = None,
    options: Options | None = None,
    **request: Any,
) -> Report:
    """Relocate on `backend` with these plug-ins and return the report.

    `request` has the fields of schedhook.roles.request.Request; `pids` defaults to all processes.
    `node_map` is written as `--map` is, or None for a strategy that chooses nodes page by page.
    `options` is [plugins.options] of the configuration, by name. Raise AssertionError if the
    report's bytes do not add up, or if an observer fails.
    """
    request.setdefault("pids", () if "cgroup" in request else backend.pids())
    config = replace(_QUICK, plugins=replace(_QUICK.plugins, options=options or {}))
    loaded = load_given(_Given(backend), *plugins, config=config)
    pairs = None if node_map is None else parse_map(node_map)
    report = relocate(Request(node_map=pairs, **request), config, loaded, progress=progress)
    assert report.bytes_planned == report.bytes_moved + report.bytes_left, report
    assert report.bytes_left == sum(report.left_by_reason.values()), report
    return report


def send_event(event: Event, *plugins: object, root: Path = Path("/")) -> None:
    """Send an event to the observers of these plug-ins, as the agent does.

    First `schedhook_event` is called, unless the event's kind is LOOK, then, if the kind says so,
    `schedhook_job_started` or `schedhook_job_ended`. The kind is that of the scheduler's adapter,
    whose host is in the directory `root`; without an adapter, it follows from the point's name.
    Raise AssertionError if an observer fails.
    """
    loaded = load_given(*plugins)
    kind = _adapter(loaded, event.scheduler, root).kind_of(event)
    if kind is not EventKind.LOOK:
        loaded.notify("schedhook_event", event=event)
    if kind is EventKind.JOB_STARTED:
        loaded.notify("schedhook_job_started", event=event)
    elif kind is EventKind.JOB_ENDED:
        loaded.notify("schedhook_job_ended", event=event)


def _adapter(plugins: Plugins, name: str, root: Path) -> Scheduler:
    if name in plugins.names(SchedulerPlugin):
        return plugins.scheduler(name).create(root)
    return Scheduler(root)
