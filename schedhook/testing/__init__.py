"""A test kit for schedhook and for plug-ins.

It has contracts that every plug-in of a role must pass, a backend in memory, trees of files that
stand for a host, and real processes whose pages are on given nodes. Each name is loaded on first
use. pytest finds the fixtures of `schedhook.testing.pytest_plugin` if schedhook is installed.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from schedhook.backends.simulated import SimulatedArea, SimulatedBackend
    from schedhook.testing.contracts.backend import BackendContract
    from schedhook.testing.contracts.mapper import MapperContract
    from schedhook.testing.contracts.one_node import OneNodeContract
    from schedhook.testing.contracts.page_strategy import PageStrategyContract
    from schedhook.testing.contracts.scheduler import FakeJob, HookCall, SchedulerContract
    from schedhook.testing.contracts.strategy import StrategyContract
    from schedhook.testing.hosts import (
        FakeArea,
        FakeNode,
        write_cgroup,
        write_cgroup_mounts,
        write_file,
        write_host,
        write_process,
    )
    from schedhook.testing.processes import NativeProcess
    from schedhook.testing.relocations import relocate_simulated, send_event

__all__ = [
    "BackendContract",
    "FakeArea",
    "FakeJob",
    "FakeNode",
    "HookCall",
    "MapperContract",
    "NativeProcess",
    "OneNodeContract",
    "PageStrategyContract",
    "SchedulerContract",
    "SimulatedArea",
    "SimulatedBackend",
    "StrategyContract",
    "relocate_simulated",
    "send_event",
    "write_cgroup",
    "write_cgroup_mounts",
    "write_file",
    "write_host",
    "write_process",
]

_HOME = {
    "BackendContract": "schedhook.testing.contracts.backend",
    "FakeArea": "schedhook.testing.hosts",
    "FakeJob": "schedhook.testing.contracts.scheduler",
    "FakeNode": "schedhook.testing.hosts",
    "HookCall": "schedhook.testing.contracts.scheduler",
    "MapperContract": "schedhook.testing.contracts.mapper",
    "NativeProcess": "schedhook.testing.processes",
    "OneNodeContract": "schedhook.testing.contracts.one_node",
    "PageStrategyContract": "schedhook.testing.contracts.page_strategy",
    "SchedulerContract": "schedhook.testing.contracts.scheduler",
    "SimulatedArea": "schedhook.backends.simulated",
    "SimulatedBackend": "schedhook.backends.simulated",
    "StrategyContract": "schedhook.testing.contracts.strategy",
    "relocate_simulated": "schedhook.testing.relocations",
    "send_event": "schedhook.testing.relocations",
    "write_cgroup": "schedhook.testing.hosts",
    "write_cgroup_mounts": "schedhook.testing.hosts",
    "write_file": "schedhook.testing.hosts",
    "write_host": "schedhook.testing.hosts",
    "write_process": "schedhook.testing.hosts",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
