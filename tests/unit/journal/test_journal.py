"""The journal: real files, several processes, crashes and full disks."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from schedhook.journal.errors import JobLockedError, JournalBusyError, JournalError
from schedhook.journal.file import journal_path
from schedhook.journal.journal import Journal
from schedhook.values.config import Config, JournalSection
from schedhook.values.errors import SchedhookError
from schedhook.values.model import Event, NodeMap, Outcome, Placement, PlacementOverride, Report
from schedhook.values.sets import CpuSet, NodeSet
from tests.unit.agentkit import homes

SPAWN = multiprocessing.get_context("spawn")
NOBODY = 65534


def at(cpus: str, nodes: str) -> Placement:
    return Placement(cpus=CpuSet.parse(cpus), nodes=NodeSet.parse(nodes))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "journal.db"


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    with Journal.open(path) as journal:
        yield journal


# -- jobs ----------------------------------------------------------------------------------------


def test_a_job_is_open_from_its_start_to_its_end(journal: Journal) -> None:
    journal.runs.record_start("slurm", "7", user=1000, at=10.0)
    run = journal.runs.latest("slurm", "7")
    assert run is not None
    assert (run.user, run.started, run.ended, run.hooked) == (1000, 10.0, None, True)
    assert [each.job for each in journal.runs.list_open()] == ["7"]
    assert journal.runs.record_end("slurm", "7", at=20.0)
    assert journal.runs.list_open() == ()


def test_what_is_said_twice_is_there_once(journal: Journal) -> None:
    for _ in range(2):
        journal.runs.record_start("slurm", "7", at=10.0)
    assert journal.runs.record_end("slurm", "7", at=20.0)
    assert not journal.runs.record_end("slurm", "7", at=20.0)
    assert len(journal.history("7")) == 1


def test_the_order_in_which_messages_come_does_not_matter(journal: Journal) -> None:
    journal.runs.record_end("slurm", "7", at=20.0)
    journal.runs.record_start("slurm", "7", user=1000, at=10.0)
    (run,) = journal.history("7")
    assert (run["user"], run["started"], run["ended"]) == (1000, 10.0, 20.0)


def test_a_requeued_job_has_another_run(journal: Journal) -> None:
    journal.runs.record_start("slurm", "7", at=10.0)
    journal.runs.record_end("slurm", "7", at=20.0)
    journal.runs.record_start("slurm", "7", at=30.0)
    journal.runs.record_end("slurm", "7", at=20.0)
    assert [(run["started"], run["ended"]) for run in journal.history("7")] == [
        (10.0, 20.0),
        (30.0, None),
    ]


def test_two_schedulers_may_use_one_number(journal: Journal) -> None:
    journal.runs.record_start("slurm", "7")
    journal.runs.record_start("pbs", "7")
    journal.runs.record_end("pbs", "7")
    assert [run.scheduler for run in journal.runs.list_open()] == ["slurm"]


# -- placements ----------------------------------------------------------------------------------


def test_a_placement_is_kept_once_and_known_by_task(journal: Journal) -> None:
    for _ in range(3):
        journal.placements.record("slurm", "7", {"0.0": at("0", "0"), "0.1": at("1", "1")})
    assert homes(journal, "slurm", "7") == {"0.0": at("0", "0"), "0.1": at("1", "1")}
    assert len(journal.history("7")[0]["placements"]) == 2


def test_home_is_where_the_memory_is_and_what_was_passed_is_remembered(journal: Journal) -> None:
    journal.placements.record("slurm", "7", {"0": at("0", "0")})
    journal.placements.record("slurm", "7", {"0": at("0,2", "0,2")}, settled=False)
    journal.placements.record("slurm", "7", {"0": at("3", "3")}, settled=False)
    seen = journal.placements.known_tasks("slurm", "7")["0"]
    assert (seen.home, seen.last) == (at("0", "0"), at("3", "3"))
    assert seen.visited == {0, 2, 3}
    assert [run.job for run in journal.runs.list_open(unsettled_only=True)] == ["7"]
    journal.placements.record("slurm", "7", {"0": at("3", "3")})
    assert journal.placements.known_tasks("slurm", "7")["0"].home == at("3", "3")
    assert journal.placements.known_tasks("slurm", "7")["0"].visited == NodeSet()
    assert journal.runs.list_open(unsettled_only=True) == ()


def test_a_new_run_does_not_know_the_old_ones_placement(journal: Journal) -> None:
    journal.runs.record_start("slurm", "7", at=1.0)
    journal.placements.record("slurm", "7", {"0": at("0", "0")}, at=2.0)
    journal.runs.record_end("slurm", "7", at=3.0)
    journal.runs.record_start("slurm", "7", at=4.0)
    assert homes(journal, "slurm", "7") == {}


# -- overrides, notes, locks ---------------------------------------------------------------------


def test_a_wish_lasts_until_the_job_ends_and_keeps_what_the_scheduler_gave(
    journal: Journal,
) -> None:
    first = PlacementOverride(
        was=at("0-1", "0-1"), placement=at("2-3", "2-3"), leaving=CpuSet({0, 1})
    )
    journal.overrides.set("slurm", "7", first)
    journal.overrides.set(
        "slurm", "7", PlacementOverride(was=at("2-3", "2-3"), placement=at("1-2", "1-2"))
    )
    override = journal.overrides.get("slurm", "7")
    assert override is not None
    assert (override.was, override.placement) == (at("0-1", "0-1"), at("1-2", "1-2"))
    journal.runs.record_end("slurm", "7", at=time.time() + 1)
    assert journal.overrides.get("slurm", "7") is None


def test_a_wish_can_be_released_once(journal: Journal) -> None:
    journal.overrides.set("slurm", "7", PlacementOverride(was=at("0", "0"), placement=at("1", "1")))
    assert journal.overrides.release("slurm", "7")
    assert not journal.overrides.release("slurm", "7")
    assert journal.overrides.get("slurm", "7") is None


def test_what_is_written_together_is_written_as_a_whole(journal: Journal, path: Path) -> None:
    override = PlacementOverride(was=at("0", "0"), placement=at("1", "1"))
    with pytest.raises(RuntimeError), journal.transaction():
        journal.overrides.set("slurm", "7", override)
        journal.placements.record("slurm", "7", {"0": at("0", "0")})
        raise RuntimeError
    assert journal.history() == []
    with Journal.open(path) as other, journal.transaction():
        journal.overrides.set("slurm", "7", override)
        assert other.overrides.get("slurm", "7") is None
    assert journal.overrides.get("slurm", "7") is not None


def test_notes_go_with_the_job(journal: Journal) -> None:
    journal.notes.set("pbs", "7", "parked", "x")
    journal.notes.set("pbs", "7", "parked", "y")
    assert journal.notes.get("pbs", "7", "parked", str) == "y"
    assert journal.notes.get("pbs", "8", "parked", str) is None
    journal.notes.delete("pbs", "7", "other")
    journal.runs.record_end("pbs", "7", at=time.time() + 1)
    assert journal.notes.get("pbs", "7", "parked", str) is None


def hold_for_ever(path: Path, ready: Path) -> None:
    with Journal.open(path) as journal, journal.locks.acquire("slurm", "7"):
        ready.touch()
        time.sleep(600)


def test_a_hold_is_others_business_and_ends_with_its_process(path: Path, tmp_path: Path) -> None:
    with Journal.open(path) as journal:
        with journal.locks.acquire("slurm", "7"):
            assert not journal.locks.is_locked("slurm", "7")
        holder = SPAWN.Process(target=hold_for_ever, args=(path, tmp_path / "ready"))
        holder.start()
        while not (tmp_path / "ready").exists():
            assert holder.is_alive()
            time.sleep(0.02)
        assert journal.locks.is_locked("slurm", "7")
        assert not journal.locks.is_locked("slurm", "8")
        with pytest.raises(JobLockedError, match=f"process {holder.pid} is working on job 7"):
            journal.locks.acquire("slurm", "7").__enter__()
        threading.Timer(0.3, holder.kill).start()
        with journal.locks.acquire("slurm", "7", wait=60):
            holder.join(60)
            assert holder.exitcode is not None, "held by two"
        assert not journal.locks.is_locked("slurm", "7")
        journal.prune(1)


# -- events, reports, history --------------------------------------------------------------------


def event(job: str = "7", point: str = "prolog") -> Event:
    return Event(scheduler="slurm", point=point, job=job, user=3, host="n1", data={"a": [1]})


def test_an_event_waits_until_it_is_finished(journal: Journal) -> None:
    number = journal.events.put(event(), 5.0)
    assert number is not None
    assert journal.events.list_unfinished() == [(number, 5.0, event())]
    journal.events.finish(number, "started")
    assert journal.events.list_unfinished() == []


def test_the_same_event_is_taken_once(journal: Journal) -> None:
    assert journal.events.put(event(), 5.0) is not None
    assert journal.events.put(event(), 5.0) is None
    assert journal.events.put(event(), 6.0) is not None


def test_history_tells_all_of_a_job_and_nothing_of_others(journal: Journal) -> None:
    for job in ("7", "8"):
        now = time.time()
        journal.runs.record_start("slurm", job, at=now)
        journal.events.finish(journal.events.put(event(job), now) or 0, "started")
        journal.placements.record("slurm", job, {"0": at("0", "0")})
        report = Report(
            outcome=Outcome.COMPLETE,
            strategy="s",
            backend="b",
            node_map=NodeMap(pairs={0: 2}),
            job=job,
            bytes_moved=42,
        )
        journal.reports.add(report, "slurm")
    (run,) = journal.history("8")
    assert run["events"][0]["summary"] == "started"
    assert run["placements"][0]["cpus"] == "0"
    assert [each["bytes_moved"] for each in run["reports"]] == [42]
    assert [run["job"] for run in journal.history()] == ["7", "8"]
    assert [run["job"] for run in journal.history(limit=1)] == ["8"]


def test_what_is_old_and_over_is_forgotten(journal: Journal) -> None:
    old = time.time() - 10 * 86400
    journal.runs.record_start("slurm", "1", at=old)
    journal.runs.record_end("slurm", "1", at=old + 1)
    journal.runs.record_start("slurm", "2", at=old)
    journal.events.finish(journal.events.put(event("1"), old) or 0, "")
    assert journal.prune(5) == 1
    assert [run["job"] for run in journal.history()] == ["2"]


# -- several writers -----------------------------------------------------------------------------


def write_much(path: Path, first: int, count: int) -> None:
    with Journal.open(path) as journal:
        for number in range(first, first + count):
            job = str(number)
            number_of_event = journal.events.put(event(job), float(number))
            assert number_of_event is not None
            journal.runs.record_start("slurm", job, at=float(number))
            journal.placements.record("slurm", job, {"0": at("0", "0")}, at=float(number))
            journal.runs.record_end("slurm", job, at=float(number) + 0.5)
            journal.events.finish(number_of_event, "done")


def test_fifty_processes_that_all_open_a_new_journal_lose_nothing(path: Path) -> None:
    writers = [SPAWN.Process(target=write_much, args=(path, n * 10, 4)) for n in range(50)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(120)
        assert writer.exitcode == 0
    with Journal.open(path) as journal:
        runs = journal.history()
        assert sorted(int(run["job"]) for run in runs) == [
            n * 10 + k for n in range(50) for k in range(4)
        ]
        assert all(run["ended"] is not None and len(run["placements"]) == 1 for run in runs)
        assert all(len(run["events"]) == 1 for run in runs)
        assert journal.events.list_unfinished() == []


def test_threads_share_one_journal(journal: Journal) -> None:
    def write(first: int) -> None:
        for number in range(first, first + 25):
            journal.runs.record_start("slurm", str(number))
            journal.placements.known_tasks("slurm", str(number))

    threads = [threading.Thread(target=write, args=(100 * n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(journal.runs.list_open()) == 200


def test_a_reader_does_not_wait_for_a_writer(path: Path) -> None:
    with Journal.open(path) as journal, Journal.open(path) as other:
        journal.runs.record_start("slurm", "7")
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as writer:
            writer.execute("BEGIN IMMEDIATE")
            before = time.monotonic()
            assert other.runs.latest("slurm", "7") is not None
            assert time.monotonic() - before < 1


# -- crashes and broken files --------------------------------------------------------------------

WRITE_FOR_EVER = """
import sys
from pathlib import Path
from typing import Any
from schedhook.journal.journal import Journal
journal = Journal.open(Path(sys.argv[1]))
number = 0
while True:
    number += 1
    journal.runs.record_start("slurm", str(number), at=float(number))
    journal.runs.record_end("slurm", str(number), at=float(number))
    print(number, flush=True)
"""


def test_a_thread_that_must_not_wait_does_not(path: Path) -> None:
    with Journal.open(path) as journal, journal.reopen(0.0) as hasty:
        hasty.runs.record_start("slurm", "7")
        with journal.transaction(), pytest.raises(JournalBusyError, match="locked"):
            hasty.runs.record_start("slurm", "8")
        hasty.runs.record_start("slurm", "9")
        assert [run.job for run in journal.runs.list_open()] == ["7", "9"]
    with Journal.in_memory() as journal:
        assert journal.reopen(0.0) is journal
    with Journal.open(path) as journal:
        path.unlink()
        path.mkdir()
        assert journal.reopen(0.0) is journal


def test_one_long_wait_is_enough(path: Path) -> None:
    """A journal that somebody has locked for hours does not cost ten seconds for each line."""
    with Journal.open(path) as other, other.reopen(0.2) as journal:
        waits = lambda: journal.database.connection.execute("PRAGMA busy_timeout").fetchone()[0]  # noqa: E731
        with other.transaction(), pytest.raises(JournalBusyError):
            journal.runs.record_start("slurm", "7")
        assert waits() == 2
        journal.runs.record_start("slurm", "7")
        assert waits() == 200


def test_what_was_written_survives_kill_9_in_the_middle(path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", WRITE_FOR_EVER, str(path)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line == "200\n":
            break
    process.send_signal(signal.SIGKILL)
    said = 200 + len(process.stdout.readlines())
    process.wait()
    with Journal.open(path) as journal:
        runs = journal.history(limit=10**6)
        assert said <= len(runs) <= said + 1
        assert all(run["ended"] is not None for run in runs[:said])
        journal.runs.record_start("slurm", "next")


@pytest.mark.parametrize(
    "content", [b"this is no database\n" * 400, b"SQLite format 3\0" + b"\xff" * 5000]
)
def test_a_damaged_file_is_a_clear_error_and_is_left_alone(path: Path, content: bytes) -> None:
    path.parent.mkdir(mode=0o700)
    path.write_bytes(content)
    with pytest.raises(JournalError, match=r"journal\.db: .*move it away"):
        Journal.open(path)
    assert path.read_bytes() == content


def test_damage_in_the_middle_is_a_clear_error(path: Path) -> None:
    with Journal.open(path) as journal:
        for number in range(300):
            journal.runs.record_start("slurm", str(number))
    whole = path.read_bytes()
    path.write_bytes(whole[:4096] + b"\xa5" * (len(whole) - 4096))
    with (
        pytest.raises(JournalError, match="damaged; move it away"),
        Journal.open(path) as journal,
    ):
        journal.runs.record_start("slurm", "new")
        journal.history()


def test_a_newer_schema_is_not_touched(path: Path) -> None:
    Journal.open(path).close()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(JournalError, match="newer schedhook"):
        Journal.open(path)


def test_a_strangers_database_is_not_taken_for_a_journal(path: Path) -> None:
    path.parent.mkdir(mode=0o700)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE jobs (something TEXT)")
    path.chmod(0o600)
    with pytest.raises(JournalError, match="move it away"):
        Journal.open(path)


def test_others_can_neither_read_nor_write_it(path: Path) -> None:
    with Journal.open(path) as journal:
        journal.runs.record_start("slurm", "7")
        assert path.parent.stat().st_mode & 0o777 == 0o700
        for file in path.parent.iterdir():
            assert file.stat().st_mode & 0o777 == 0o600, file


@pytest.mark.parametrize("mode", [0o770, 0o707])
def test_a_directory_that_others_write_is_refused(path: Path, mode: int) -> None:
    path.parent.mkdir()
    path.parent.chmod(mode)
    with pytest.raises(JournalError, match="may be written by others"):
        Journal.open(path)


def test_a_link_in_its_place_is_not_followed(path: Path, tmp_path: Path) -> None:
    path.parent.mkdir(mode=0o700)
    victim = tmp_path / "victim"
    victim.write_text("precious")
    path.symlink_to(victim)
    with pytest.raises(JournalError):
        Journal.open(path)
    assert victim.read_text() == "precious"


def in_child(work: str, path: Path, *, before: str = "") -> str:
    """Run `work` on a journal in another process; what it prints."""
    program = f"""
import os, resource, sys
from pathlib import Path
from typing import Any
from schedhook.journal.errors import JournalError
from schedhook.journal.journal import Journal
path = Path(sys.argv[1])
{before}
{work}
"""
    result = subprocess.run(
        [sys.executable, "-c", program, str(path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_a_directory_without_the_right_to_write(path: Path) -> None:
    Journal.open(path).close()
    path.parent.chmod(0o755)
    path.chmod(0o644)
    said = in_child(
        """
try:
    Journal.open(path).runs.record_start("slurm", "7")
except JournalError as error:
    print(error)
""",
        path,
        before=f"if os.geteuid() == 0: os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})\n"
        "else: os.chmod(path, 0o400)",
    )
    assert str(path) in said
    assert "Permission denied" in said


def test_a_full_disk_is_a_clear_error_and_what_was_there_stays(path: Path) -> None:
    with Journal.open(path) as journal:
        journal.runs.record_start("slurm", "before")
    said = in_child(
        """
journal = Journal.open(path)
try:
    for number in range(100_000):
        journal.runs.record_start("slurm", str(number))
except JournalError as error:
    print(error)
journal.runs.latest("slurm", "before").job
""",
        path,
        # A file that may not grow is as good as a disk that is full.
        before="import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))",
    )
    assert "the disk" in said
    with Journal.open(path) as journal:
        assert journal.runs.latest("slurm", "before") is not None
        journal.runs.record_start("slurm", "after")


def test_without_room_from_the_start_the_error_is_as_clear(path: Path) -> None:
    said = in_child(
        """
try:
    Journal.open(path)
except JournalError as error:
    print(error)
""",
        path,
        before="import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))",
    )
    assert "the disk" in said


def test_errors_are_the_domains(path: Path) -> None:
    assert issubclass(JournalError, SchedhookError)
    with pytest.raises(JournalError, match="cannot be used"):
        Journal.open(path, create=False)


def test_the_default_path_depends_on_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    in_home = Path("~/.local/state/schedhook/journal.db").expanduser()
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert journal_path(Config(), {}) == Path("/var/lib/schedhook/journal.db")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert journal_path(Config(), {"XDG_STATE_HOME": "/s"}) == Path("/s/schedhook/journal.db")
    assert journal_path(Config(), {"XDG_STATE_HOME": "s"}) == in_home


def test_the_configured_path_comes_first() -> None:
    config = Config(journal=JournalSection(path="/j"))
    assert journal_path(config, {"XDG_STATE_HOME": "/s"}) == Path("/j")


def test_a_job_that_never_rests_does_not_fill_the_disk(journal: Journal) -> None:
    now = time.time()
    for number in range(60):
        at = now - 60 + number
        journal.events.finish(
            journal.events.put(Event(scheduler="s", point="look", job="1"), at) or 0, ""
        )
        nodes = NodeSet([number % 2])
        journal.placements.record(
            "s", "1", {"a": Placement(cpus=CpuSet([number]), nodes=nodes)}, at=at
        )
    journal.placements.record(
        "s", "1", {"quiet": Placement(cpus=CpuSet([7]), nodes=NodeSet([3]))}, at=now - 90
    )
    waiting = journal.events.put(Event(scheduler="s", point="prolog", job="1"), now - 99)
    before = journal.placements.known_tasks("s", "1")
    journal.prune(90, per_job=10)
    (run,) = journal.history("1")
    assert [number for number, _, _ in journal.events.list_unfinished()] == [waiting]
    assert journal.placements.known_tasks("s", "1") == before
    assert len([seen for seen in run["placements"] if seen["task"] == "a"]) == 10
    assert len([seen for seen in run["placements"] if seen["task"] == "quiet"]) == 1


def test_pruning_keeps_where_a_wandering_task_is_at_home(journal: Journal) -> None:
    journal.placements.record("s", "1", {"a": Placement(cpus=CpuSet([0]), nodes=NodeSet([0]))})
    for number in range(30):
        place = Placement(cpus=CpuSet([number]), nodes=NodeSet([1 + number % 3]))
        journal.placements.record("s", "1", {"a": place}, settled=False)
    before = journal.placements.known_tasks("s", "1")
    journal.prune(90, per_job=10)
    assert journal.placements.known_tasks("s", "1") == before
    assert str(before["a"].visited) == "1-3"


# -- damaged rows --------------------------------------------------------------------------------


def damage(path: Path, table: str, change: str, number: int | None = None) -> int:
    """Change the row of that number, or the first one; its number."""
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        if number is None:
            (number,) = database.execute(f"SELECT min(rowid) FROM {table}").fetchone()
        database.execute(f"UPDATE {table} SET {change} WHERE rowid = {number}")
        return number


def tell_much(journal: Journal, job: str) -> None:
    """Something in every table, about one job that runs."""
    journal.runs.record_start("slurm", job, user=1000, at=10.0)
    journal.placements.record("slurm", job, {"0": at("1", "0")}, at=11.0)
    journal.events.put(Event(scheduler="slurm", point="prolog", job=job), 12.0)
    journal.overrides.set(
        "slurm", job, PlacementOverride(was=at("0", "0"), placement=at("1", "0"), at=13.0)
    )
    journal.notes.set("slurm", job, "parked", "{}")
    report = Report(
        outcome=Outcome.COMPLETE, strategy=job, backend="b", node_map=NodeMap(pairs={0: 1}), job=job
    )
    journal.reports.add(report, "slurm")


def all_of(journal: Journal) -> dict[str, Any]:
    """What each read tells of two such jobs."""
    return {
        "runs": [
            (run.job, journal.runs.latest("slurm", run.job)) for run in journal.runs.list_open()
        ],
        "seen": [journal.placements.known_tasks("slurm", job) for job in ("7", "8")],
        "overrides": [journal.overrides.get("slurm", job) for job in ("7", "8")],
        "notes": [journal.notes.get("slurm", job, "parked", json.loads) for job in ("7", "8")],
        "noted": [run.job for run in journal.notes.runs_with("parked")],
        "events": [event.job for _, _, event in journal.events.list_unfinished()],
        "counters": len(journal.counters.read()),
        "history": {
            run["job"]: [len(run[key] or ()) for key in ("placements", "reports", "override")]
            for run in journal.history()
        },
    }


NO_TEXT = "CAST(x'37ff' AS TEXT)"
DEEP = "[" * 100_000
DAMAGE = [
    *(("events", f"data = {value}") for value in ("'{'", "'[]'", "'7'", f"'{DEEP}'", NO_TEXT)),
    ("events", "data = x'7b7d'"),
    ("events", "at = 'noon'"),
    ("events", "at = 1e300"),
    ("events", "at = 9e999"),
    ("events", "user = 'root'"),
    ("events", f"host = {NO_TEXT}"),
    *(("placements", f"cpus = {value}") for value in ("'1-'", "x'31'", "'0-99999999999'", NO_TEXT)),
    ("placements", "nodes = 'x'"),
    ("placements", "settled = 'yes'"),
    ("overrides", "data = '[1]'"),
    ("overrides", "data = '{\"leaving\": 5.5}'"),
    ("overrides", "was_cpus = '7-1'"),
    ("overrides", "at = ''"),
    ("notes", "text = '{'"),
    ("notes", f"text = {NO_TEXT}"),
    *(("reports", f"report = {value}") for value in ("'{'", "'{}'", "'[]'", f"'{DEEP}'", NO_TEXT)),
    ("reports", "report = replace(report, 'bytes_moved', 'bytes_mo')"),
    ("counters", "series = '{}'"),
    ("counters", "series = '['"),
    ("counters", "value = 'much'"),
    ("runs", "user = 'root'"),
    ("runs", "hooked = x'01'"),
    ("runs", "started = 'never'"),
]


@pytest.mark.parametrize(("table", "change"), DAMAGE, ids=lambda text: text[:40])
def test_a_damaged_row_costs_itself_only(
    path: Path, capsys: pytest.CaptureFixture[str], table: str, change: str
) -> None:
    with Journal.open(path) as journal:
        for job in ("7", "8"):
            tell_much(journal, job)
        whole = all_of(journal)
        number = damage(path, table, change)
        left = all_of(journal)
        lines = capsys.readouterr().err.splitlines()
        assert [json.loads(line)["row"] for line in lines] == [f"{table} {number}"]
        assert "set aside" in lines[0]
        assert all_of(journal) == left
        assert journal.counts().damaged == 1
    with Journal.open(path) as journal:
        assert all_of(journal) == left
        assert not capsys.readouterr().err
    differs = {key for key in whole if whole[key] != left[key]}
    told = {
        "events": {"events"},
        "placements": {"seen", "history"},
        "overrides": {"overrides", "history"},
        "notes": {"notes", "noted"},
        "reports": {"history"},
        "counters": {"counters"},
        "runs": {"runs"},
    }
    assert differs == told[table]


def rows_aside(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """What was set aside: table, and what the row held."""
    with contextlib.closing(sqlite3.connect(path)) as database:
        found = database.execute("SELECT origin, content FROM damaged ORDER BY id").fetchall()
    return [(table, json.loads(content)) for table, content in found]


@pytest.mark.parametrize("change", ["ended = 'soon'", f"scheduler = {NO_TEXT}"])
def test_with_a_run_that_cannot_be_mended_goes_what_belongs_to_it(
    journal: Journal, path: Path, change: str
) -> None:
    for job in ("7", "8"):
        tell_much(journal, job)
    damage(path, "runs", change)
    assert [run["job"] for run in journal.history()] == ["8"]
    aside = rows_aside(path)
    assert [table for table, _ in aside] == ["runs", "placements", "overrides", "notes"]
    assert (aside[0][1]["job"], aside[1][1]["cpus"]) == ("7", "1")
    journal.runs.record_start("slurm", "7", at=20.0)
    assert [run.job for run in journal.runs.list_open()] == ["8", "7"]
    assert journal.placements.known_tasks("slurm", "7") == {}


def test_a_run_with_a_damaged_start_ends_like_others(journal: Journal, path: Path) -> None:
    tell_much(journal, "7")
    damage(path, "runs", "started = ''")
    journal.runs.record_start("slurm", "7", user=1000)
    assert journal.runs.record_end("slurm", "7", at=time.time() + 1)
    (run,) = journal.history("7")
    assert run["user"] == 1000


@pytest.mark.parametrize("change", ["pid = 'x' || char(0)", "start_time = 'early'"])
def test_a_damaged_hold_holds_nobody(journal: Journal, path: Path, change: str) -> None:
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        far = time.time() + 999
        database.execute("INSERT INTO locks VALUES ('slurm', '7', 1, 1, ?)", (far,))
    damage(path, "locks", change)
    with journal.locks.acquire("slurm", "7"):
        assert journal.counts().damaged == 1


def test_an_event_with_a_damaged_result_may_be_taken_anew(journal: Journal, path: Path) -> None:
    number = journal.events.put(event(), 5.0)
    assert number is not None
    journal.events.finish(number, "started")
    damage(path, "events", "summary = x'00'")
    assert journal.events.find(event(), 5.0) is None
    assert journal.events.put(event(), 5.0) is not None


def test_while_it_cannot_be_set_aside_a_damaged_row_is_left_out(
    journal: Journal, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for job in ("7", "8"):
        journal.events.put(event(job), 5.0)
    damage(path, "events", "data = '{'")
    hurried = journal.reopen(0.05)
    with contextlib.closing(sqlite3.connect(path)) as other, contextlib.closing(hurried):
        other.execute("BEGIN IMMEDIATE")
        assert [found.job for _, _, found in hurried.events.list_unfinished()] == ["8"]
        line = json.loads(capsys.readouterr().err)
        assert line["event"] == "damaged row left out"
        assert "locked" in line["not_set_aside"]
        other.execute("ROLLBACK")
    assert [found.job for _, _, found in journal.events.list_unfinished()] == ["8"]
    assert [row["job"] for _, row in rows_aside(path)] == ["7"]


def test_what_was_set_aside_is_forgotten_with_the_rest(journal: Journal, path: Path) -> None:
    journal.events.put(event(), 5.0)
    damage(path, "events", "data = ''")
    assert journal.events.list_unfinished() == []
    journal.prune(1)
    assert journal.counts().damaged == 1
    damage(path, "damaged", "at = 5.0")
    journal.prune(1)
    assert journal.counts().damaged == 0
