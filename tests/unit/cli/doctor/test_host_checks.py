"""Checks of nodes and cgroups."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from schedhook.cli.doctor.examination import examine
from schedhook.cli.doctor.host_checks import TRIED_KERNELS
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


def test_nodes_without_processors_are_named(plugins: Plugins, tmp_path: Path) -> None:
    nodes = [
        FakeNode(number=0, cpus="0"),
        FakeNode(number=1, cpus="1"),
        FakeNode(number=2, free=0, is_gpu=True),
        FakeNode(number=3, free=0),
    ]
    write_host(tmp_path, nodes)
    findings = examine(Config(), plugins, tmp_path)
    what = "4 nodes with memory (0-3), processors on 0-1, GPU memory on 2, no processors on 3"
    assert found(findings, "nodes").what == what
    for node, kind in ((2, "memory of a GPU"), (3, "no processors")):
        full = found(findings, f"node {node}")
        assert full.level is Severity.OK
        assert full.what.endswith(f"; {kind}: no destination unless it is named")
    assert "unless" not in found(findings, "node 1").what


def test_controllers_that_are_not_enabled(plugins: Plugins, tmp_path: Path) -> None:
    write_host(tmp_path, [FakeNode(number=0)])
    write_cgroup_mounts(tmp_path)
    for text, missing in (("cpuset cpu memory pids\n", 0), ("cpu\n", 2)):
        write_file(tmp_path, "sys/fs/cgroup/cgroup.subtree_control", text)
        findings = examine(Config(), plugins, tmp_path)
        notes = [f for f in findings if f.subject == "cgroups" and f.level is Severity.NOTE]
        assert len(notes) == missing


@pytest.mark.parametrize(
    ("release", "level", "says"),
    [
        ("6.12.95+deb12-amd64", Severity.OK, "6.12 is among"),
        ("6.1.0-41-amd64", Severity.OK, "6.1 is among"),
        ("6.120.3", Severity.NOTE, "not tried with Linux 6.120:"),
        ("5.14.0-503.el9.aarch64", Severity.NOTE, "not tried with Linux 5.14:"),
    ],
)
def test_a_kernel_that_was_not_tried_is_said(
    plugins: Plugins, tmp_path: Path, release: str, level: Severity, says: str
) -> None:
    write_host(tmp_path, [FakeNode(number=0), FakeNode(number=1)])
    write_file(tmp_path, "proc/sys/kernel/osrelease", f"{release}\n")
    finding = found(examine(Config(), plugins, tmp_path), "kernel")
    assert finding.level is level
    assert says in finding.what


def test_the_readme_names_the_kernels_that_were_tried() -> None:
    (row,) = (
        line
        for line in Path(__file__).parents[4].joinpath("README.md").read_text().splitlines()
        if line.startswith("| Linux |")
    )
    assert re.findall(r"\b\d+\.\d+\b", row) == list(TRIED_KERNELS)
