"""Tests of kernel behaviour: they run as root where there are several NUMA nodes.

``@pytest.mark.nodes(4)`` declares how many nodes with memory a test needs.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

NODES = Path("/sys/devices/system/node")


def nodes_with_memory() -> list[int]:
    """The numbers of the nodes that have memory, as the kernel tells them."""

    def total_kib(node: Path) -> int:
        return int((node / "meminfo").read_text().partition("MemTotal:")[2].split()[0])

    found = [node for node in NODES.glob("node[0-9]*") if total_kib(node) > 0]
    return sorted(int(node.name.removeprefix("node")) for node in found)


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    config.addinivalue_line("markers", "nodes(count): NUMA nodes with memory that the test needs")


@pytest.fixture(autouse=True)
def declared_topology(request: pytest.FixtureRequest) -> None:
    """Skip on a developer's small host; fail where the tier has to run."""
    marker = request.node.get_closest_marker("nodes")
    needed = marker.args[0] if marker else 1
    have = len(nodes_with_memory())
    if have >= needed:
        return
    message = f"needs {needed} NUMA nodes with memory, this host has {have}"
    if {"CI", "TESTS_IN_VM"} & set(os.environ):
        pytest.fail(message)
    pytest.skip(message)
