"""Plug-ins for the tests of the plug-in manager, and functions that load them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from schedhook import MapperPlugin, hookimpl
from schedhook.plugins import hookspecs
from schedhook.plugins.loading import load_plugins
from schedhook.plugins.manager import Plugins
from schedhook.values.config import Config, PluginsSection
from schedhook.values.errors import MigrationRefused
from schedhook.values.model import Event, NodeMap, Outcome, Plan, Report

BAD = Path(__file__).parents[1] / "plugins_bad"

# All plug-in hooks, by name.
HOOKS = {
    name: hook
    for name, hook in vars(hookspecs).items()
    if name.startswith("schedhook_") and callable(hook)
}

NODE_MAP = NodeMap(pairs={0: 1})

# The arguments of a call, by observer hook.
ARGUMENTS: dict[str, dict[str, object]] = {
    "schedhook_event": {"event": Event(scheduler="slurm", point="prolog", job="1")},
    "schedhook_before_migrate": {
        "plan": Plan(strategy="s", backend="b", node_map=NODE_MAP, processes=())
    },
    "schedhook_after_migrate": {
        "report": Report(outcome=Outcome.COMPLETE, strategy="s", backend="b", node_map=NODE_MAP)
    },
    "schedhook_job_started": {"event": Event(scheduler="slurm", point="prolog", job="1")},
    "schedhook_job_ended": {"event": Event(scheduler="slurm", point="epilog", job="1")},
}

Install = Callable[..., None]


def load(environ: dict[str, str] | None = None, **keys: Any) -> Plugins:
    """Load the installed plug-ins; `keys` are those of [plugins]."""
    return load_plugins(Config(plugins=PluginsSection(**keys)), environ=environ or {})


def given(*plugins: object) -> Plugins:
    """Load these plug-ins and those that ship."""
    config = Config(plugins=PluginsSection(third_party=False))
    return load_plugins(config, extra=plugins, environ={})


def logged(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """Return the lines of the log."""
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def a_map(*_: object) -> NodeMap:
    """Return the same map for all nodes, as a mapper."""
    return NODE_MAP


def module(name: str, **members: object) -> ModuleType:
    """Return a module with these members."""
    made = ModuleType(name)
    vars(made).update(members)
    return made


def provides(name: str, summary: str = "for a test") -> object:
    """Return a plug-in with one mapper."""

    @hookimpl
    def schedhook_mappers() -> list[MapperPlugin]:
        return [MapperPlugin(name=name, summary=summary, map=a_map)]

    return module(f"gives_{name}", schedhook_mappers=schedhook_mappers)


class Watcher:
    """An observer that keeps the arguments of each call."""

    def __init__(self) -> None:
        self.seen: list[object] = []

    @hookimpl
    def schedhook_event(self, event: Event) -> None:
        self.seen.append(event)

    @hookimpl
    def schedhook_before_migrate(self, plan: Plan) -> None:
        self.seen.append(plan)

    @hookimpl
    def schedhook_after_migrate(self, report: Report) -> None:
        self.seen.append(report)

    @hookimpl
    def schedhook_job_started(self, event: Event) -> None:
        self.seen.append(event)

    @hookimpl
    def schedhook_job_ended(self, event: Event) -> None:
        self.seen.append(event)


class Refusing:
    """An observer that refuses every relocation."""

    @hookimpl
    def schedhook_before_migrate(self, plan: Plan) -> None:
        raise MigrationRefused(f"not by {plan.strategy}")
