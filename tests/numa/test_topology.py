"""The topology that this tier depends on, as the kernel reports it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

NODES = Path("/sys/devices/system/node")


@pytest.mark.nodes(4)
def test_memory_bound_to_a_node_is_there() -> None:
    """Each of four nodes can hold a process's memory, according to numa_maps(5)."""
    for node in range(4):
        bound = ["numactl", f"--membind={node}", "cat", "/proc/self/numa_maps"]
        maps = subprocess.run(bound, capture_output=True, text=True, check=True, timeout=60).stdout
        stack = next(line for line in maps.splitlines() if "[stack]" in line or " stack " in line)
        assert {word.partition("=")[0] for word in stack.split() if word[0] == "N"} == {f"N{node}"}


@pytest.mark.nodes(4)
def test_some_nodes_are_nearer_than_others() -> None:
    """A mapper that compares distances has a choice."""
    rows = [(NODES / f"node{node}" / "distance").read_text().split() for node in range(4)]
    assert all(int(rows[node][node]) == 10 for node in range(4))
    assert len(set(rows[0])) > 2


def test_runs_as_root() -> None:
    """migrate_pages(2) and move_pages(2) on other users' processes need root."""
    assert os.geteuid() == 0
