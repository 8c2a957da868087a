"""Reports of relocations, as JSON."""

from __future__ import annotations

import json
import time

from schedhook.journal.counters import Counters
from schedhook.journal.database import Database
from schedhook.values.model import Report
from schedhook.values.report_json import report_to_dict


class Reports:
    """The table `reports`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._counters = Counters(database)

    def add(self, report: Report, scheduler: str | None = None, job: str | None = None) -> None:
        """Store a relocation's report, and add its numbers to the counters.

        `job` is the report's own job by default.
        """
        with self._database.write() as db:
            db.execute(
                "INSERT INTO reports (at, scheduler, job, outcome, report) VALUES (?, ?, ?, ?, ?)",
                (
                    time.time(),
                    scheduler,
                    job if job is not None else report.job,
                    report.outcome.value,
                    json.dumps(report_to_dict(report)),
                ),
            )
            self._counters.add(report, scheduler)
