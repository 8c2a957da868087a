"""The attribution of accesses to selected and to other processes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from schedhook.backends.simulated import PAGE, SimulatedBackend
from schedhook.host.topology import Topology
from schedhook.migration.profiling.survey import survey
from schedhook.roles.profile import Profile
from schedhook.testing.hosts import FakeArea, FakeNode, write_host, write_process
from schedhook.values.sets import NodeSet
from tests.unit.migration.test_page_choice import AT

AREA = FakeArea(start=AT, size=16 * PAGE, pages={0: 8})


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """Return a host with process 100 (threads 100, 101; processors 0-1) and process 300."""
    write_host(tmp_path, [FakeNode(number=n, cpus=str(n)) for n in range(4)])
    (tmp_path / "proc/stat").write_text("cpu 0\nbtime 1000000\n")
    write_process(
        tmp_path, 100, areas=[AREA], cpus="0-1", nodes="0-3", threads={100: "S", 101: "S"}
    )
    write_process(tmp_path, 300, areas=[AREA], cpus="2", nodes="0-3")
    return tmp_path


def topology_of(root: Path) -> Topology:
    return SimulatedBackend(root).topology()


def test_accesses_are_attributed_to_processes(host: Path) -> None:
    profile = Profile()
    for number, address, count in (
        (100, AT, 1), (101, AT, 2), (100, AT + 16 * PAGE, 4), (300, AT, 8), (999, AT, 16),
    ):  # fmt: skip
        profile.add(number, address, 1, count)
    found = survey(profile, [100], topology_of(host), root=host)
    assert found.accesses[100].total == 7
    assert (found.unmapped, found.others, found.gone) == (4, 8, 16)
    assert found.nodes == NodeSet({0, 1})


def test_a_reused_pid_is_another_process(host: Path) -> None:
    began = 1_000_000 + 1000 / os.sysconf("SC_CLK_TCK")
    profile = Profile()
    profile.add(100, AT, 1, 3)
    profile.add(300, AT, 1, 4)
    before = survey(profile, [100], topology_of(host), recorded=began - 1, root=host)
    assert (dict(before.accesses), before.gone, before.others) == ({}, 7, 0)
    after = survey(profile, [100], topology_of(host), recorded=began + 1, root=host)
    assert (after.accesses[100].total, after.gone, after.others) == (3, 0, 4)
