"""SIGKILL to agents and hooks at random moments, on a host whose memory is a file.

Each event is in the journal once and is handled, and no relocation stays unfinished.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import threading
import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

from schedhook.hook.message import parse_message
from tests.unit.agentkit import (
    Memory,
    agent,
    answers,
    fork_agent,
    hook,
    place,
    wait_for,
)

KILLS = int(os.environ.get("SCHEDHOOK_KILLS", "100"))
LONGEST = 0.25
"""Seconds after which an agent is killed at the latest."""
WORKERS = 4
"""Events that an agent handles at a time."""
LONG_JOBS = 4
PAGES = 8


def random_moments() -> random.Random:
    return random.Random(os.environ.get("SCHEDHOOK_SEED", "1"))


class Records:
    """An agent's journal, read without the project's code."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "state" / "journal.db"

    def ask(self, question: str) -> list[tuple[Any, ...]]:
        """Return the rows; none if there is no journal, or if it has no tables yet."""
        if not self._path.exists():
            return []
        with closing(sqlite3.connect(self._path, timeout=20)) as connection:
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            return connection.execute(question).fetchall() if version else []

    def handled(self) -> int:
        found = self.ask("SELECT count(*) FROM events WHERE done IS NOT NULL AND point = 'begin'")
        return int(found[0][0]) if found else 0

    def unfinished(self) -> int:
        found = self.ask("SELECT count(*) FROM events WHERE done IS NULL")
        return int(found[0][0]) if found else 0


class HookLoad:
    """Sends events through hooks as fast as possible, each with a number of its own.

    Events of the long jobs follow changes of their placement.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._stop = threading.Event()
        self._memory = Memory(directory)
        self.accepted: set[tuple[str, str, int]] = set()
        """(job, point, number) of each event that a hook reported as accepted."""
        self.failed: list[str] = []
        self._threads = [threading.Thread(target=self._long), threading.Thread(target=self._short)]

    def start(self) -> None:
        """Start the long jobs and wait until an agent has seen where; then move them."""
        with agent(self._directory):
            for number in range(LONG_JOBS):
                self._memory.put(f"long{number}", [0] * PAGES + [1] * PAGES)
                self._place(number, 0)
                self._send(f"long{number}", "begin", 0)
            wait_for(lambda: Records(self._directory).handled() == LONG_JOBS)
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _send(self, job: str, point: str, number: int) -> None:
        done = hook(
            self._directory,
            point,
            job,
            "--strict",
            stdin=None,
            input=json.dumps({"job": job, "data": {"number": number}}),
        )
        if done.returncode:
            self.failed.append(f"{job} {point}: {done.stderr}")
        self.accepted.add((job, point, number))

    def _place(self, number: int, turn: int) -> None:
        first = 2 * (turn % 4)
        nodes = f"{first}-{first + 1}"
        place(self._directory, f"long{number}", {"0": ([os.getpid()], nodes, nodes)})

    def _long(self) -> None:
        """Move the long jobs from nodes {0,1} to {2,3} and on: each page keeps its position."""
        turn = 0
        while not self._stop.is_set():
            turn += 1
            for number in range(LONG_JOBS):
                self._place(number, turn)
                self._send(f"long{number}", "resize", turn)
        self.last = 2 * (turn % 4)

    def _short(self) -> None:
        number = 0
        while not self._stop.is_set():
            number += 1
            for point in ("begin", "attach", "end"):
                self._send(f"short{number}", point, number)

    def is_half_moved(self) -> bool:
        memories = [self._memory.read(f"long{number}") for number in range(LONG_JOBS)]
        return any(len(set(memory)) > 2 for memory in memories)

    def memory_has_followed(self) -> bool:
        want = [self.last] * PAGES + [self.last + 1] * PAGES
        return all(self._memory.read(f"long{number}") == want for number in range(LONG_JOBS))


def check_spool(directory: Path) -> int:
    """Assert that each file an agent would read is a whole message; return their number."""
    files = list((directory / "spool").glob("*.event"))
    for file in files:
        assert json.loads(parse_message(file.read_bytes()).data)["job"]
    return len(files)


def test_no_event_is_lost_if_agents_are_killed(here: Path) -> None:
    moments = random_moments()
    records, load = Records(here), HookLoad(here)
    found: Counter[str] = Counter()
    load.start()
    try:
        for number in range(KILLS):
            process = fork_agent(here)
            if number % 2:  # on a busy host an agent may take long to start
                wait_for(lambda: answers(here / "agent.sock"))
            time.sleep(moments.uniform(0, LONGEST))
            os.kill(process, signal.SIGKILL)
            status = os.waitpid(process, 0)[1]
            assert os.WIFSIGNALED(status), (here / "agent.log").read_text()[-2000:]
            found["with unfinished events"] += records.unfinished() > 0
            found["with events in the spool"] += check_spool(here) > 0
            found["in the middle of a relocation"] += load.is_half_moved()
            assert records.ask("PRAGMA integrity_check") in ([], [("ok",)])
    finally:
        load.stop()
    with agent(here):
        wait_for(lambda: not records.unfinished() and not check_spool(here), 60)
        wait_for(load.memory_has_followed, 60)
    repeated = check_events(here, records, load.accepted)
    events = f"{len(load.accepted)} events, {repeated} begun again"
    print(f"{KILLS} agents killed, {dict(found)}; {events}")
    assert load.failed == []
    assert found["in the middle of a relocation"] > KILLS / 10
    assert found["with events in the spool"] > KILLS / 10
    assert 0 < repeated <= KILLS * WORKERS


def check_events(directory: Path, records: Records, accepted: set[tuple[str, str, int]]) -> int:
    """Assert that each event is in the journal once, finished, and was not begun again after that.

    Return how many were begun more than once.
    """
    rows = records.ask(
        "SELECT job, point, json_extract(data, '$.number'), done FROM events"
        " WHERE json_extract(data, '$.number') IS NOT NULL"
    )
    finished = {(job, point, number): done for job, point, number, done in rows}
    assert len(finished) == len(rows), "an event is in the journal twice"
    assert set(finished) == accepted
    begun: Counter[tuple[str, str, int]] = Counter()
    for line in (directory / "events.jsonl").read_text().splitlines():
        handled = json.loads(line)
        if "number" in handled["data"]:
            key = (handled["job"], handled["point"], handled["data"]["number"])
            begun[key] += 1
            assert handled["when"] <= finished[key], (
                f"{key} was handled again after it was finished"
            )
    assert set(begun) == accepted
    runs = records.ask("SELECT job, count(*), count(ended) FROM runs GROUP BY job")
    for job, count, ended in runs:
        assert (count, ended) == (1, int(job.startswith("short"))), job
    return begun.total() - len(begun)
