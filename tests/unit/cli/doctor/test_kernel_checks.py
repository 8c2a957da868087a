"""Checks of what the kernel allows, and of NUMA balancing."""

from __future__ import annotations

from pathlib import Path

from schedhook.cli.doctor.examination import examine
from schedhook.plugins.findings import Severity
from schedhook.plugins.manager import Plugins
from schedhook.testing.hosts import FakeNode, write_host, write_process
from schedhook.values.config import Config
from tests.unit.doctorkit import found


def test_a_snapshot_of_a_host(plugins: Plugins, tmp_path: Path) -> None:
    """Our own process is not in it: its rights are read where it runs, and its files left out."""
    write_host(tmp_path, [FakeNode(number=0), FakeNode(number=1)])
    write_process(tmp_path, 100)
    findings = examine(Config(), plugins, tmp_path)
    assert (
        found(findings, "CAP_SYS_NICE").level
        is found(examine(Config(), plugins), "CAP_SYS_NICE").level
    )
    assert found(findings, "/proc").level is Severity.PROBLEM
    assert not {each.subject for each in findings} & {"capabilities", "calls", "PAGEMAP_SCAN"}


def test_numa_balancing(plugins: Plugins, tmp_path: Path) -> None:
    setting = tmp_path / "proc/sys/kernel/numa_balancing"
    setting.parent.mkdir(parents=True)
    for text, level in (("1\n", Severity.NOTE), ("0\n", Severity.OK)):
        setting.write_text(text)
        assert found(examine(Config(), plugins, tmp_path), "numa_balancing").level is level
