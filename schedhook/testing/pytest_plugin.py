"""Fixtures for tests of plug-ins.

pytest finds them if schedhook is installed; the rest of schedhook is imported on first use.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from schedhook.backends.simulated import SimulatedBackend
    from schedhook.values.model import Report


@pytest.fixture
def schedhook_host(tmp_path: Path) -> Path:
    """Return a directory that stands for `/` of a host.

    The host has four nodes of 1 GiB with one processor each, and cgroups of version 2. Add to it
    with `schedhook.testing.write_process` and `write_cgroup`; `schedhook` reads it with `--root`.
    """
    from schedhook.testing import FakeNode, write_cgroup_mounts, write_host  # noqa: PLC0415

    root = tmp_path / "host"
    write_host(root, [FakeNode(number=number, cpus=str(number)) for number in range(4)])
    write_cgroup_mounts(root)
    return root


@pytest.fixture
def schedhook_backend() -> SimulatedBackend:
    """Return a host in memory with four nodes of 1 GiB; the test adds processes to it."""
    from schedhook.testing import SimulatedBackend  # noqa: PLC0415

    return SimulatedBackend()


@pytest.fixture
def schedhook_relocate(schedhook_backend: SimulatedBackend) -> Callable[..., Report]:
    """Return a function that relocates on `schedhook_backend` and returns the report.

    Call it as `schedhook_relocate(plugin, …, node_map="0:2", strategy=…, options={…})`; see
    `schedhook.testing.relocate_simulated`.
    """
    from schedhook.testing import relocate_simulated  # noqa: PLC0415

    return partial(relocate_simulated, schedhook_backend)
