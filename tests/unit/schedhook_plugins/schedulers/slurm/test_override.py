"""What job-migrate writes down before, after, and when nothing came of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from schedhook.journal.journal import Journal
from schedhook.roles.scheduler import Task
from schedhook.values.model import Placement, PlacementOverride
from schedhook.values.sets import CpuSet, NodeSet
from schedhook_plugins.schedulers.slurm.adapter import Slurm
from schedhook_plugins.schedulers.slurm.migrate import JobMove
from schedhook_plugins.schedulers.slurm.override import Keeper, finish_interrupted
from tests.unit.agentkit import homes


def place(text: str) -> Placement:
    return Placement(cpus=CpuSet.parse(text), nodes=NodeSet.parse(text))


def task(text: str) -> tuple[Task, ...]:
    return (Task(name="0.0", pids=(1,), placement=place(text)),)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal.open(tmp_path / "journal.db") as journal:
        yield journal


@pytest.fixture
def keeper(journal: Journal, tmp_path: Path) -> Keeper:
    return Keeper(journal, Slurm(tmp_path), "7")


def move(failure: str | None = None) -> JobMove:
    return JobMove(
        job="7", old=place("0"), new=place("2"), failure=failure, before=task("0"), after=task("2")
    )


def test_a_wish_says_where_the_job_comes_from_until_it_has_arrived(
    journal: Journal, keeper: Keeper
) -> None:
    keeper.begin(move())
    override = journal.overrides.get("slurm", "7")
    assert override is not None
    assert (override.placement, override.leaving) == (place("2"), CpuSet({0}))
    assert homes(journal, "slurm", "7") == {"0.0": place("0")}
    assert keeper.end(move()) == []
    override = journal.overrides.get("slurm", "7")
    assert override is not None
    assert (override.was, override.placement, override.leaving) == (place("0"), place("2"), None)
    assert homes(journal, "slurm", "7") == {"0.0": place("2")}


@pytest.mark.parametrize("earlier", [None, PlacementOverride(was=place("1"), placement=place("0"))])
def test_what_came_to_nothing_leaves_the_wish_of_before(
    journal: Journal, keeper: Keeper, earlier: PlacementOverride | None
) -> None:
    if earlier:
        journal.overrides.set("slurm", "7", earlier)
    keeper.begin(move())
    keeper.end(move("no room"))
    found = journal.overrides.get("slurm", "7")
    assert (found and (found.was, found.placement, found.leaving)) == (
        earlier and (earlier.was, earlier.placement, None)
    )


def test_a_journal_that_fails_is_told_and_stops_nothing(journal: Journal, keeper: Keeper) -> None:
    journal.close()
    keeper.begin(move())
    assert "not kept" in keeper.end(move())[0]
    (told,) = finish_interrupted(journal, "7", Slurm(), lambda _: pytest.fail("moved"))
    assert "not known" in told
