"""Fixtures for tests of plug-ins. pytest finds them wherever schedhook is installed, and imports
nothing else of schedhook until a test asks for one."""

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
    """A directory that stands for `/` of a host: four nodes of 1 GiB with a processor each, and
    cgroups of version 2. `schedhook.testing.write_process` and `write_cgroup` add to it; the
    command reads it with `--root`."""
    from schedhook.testing import FakeNode, write_cgroup_mounts, write_host  # noqa: PLC0415

    root = tmp_path / "host"
    write_host(root, [FakeNode(number=number, cpus=str(number)) for number in range(4)])
    write_cgroup_mounts(root)
    return root


@pytest.fixture
def schedhook_backend() -> SimulatedBackend:
    """A host in memory: four nodes of 1 GiB, to which a test adds processes."""
    from schedhook.testing import SimulatedBackend  # noqa: PLC0415

    return SimulatedBackend()


@pytest.fixture
def schedhook_relocate(schedhook_backend: SimulatedBackend) -> Callable[..., Report]:
    """Relocates on `schedhook_backend`: schedhook_relocate(plugin, …, node_map="0:2", strategy=…)
    returns the report, whose bytes have been found to add up. Further arguments are those of
    schedhook.roles.request.Request; all processes take part unless `pids` says which."""
    from schedhook.testing import relocate_simulated  # noqa: PLC0415

    return partial(relocate_simulated, schedhook_backend)
