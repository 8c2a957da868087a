"""Events that are handled in a process of their own, without an agent."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from schedhook.agent.oneshot import handle_message
from schedhook.hook import delivery
from schedhook.hook.message import parse_message
from schedhook.journal.journal import Journal
from schedhook.values.config import Config, JournalSection
from schedhook.values.model import Event


def test_an_event_that_a_killed_agent_has_accepted_is_handled_once(tmp_path: Path) -> None:
    """The hook got no `ok`, so it starts a process that handles the event."""
    config = replace(Config(), journal=JournalSection(path=str(tmp_path / "state/journal.db")))
    environ = {b"SLURM_JOB_ID": b"7", b"SLURM_JOB_UID": b"1000"}
    raw = delivery.make_message("slurm", "prolog", environ, b"", True)
    with Journal.open(Path(config.journal.path)) as journal:
        accepted = Event(scheduler="slurm", point="prolog", job="7", user=1000)
        journal.events.put(accepted, parse_message(raw).at)
        assert handle_message(raw, config).summary == "started"
        assert journal.events.list_unfinished() == []
        journal.runs.record_end("slurm", "7")
        assert handle_message(raw, config).summary == "started"
        (run,) = journal.history()
        assert len(run["events"]) == 1
