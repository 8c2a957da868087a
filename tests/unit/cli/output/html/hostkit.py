"""The journal of a made-up host: relocations and decisions about its jobs."""

from __future__ import annotations

import time
from pathlib import Path

from schedhook.journal.journal import Journal
from schedhook.values.model import Event, NodeMap, Outcome, Report
from tests.unit.screenkit import HOSTILE, MIB

HOUR = 3600.0
NAME = HOSTILE.decode(errors="replace") + "a-very-long-name-without-a-blank" * 4


def write_journal(root: Path, now: float | None = None) -> None:
    """Write the journal of the host below `root`.

    Job 72 was moved twice, two hours and 30 hours ago; keep_local has brought 1 GiB home 36 hours
    ago, which is there since, and left job 73, with a hostile name, alone. Job 70 has ended.
    """
    now = time.time() if now is None else now
    directory = root / "journal"
    directory.mkdir(mode=0o700)
    with Journal.open(directory / "journal.db") as journal:
        for job, name in (("70", "ended"), ("72", "cfd"), ("73", NAME)):
            journal.runs.record_start("slurm", job, 0, now - 40 * HOUR)
            journal.runs.describe("slurm", job, f"{job}_1" if job == "72" else "", name)
        for hours, outcome, left in ((30, Outcome.COMPLETE, 0), (2, Outcome.PARTIAL, 100 * MIB)):
            report = Report(
                outcome=outcome,
                strategy="move-pages",
                backend="native",
                node_map=NodeMap(pairs={0: 3, 1: 3}),
                job="72",
                bytes_planned=1100 * MIB,
                bytes_moved=1100 * MIB - left,
                bytes_left=left,
                left_by_reason={"EBUSY": left} if left else {},
                attempts=1,
                seconds=2.5,
                processes=(),
            )
            journal.reports.add(report, "slurm", "72")
            with journal.database.write() as db:
                latest = "(SELECT max(id) FROM reports)"
                db.execute(f"UPDATE reports SET at = ? WHERE id = {latest}", [now - hours * HOUR])
        for job, hours, verdict, kept, summary in (
            ("72", 36, "move", 1 << 30, "1024.0 MiB come home"),
            ("73", 3, "no-room", 0, "130.0 MiB off-node (10%) wait for room: " + NAME),
            ("70", 4, "ended", 0, "nothing avoided"),
        ):
            figures = {"verdict": verdict, "kept": kept, "avoided_byte_s": 0}
            event = Event(scheduler="slurm", point="keep-local", job=job, data=figures)
            journal.events.add_handled(event, now - hours * HOUR, summary)
        journal.runs.record_end("slurm", "70", now - 4 * HOUR)
