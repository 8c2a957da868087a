"""Checks of nodes and cgroups."""

from __future__ import annotations

from pathlib import Path

from schedhook.cli.doctor.examination import examine
from schedhook.plugins.findings import Severity
from schedhook.plugins.manager import Plugins
from schedhook.testing.hosts import FakeNode, write_cgroup_mounts, write_file, write_host
from schedhook.values.config import Config
from tests.unit.doctorkit import found


def test_a_host_with_one_node_needs_nothing(plugins: Plugins, tmp_path: Path) -> None:
    write_host(tmp_path, [FakeNode(number=0)])
    finding = found(examine(Config(), plugins, tmp_path), "nodes")
    assert finding.level is Severity.NOTE
    assert "one node with memory (0)" in finding.what


def test_a_node_with_less_room_than_the_reserve(plugins: Plugins, tmp_path: Path) -> None:
    nodes = [FakeNode(number=n, memory=1 << 30, free=free << 20) for n, free in enumerate((63, 64))]
    write_host(tmp_path, nodes)
    findings = examine(Config(), plugins, tmp_path)
    assert found(findings, "node 0").level is Severity.NOTE
    assert "below 64 MiB" in found(findings, "node 0").remedy
    assert found(findings, "node 1").level is Severity.OK


def test_controllers_that_are_not_enabled(plugins: Plugins, tmp_path: Path) -> None:
    write_host(tmp_path, [FakeNode(number=0)])
    write_cgroup_mounts(tmp_path)
    for text, missing in (("cpuset cpu memory pids\n", 0), ("cpu\n", 2)):
        write_file(tmp_path, "sys/fs/cgroup/cgroup.subtree_control", text)
        findings = examine(Config(), plugins, tmp_path)
        notes = [f for f in findings if f.subject == "cgroups" and f.level is Severity.NOTE]
        assert len(notes) == missing
