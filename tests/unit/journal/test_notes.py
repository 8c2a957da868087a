"""Store notes about runs."""

from __future__ import annotations

import time

from schedhook.journal.journal import Journal


def test_notes_are_deleted_when_the_run_ends(journal: Journal) -> None:
    journal.notes.set("pbs", "7", "parked", "x")
    journal.notes.set("pbs", "7", "parked", "y")
    assert journal.notes.get("pbs", "7", "parked", str) == "y"
    assert journal.notes.get("pbs", "8", "parked", str) is None
    journal.notes.delete("pbs", "7", "other")
    journal.runs.record_end("pbs", "7", at=time.time() + 1)
    assert journal.notes.get("pbs", "7", "parked", str) is None
