"""The agent: a real process with real sockets, real hooks, and kill -9."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from schedhook.agent.oneshot import handle_message
from schedhook.agent.sockets import lock
from schedhook.agent.systemd import notify_systemd
from schedhook.hook import delivery
from schedhook.hook.message import parse_message
from schedhook.host.processes import boot_time
from schedhook.journal.journal import Journal
from schedhook.values.config import Config, JournalSection
from schedhook.values.errors import UsageError
from schedhook.values.model import Event
from tests.unit import agentkit
from tests.unit.agentkit import (
    EXITS_WHEN_ASKED,
    EXITS_WHEN_READ,
    agent,
    connect,
    event,
    history,
    hook,
    message,
    moves_of,
    place,
    processor_time,
    say,
    started,
    wait_for,
)

# -- events in -----------------------------------------------------------------------------------


def test_a_job_goes_from_hook_to_journal(here: Path) -> None:
    with agent(here):
        for point in ("begin", "end"):
            result = hook(here, point, "7", "--strict")
            assert (result.returncode, result.stderr) == (0, "")
        wait_for(lambda: [run for run in history(here) if run["ended"]])
    (run,) = history(here)
    assert (run["job"], run["user"]) == ("7", 1000)
    assert [event["summary"] for event in run["events"]] == ["started", "ended"]


def test_a_burst_of_jobs_is_in_the_journal_each_once_and_closed(here: Path) -> None:
    with agent(here), ThreadPoolExecutor(10) as pool:
        for point in ("begin", "end"):
            results = pool.map(
                lambda n, point=point: hook(here, point, str(n), "--strict"), range(50)
            )
            assert all(result.returncode == 0 for result in results)
        wait_for(lambda: len([run for run in history(here) if run["ended"]]) == 50)
    assert sorted(int(run["job"]) for run in history(here)) == list(range(50))
    assert not (here / "spool").exists(), "every one went by the socket"


def test_who_waits_hears_what_was_done(here: Path) -> None:
    place(here, "7", {"0": ([os.getpid()], "0", "0")})
    with agent(here):
        hook(here, "begin", "7", "--wait")
        hook(here, "look", "7", "--wait")
        place(here, "7", {"0": ([os.getpid()], "2", "2")})
        result = hook(here, "resize", "7", "--wait", "--strict")
        assert result.stdout in (
            "0: moved 1.0 MiB 0:2, complete\n",
            "all in place\n",  # the watcher was faster
        )
    assert moves_of(here) == [{"job": "7", "pairs": {"0": 2}}]


def test_one_jobs_events_wait_for_one_another_and_other_jobs_do_not(here: Path) -> None:
    (here / "options.json").write_text(json.dumps({"delay": 1.5}))
    place(here, "7", {"0": ([os.getpid()], "0", "0")})
    with agent(here):
        hook(here, "look", "7", "--wait")
        place(here, "7", {"0": ([os.getpid()], "2", "2")})
        assert say(here, message("resize", "7")) == "ok\n"
        before = time.monotonic()
        assert "started" in say(here, message("begin", "8", wait=True))
        assert time.monotonic() - before < 1.4
        assert moves_of(here) == []
        assert "ended" in say(here, message("end", "7", wait=True))
        assert time.monotonic() - before >= 1.4
    assert len(moves_of(here)) == 1


def test_an_adapter_that_exits_does_not_end_the_agent(here: Path) -> None:
    """A library's sys.exit() would end it well, and nothing would start it again."""
    with agent(here):
        assert "SystemExit" in say(here, message("begin", EXITS_WHEN_READ))
        place(here, EXITS_WHEN_ASKED, {"0": ([os.getpid()], "0", "0")})
        for _ in range(5):  # more than there are workers
            answer = say(here, message("look", EXITS_WHEN_ASKED, wait=True))
            assert "failed: SystemExit" in answer
        place(here, "7", {"0": ([os.getpid()], "0", "0")})
        assert "started" in say(here, message("begin", "7", wait=True))
        wait_for(lambda: "cannot watch" in (here / "agent.log").read_text())


# -- strangers -----------------------------------------------------------------------------------


GARBAGE = {
    "nothing": b"",
    "zeros": b"\0" * 100,
    "http": b"GET / HTTP/1.1\r\n\r\n",
    "the beginning": delivery.MAGIC,
    "a path as job": message("begin", "../../etc/passwd"),
    "no job": message("begin", ""),
    "no adapter": message("begin", "7").replace(b"fake", b"none"),
    "a list as job": delivery.make_message("fake", "begin", {}, b'{"job": []}', False),
    "open braces": delivery.make_message("fake", "begin", {}, b"{" * 5000, False),
    "open brackets": delivery.make_message("fake", "begin", {}, b"[" * 100_000, False),
}


@pytest.mark.parametrize("raw", GARBAGE.values(), ids=GARBAGE)
def test_garbage_is_answered_and_changes_nothing(here: Path, raw: bytes) -> None:
    with agent(here):
        answer = say(here, raw)
        assert answer.endswith("\n")
        assert not answer.startswith("ok")
        assert say(here, message("begin", "good")) == "ok\n"
        wait_for(lambda: started(here) == {"good"})


def test_a_message_without_end_is_cut_off(here: Path) -> None:
    with agent(here), connect(here) as connection:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for _ in range(64):
                connection.sendall(b"x" * 65536)
        with contextlib.suppress(ConnectionResetError):
            assert b"more than" in connection.recv(1000)
        assert say(here, message("begin", "7")) == "ok\n"


def test_slow_clients_keep_nobody_waiting_and_are_left(here: Path) -> None:
    with agent(here), contextlib.ExitStack() as stack:
        slow = [stack.enter_context(connect(here)) for _ in range(100)]
        for connection in slow:
            connection.sendall(message("begin", "slow")[:10])
        before = time.monotonic()
        assert say(here, message("begin", "7")) == "ok\n"
        assert time.monotonic() - before < 2
        assert slow[0].recv(100) == b"too slow\n"


def test_a_client_that_leaves_without_listening_harms_nobody(here: Path) -> None:
    with agent(here) as process:
        for number in range(20):
            with connect(here) as connection:
                connection.sendall(message("begin", str(number), wait=True))
        assert say(here, message("begin", "7")) == "ok\n"
        before = processor_time(process.pid)
        time.sleep(1)
        assert processor_time(process.pid) - before < 0.5


def test_only_one_agent_serves_a_socket(here: Path) -> None:
    with agent(here):
        second = subprocess.run(
            [sys.executable, agentkit.__file__, str(here)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env=os.environ | {"PYTHONPATH": str(agentkit.HOOK.parents[1])},
        )
        assert second.returncode != 0
        assert "another agent" in second.stderr
        assert say(here, message("begin", "7")) == "ok\n"
        with pytest.raises(UsageError, match="another agent"), lock(here / "agent.sock"):
            pass


# -- ends and beginnings -------------------------------------------------------------------------


def test_sigterm_ends_it_cleanly(here: Path) -> None:
    with agent(here) as process:
        say(here, message("begin", "7", wait=True))
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    assert not (here / "agent.sock").exists()
    assert '"agent stopped"' in (here / "agent.log").read_text()
    assert started(here) == {"7"}


def test_an_event_is_accepted_only_when_it_can_no_longer_be_lost(here: Path) -> None:
    (here / "options.json").write_text(json.dumps({"delay": 60}))
    place(here, "7", {"0": ([os.getpid()], "0", "0")})
    with agent(here) as process:
        say(here, message("look", "7", wait=True))
        place(here, "7", {"0": ([os.getpid()], "2", "2")})
        assert say(here, message("resize", "7")) == "ok\n"
        assert say(here, message("end", "7")) == "ok\n"  # has to wait for the relocation
        process.kill()
        process.wait()
    (here / "options.json").unlink()
    with agent(here):
        wait_for(lambda: [run for run in history(here) if run["ended"]])
    assert moves_of(here) == [{"job": "7", "pairs": {"0": 2}}]


def test_what_hooks_left_in_the_spool_is_taken_up(here: Path) -> None:
    for point in ("begin", "end"):
        for job in ("1", "2"):
            hook(here, point, job)
    (here / "spool" / "0bad.event").write_bytes(b"garbage")
    (here / "spool" / "directory.event").mkdir()
    assert len(list((here / "spool").glob("*.event"))) == 6
    with agent(here):
        wait_for(lambda: len([run for run in history(here) if run["ended"]]) == 2)
        assert [path.name for path in (here / "spool").iterdir()] == ["directory.event"]
        # A hook that found no agent just before this one came.
        delivery.write_spool(message("begin", "3"), str(here / "spool"))
        wait_for(lambda: "3" in started(here))
    assert started(here) == {"1", "2", "3"}


def test_a_message_that_came_by_both_ways_counts_once(here: Path) -> None:
    raw = message("begin", "7")
    (here / "spool").mkdir(mode=0o700)
    delivery.write_spool(raw, str(here / "spool"))
    with agent(here):
        wait_for(lambda: "7" in started(here))
        assert say(here, raw) == "ok\n"
    (run,) = history(here)
    assert len(run["events"]) == 1


def test_jobs_of_before_the_boot_are_over(here: Path) -> None:
    with Journal.open(here / "state" / "journal.db") as journal:
        journal.runs.record_start("fake", "old", at=boot_time() - 100)
        journal.runs.record_start("fake", "new")
    with agent(here):
        wait_for(lambda: [run for run in history(here) if run["ended"]])
    assert [run["job"] for run in history(here) if run["ended"] is None] == ["new"]


def test_a_clock_that_is_set_makes_no_boot(here: Path) -> None:
    """Hosts start with a wrong clock, and jobs before it is set right."""
    path = here / "state" / "journal.db"
    with Journal.open(path) as journal:
        for job in ("before it was set forward", "of a boot ahead"):
            journal.runs.record_start("fake", job)
            journal.notes.set("fake", job, "key", "kept")
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("UPDATE runs SET started = 7 WHERE job LIKE '% forward'")
        connection.execute("UPDATE runs SET boot = 'another' WHERE job LIKE '% ahead'")
    with agent(here):
        wait_for(lambda: [run for run in history(here) if run["ended"]])
    with Journal.open(path) as journal:
        assert [run.job for run in journal.runs.list_open()] == ["before it was set forward"]
        assert journal.notes.get("fake", "before it was set forward", "key", str) == "kept"


def test_a_parked_job_that_went_on_while_no_agent_looked_comes_home(here: Path) -> None:
    place(here, "7", {"0": ([os.getpid()], "0", "0")})
    with Journal.open(here / "state" / "journal.db") as journal:
        journal.runs.record_start("fake", "7")
        parked = {"0": {"home": "0", "park": "3", "pairs": {"0": 3}}}
        journal.notes.set("fake", "7", "parked", json.dumps(parked))
    with agent(here):
        wait_for(lambda: moves_of(here))
    assert [move["pairs"] for move in moves_of(here)] == [{"3": 0}]


def test_a_damaged_event_hides_no_other_one(here: Path) -> None:
    path = here / "state" / "journal.db"
    with Journal.open(path) as journal:
        for number, job in enumerate(("1", "2", "3")):
            journal.events.put(event("begin", job), float(number))
    with closing(sqlite3.connect(path)) as other, other:
        other.execute("UPDATE events SET data = '{' WHERE job = '2'")
    for _ in range(2):
        with agent(here):
            wait_for(lambda: started(here) == {"1", "3"})
    log = (here / "agent.log").read_text()
    assert [json.loads(line)["row"] for line in log.splitlines() if "damaged" in line] == [
        "events 2"
    ]


def test_while_others_keep_the_journal_locked_events_are_kept_in_the_spool(here: Path) -> None:
    with agent(here) as process, closing(sqlite3.connect(here / "state" / "journal.db")) as other:
        other.execute("BEGIN IMMEDIATE")
        for job in ("1", "2", "3"):
            assert say(here, message("begin", job)) == "ok\n"
        assert len(list((here / "spool").glob("*.event"))) == 3
        process.kill()
        process.wait()
    with agent(here):
        wait_for(lambda: started(here) == {"1", "2", "3"})
        wait_for(lambda: not list((here / "spool").glob("*.event")))
        with closing(sqlite3.connect(here / "state" / "journal.db")) as other:
            other.execute("BEGIN IMMEDIATE")
            assert say(here, message("begin", "4")) == "ok\n"
        wait_for(lambda: "4" in started(here))
        wait_for(lambda: not list((here / "spool").iterdir()))
    assert [len(run["events"]) for run in history(here)] == [1] * 4


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file over itself")
def test_what_cannot_be_removed_from_the_spool_keeps_nothing_up(here: Path) -> None:
    """A file that is immutable, busy or of a broken disk; a directory in the place of a file."""
    first = Path(delivery.write_spool(message("begin", "1"), str(here / "spool")))
    directory = here / "spool" / "0.tmp"
    directory.mkdir()
    os.utime(directory, (0, 0))
    delivery.write_spool(message("begin", "2"), str(here / "spool"))
    subprocess.run(["mount", "--bind", first, first], check=True)
    try:
        with agent(here):
            wait_for(lambda: started(here) == {"1", "2"})
            delivery.write_spool(message("begin", "3"), str(here / "spool"))
            wait_for(lambda: started(here) == {"1", "2", "3"})
            wait_for(lambda: {*(here / "spool").iterdir()} == {directory, first})
        assert (here / "agent.log").read_text().count("cannot remove spooled event") == 1
    finally:
        subprocess.run(["umount", first], check=True)


def test_a_spool_whose_clock_stands_still_is_read(here: Path) -> None:
    """File systems tell times by ticks, in which much may happen."""
    (here / "spool").mkdir(mode=0o700)
    tick = time.time_ns()

    def stand_still() -> None:
        os.utime(here / "spool", ns=(tick, tick))

    with agent(here):
        for job in ("1", "2", "3"):
            delivery.write_spool(message("begin", job), str(here / "spool"))
            tick = time.time_ns() + 10**11
            stand_still()
            wait_for(lambda job=job: job in started(here))
            stand_still()
            time.sleep(0.2)  # several looks
            delivery.write_spool(message("begin", f"1{job}"), str(here / "spool"))
            stand_still()
            wait_for(lambda job=job: f"1{job}" in started(here))


def test_an_event_that_a_killed_agent_had_taken_is_handled_once(tmp_path: Path) -> None:
    """The hook has not heard `ok`, waits, and handles it itself."""
    config = replace(Config(), journal=JournalSection(path=str(tmp_path / "state/journal.db")))
    environ = {b"SLURM_JOB_ID": b"7", b"SLURM_JOB_UID": b"1000"}
    raw = delivery.make_message("slurm", "prolog", environ, b"", True)
    with Journal.open(Path(config.journal.path)) as journal:
        told = Event(scheduler="slurm", point="prolog", job="7", user=1000)
        journal.events.put(told, parse_message(raw).at)
        assert handle_message(raw, config).summary == "started"
        assert journal.events.list_unfinished() == []
        journal.runs.record_end("slurm", "7")
        assert handle_message(raw, config).summary == "started"
        (run,) = journal.history()
        assert len(run["events"]) == 1


def test_a_full_disk_stops_neither_hooks_nor_agent(here: Path) -> None:
    """The journal's files may not grow: as on a full disk."""
    limited = (
        "import resource, runpy, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        f"sys.argv = sys.argv[1:]; sys.path.insert(0, {str(Path(agentkit.__file__).parents[2])!r});"
        "from schedhook.journal.journal import Journal; from pathlib import Path;"
        "Journal.open(Path(sys.argv[1]) / 'state' / 'journal.db').close();"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096));"
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    with (here / "agent.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", limited, agentkit.__file__, str(here)],
            stderr=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": str(agentkit.HOOK.parents[1])},
        )
        try:
            wait_for(lambda: agentkit.answers(here / "agent.sock"))
            for point in ("begin", "end"):
                result = hook(here, point, "7", "--strict")
                assert (result.returncode, result.stderr) == (0, "")
            assert process.poll() is None
        finally:
            process.terminate()
            log.write(process.communicate(timeout=20)[1])
    assert "the disk" in (here / "agent.log").read_text()


# -- systemd -------------------------------------------------------------------------------------


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as link:
        link.bind(str(tmp_path / "notify"))
        link.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield link


def test_systemd_is_told(manager: socket.socket) -> None:
    notify_systemd("READY=1")
    assert manager.recv(100) == b"READY=1"


def test_an_agent_that_is_ready_says_so_and_says_when_it_stops(
    here: Path, manager: socket.socket
) -> None:
    with agent(here):
        assert manager.recv(100) == b"READY=1"
    assert manager.recv(100) == b"STOPPING=1"
