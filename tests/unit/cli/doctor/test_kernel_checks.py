"""Checks of what the kernel allows, and of NUMA balancing."""

from __future__ import annotations

from pathlib import Path

from schedhook.cli.doctor.examination import examine
from schedhook.plugins.findings import Severity
from schedhook.plugins.manager import Plugins
from schedhook.values.config import Config
from tests.unit.doctorkit import found


def test_numa_balancing(plugins: Plugins, tmp_path: Path) -> None:
    setting = tmp_path / "proc/sys/kernel/numa_balancing"
    setting.parent.mkdir(parents=True)
    for text, level in (("1\n", Severity.NOTE), ("0\n", Severity.OK)):
        setting.write_text(text)
        assert found(examine(Config(), plugins, tmp_path), "numa_balancing").level is level
