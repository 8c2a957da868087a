"""Jobs that a command about all jobs does not touch."""

from __future__ import annotations

from pathlib import Path

from schedhook.agent.parking import PARKED
from schedhook.cli.left_alone import find_left_alone
from schedhook.journal.journal import open_journal
from schedhook.plugins.loading import load_plugins
from schedhook.values.config import Config, JournalSection, PluginsSection

JOBS = [("slurm", "7"), ("slurm", "8")]


def test_parked_jobs(tmp_path: Path) -> None:
    config = Config(
        journal=JournalSection(path=str(tmp_path / "state" / "journal.db")),
        plugins=PluginsSection(third_party=False),
    )
    plugins = load_plugins(config, environ={})
    assert find_left_alone(JOBS, config, plugins, Path("/")) == {}, "there is no journal yet"
    with open_journal(config) as journal:
        journal.notes.set("slurm", "7", PARKED, "{}")
        journal.notes.set("slurm", "8", "other", "{}")
    assert find_left_alone(JOBS, config, plugins, Path("/")).keys() == {("slurm", "7")}
    assert find_left_alone(JOBS, config, plugins, tmp_path) == {}, "of another host"
