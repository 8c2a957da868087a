"""schedhook makes a batch job's memory follow the job between NUMA nodes.

Authors of plug-ins import from here what every plug-in needs; each name is loaded on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from schedhook.plugins.descriptors import (
        BackendPlugin,
        MapperPlugin,
        SchedulerPlugin,
        StrategyPlugin,
    )
    from schedhook.plugins.hookspecs import hookimpl
    from schedhook.values.errors import MigrationRefused

__version__ = "0.1.0"

__all__ = [
    "BackendPlugin",
    "MapperPlugin",
    "MigrationRefused",
    "SchedulerPlugin",
    "StrategyPlugin",
    "__version__",
    "hookimpl",
]

_HOME = {
    "BackendPlugin": "schedhook.plugins.descriptors",
    "MapperPlugin": "schedhook.plugins.descriptors",
    "MigrationRefused": "schedhook.values.errors",
    "SchedulerPlugin": "schedhook.plugins.descriptors",
    "StrategyPlugin": "schedhook.plugins.descriptors",
    "hookimpl": "schedhook.plugins.hookspecs",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
