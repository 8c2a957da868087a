"""Record tasks' placements."""

from __future__ import annotations

from schedhook.journal.journal import Journal
from schedhook.values.sets import NodeSet
from tests.unit.agentkit import homes
from tests.unit.journal.kit import placed


def test_an_unchanged_placement_is_recorded_once(journal: Journal) -> None:
    for _ in range(3):
        journal.placements.record("slurm", "7", {"0.0": placed("0", "0"), "0.1": placed("1", "1")})
    assert homes(journal, "slurm", "7") == {"0.0": placed("0", "0"), "0.1": placed("1", "1")}
    assert len(journal.history("7")[0]["placements"]) == 2


def test_a_task_away_from_home_keeps_its_home_and_the_nodes_it_visited(journal: Journal) -> None:
    journal.placements.record("slurm", "7", {"0": placed("0", "0")})
    journal.placements.record("slurm", "7", {"0": placed("0,2", "0,2")}, settled=False)
    journal.placements.record("slurm", "7", {"0": placed("3", "3")}, settled=False)
    seen = journal.placements.known_tasks("slurm", "7")["0"]
    assert (seen.home, seen.last) == (placed("0", "0"), placed("3", "3"))
    assert seen.visited == {0, 2, 3}
    assert [run.job for run in journal.runs.list_open(unsettled_only=True)] == ["7"]
    journal.placements.record("slurm", "7", {"0": placed("3", "3")})
    assert journal.placements.known_tasks("slurm", "7")["0"].home == placed("3", "3")
    assert journal.placements.known_tasks("slurm", "7")["0"].visited == NodeSet()
    assert journal.runs.list_open(unsettled_only=True) == ()


def test_a_new_run_does_not_know_the_placements_of_the_old_one(journal: Journal) -> None:
    journal.runs.record_start("slurm", "7", at=1.0)
    journal.placements.record("slurm", "7", {"0": placed("0", "0")}, at=2.0)
    journal.runs.record_end("slurm", "7", at=3.0)
    journal.runs.record_start("slurm", "7", at=4.0)
    assert homes(journal, "slurm", "7") == {}
