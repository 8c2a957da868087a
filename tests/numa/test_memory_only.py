"""A node without processors on the real kernel: what lies there on purpose stays.

These tests need one: `python -m tests.vm test --memory-only 1 tests/numa/test_memory_only.py`.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from schedhook.host.topology import read_topology
from tests.numa.jobs import MIB, Job
from tests.numa.test_home import HOME, SIZE, bind

pytestmark = pytest.mark.nodes(4)


@pytest.fixture
def bare() -> int:
    """Return a node that has memory and no processors."""
    nodes = read_topology().memory_only_nodes
    if not nodes:
        pytest.skip("no node without processors: boot with --memory-only 1")
    return min(nodes)


def test_memory_bound_to_a_node_without_processors_stays(run: Any, bare: int) -> None:
    with Job("anon", SIZE, bare) as job:
        job.say(f"policy 2 {bare}")  # MPOL_BIND
        bind(job.pid, HOME)  # to which the node is not near
        assert job.share_on(bare) == 1
        assert run("show", "--pid", job.pid)[1]["off_node"].get(str(bare), 0) == 0
        run("relocate", "--pid", job.pid, "--home")
        assert job.share_on(bare) == 1


def test_memory_without_a_policy_comes_from_a_node_that_is_not_near(run: Any, bare: int) -> None:
    with Job("anon", SIZE, bare) as job:
        bind(job.pid, 0)
        run("relocate", "--pid", job.pid, "--home")
        assert job.share_on(bare) == 1, "nearest to node 0"
        bind(job.pid, HOME)
        status, report = run("relocate", "--pid", job.pid, "--home")
        assert (status, report["outcome"]) == (0, "complete"), report["notes"]
        assert job.share_on(HOME) == 1


def test_a_node_without_processors_is_no_destination_unless_named(run: Any, bare: int) -> None:
    with Job("anon", SIZE, 0) as job:
        _, plan = run("plan", "--pid", job.pid, "--from", 0, "--to", bare)
        assert plan["node_map"] == {"0": bare}
        bind(job.pid, HOME)
        _, plan = run("plan", "--pid", job.pid, "--home")
        assert set(plan["node_map"].values()) == {HOME}


@pytest.fixture
def by_numactl(bare: int) -> Iterator[int]:
    """Start a program by numactl(8), with memory on the node and processors of another one."""
    code = f"memory = bytearray({SIZE} << 20); print('ready', flush=True); input()"
    command = ["numactl", f"--membind={bare}", f"--cpunodebind={HOME}", sys.executable, "-c", code]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        yield process.pid
        process.kill()


def test_a_program_under_membind_keeps_its_memory(run: Any, bare: int, by_numactl: int) -> None:
    """Its areas have no policy of their own: the one of its thread applies."""
    shown = run("show", "--pid", by_numactl)[1]
    assert shown["residency"][str(bare)] >= SIZE * MIB
    assert str(bare) not in shown["off_node"]
    run("relocate", "--pid", by_numactl, "--home")
    assert run("show", "--pid", by_numactl)[1]["residency"][str(bare)] >= SIZE * MIB


def test_the_nodes_of_this_host(bare: int) -> None:
    topology = read_topology()
    assert topology.default_nodes == topology.cpu_nodes
    assert bare not in topology.default_nodes
