"""`relocate --job` without --from and --to: from where the journal has the job to where it is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from schedhook.journal.journal import Journal
from schedhook.values.model import Placement
from schedhook.values.sets import CpuSet, NodeSet
from tests.unit.clikit import Run
from tests.unit.screenkit import MIB


def at(cpus: str, nodes: str) -> Placement:
    return Placement(cpus=CpuSet.parse(cpus), nodes=NodeSet.parse(nodes))


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """Return a configuration that names a journal with job 72 on the first node."""
    directory = tmp_path / "journal"
    directory.mkdir(mode=0o700)
    with Journal.open(directory / "journal.db") as journal:
        journal.placements.record("slurm", "72", {"0.0": at("0", "0"), "0.1": at("1", "0")})
    config = tmp_path / "config.toml"
    config.write_text(f'[journal]\npath = "{directory}/journal.db"\n')
    return config


def words(four: Path, config: Path, job: int) -> list[object]:
    options = ["--root", four, "--backend", "simulated", "--config", config, "--json"]
    return ["--job", job, *options]


def test_memory_goes_from_the_old_nodes_to_the_new(run: Run, four: Path, journal: Path) -> None:
    status, out, err = run("plan", *words(four, journal, 72))
    assert status == 0, err
    plan = json.loads(out)
    assert (plan["node_map"], plan["bytes_planned"]) == ({"0": 3}, 1100 * MIB)
    status, out, _ = run("relocate", *words(four, journal, 72))
    assert (status, json.loads(out)["bytes_moved"]) == (0, 1100 * MIB)


def test_a_job_that_the_journal_does_not_know(run: Run, four: Path, journal: Path) -> None:
    status, _, err = run("plan", *words(four, journal, 71))
    assert status == 2
    assert "the journal has no placement of job 71; name the nodes: --to" in err


def test_tasks_that_went_different_ways(run: Run, four: Path, journal: Path) -> None:
    with Journal.open(journal.parent / "journal" / "journal.db") as opened:
        opened.placements.record("slurm", "72", {"0.1": at("2", "1")})
    status, _, err = run("plan", *words(four, journal, 72))
    assert status == 2
    assert "the tasks of job 72 have different nodes" in err
    assert "--home" in err


def test_without_a_journal_the_nodes_must_be_named(run: Run, four: Path, tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text(f'[journal]\npath = "{tmp_path}/absent/journal.db"\n')
    status, _, err = run("plan", *words(four, config, 72))
    assert status == 2
    assert err.count("\n") == 1
    assert "name the nodes" in err
