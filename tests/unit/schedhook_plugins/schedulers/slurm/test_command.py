"""job-migrate as a command."""

from __future__ import annotations

from pathlib import Path

import pytest

from schedhook.journal.journal import Journal
from schedhook.values.model import Placement, PlacementOverride
from schedhook.values.sets import CpuSet, NodeSet
from schedhook_plugins.schedulers.slurm.command import command


def place(text: str) -> Placement:
    return Placement(cpus=CpuSet.parse(text), nodes=NodeSet.parse(text))


def test_it_opens_the_configured_journal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The agent reads the overrides there, so job-migrate must not use the default path."""
    path = tmp_path / "state" / "journal.db"
    config = tmp_path / "config.toml"
    config.write_text(f'[journal]\npath = "{path}"\n')
    with Journal.open(path) as journal:
        override = PlacementOverride(was=place("0"), placement=place("1"))
        journal.overrides.set("slurm", "7", override)
        words = ["7", "--release", "--this-host", "--config", str(config)]
        command(words, standalone_mode=False)
        assert journal.overrides.get("slurm", "7") is None
    assert "released" in capsys.readouterr().out
