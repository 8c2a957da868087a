"""Store placement overrides."""

from __future__ import annotations

import time

from schedhook.journal.journal import Journal
from schedhook.values.model import PlacementOverride
from schedhook.values.sets import CpuSet
from tests.unit.journal.kit import placed


def test_an_override_lasts_until_the_job_ends_and_keeps_what_the_scheduler_gave(
    journal: Journal,
) -> None:
    first = PlacementOverride(
        was=placed("0-1", "0-1"), placement=placed("2-3", "2-3"), leaving=CpuSet({0, 1})
    )
    journal.overrides.set("slurm", "7", first)
    journal.overrides.set(
        "slurm", "7", PlacementOverride(was=placed("2-3", "2-3"), placement=placed("1-2", "1-2"))
    )
    override = journal.overrides.get("slurm", "7")
    assert override is not None
    assert (override.was, override.placement) == (placed("0-1", "0-1"), placed("1-2", "1-2"))
    journal.runs.record_end("slurm", "7", at=time.time() + 1)
    assert journal.overrides.get("slurm", "7") is None


def test_an_override_is_released_once(journal: Journal) -> None:
    journal.overrides.set(
        "slurm", "7", PlacementOverride(was=placed("0", "0"), placement=placed("1", "1"))
    )
    assert journal.overrides.release("slurm", "7")
    assert not journal.overrides.release("slurm", "7")
    assert journal.overrides.get("slurm", "7") is None
