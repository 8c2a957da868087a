"""The agent as a real process, with real sockets, real hooks and SIGKILL."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from schedhook.agent.sockets import lock
from schedhook.hook import delivery, fallback
from schedhook.host.processes import boot_time
from schedhook.journal.journal import Journal
from schedhook.values.errors import UsageError
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

# -- accepting events ------------------------------------------------------------------------------


def test_a_job_is_recorded_from_its_hooks(here: Path) -> None:
    with agent(here):
        for point in ("begin", "end"):
            result = hook(here, point, "7", "--strict", "--patience=20")
            assert (result.returncode, result.stderr) == (0, "")
        wait_for(lambda: [run for run in history(here) if run["ended"]])
    (run,) = history(here)
    assert (run["job"], run["user"]) == ("7", 1000)
    assert [event["summary"] for event in run["events"]] == ["started", "ended"]


def test_a_burst_of_jobs_is_recorded_with_each_job_once_and_ended(here: Path) -> None:
    with agent(here), ThreadPoolExecutor(10) as pool:
        for point in ("begin", "end"):
            results = pool.map(
                lambda n, point=point: hook(here, point, str(n), "--strict", "--patience=20"),
                range(50),
            )
            assert all(result.returncode == 0 for result in results)
        wait_for(lambda: len([run for run in history(here) if run["ended"]]) == 50)
    assert sorted(int(run["job"]) for run in history(here)) == list(range(50))
    assert not (here / "spool").exists(), "every event was sent over the socket"


def test_a_hook_that_waits_gets_the_result(here: Path) -> None:
    place(here, "7", {"0": ([os.getpid()], "0", "0")})
    with agent(here):
        hook(here, "begin", "7", "--wait")
        hook(here, "look", "7", "--wait")
        place(here, "7", {"0": ([os.getpid()], "2", "2")})
        result = hook(here, "resize", "7", "--wait", "--strict")
        assert result.stdout in (
            "0: moved 1.0 MiB 0:2, complete\n",
            "all in place\n",  # the watcher was faster than the hook
        )
    assert moves_of(here) == [{"job": "7", "pairs": {"0": 2}}]


def test_events_of_one_job_are_handled_in_order_and_do_not_delay_other_jobs(here: Path) -> None:
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
    """A sys.exit() in a library would end it with status 0, and systemd would not restart it."""
    with agent(here):
        assert "SystemExit" in say(here, message("begin", EXITS_WHEN_READ))
        place(here, EXITS_WHEN_ASKED, {"0": ([os.getpid()], "0", "0")})
        for _ in range(5):  # more than there are workers
            answer = say(here, message("look", EXITS_WHEN_ASKED, wait=True))
            assert "failed: SystemExit" in answer
        place(here, "7", {"0": ([os.getpid()], "0", "0")})
        assert "started" in say(here, message("begin", "7", wait=True))
        wait_for(lambda: "cannot watch" in (here / "agent.log").read_text())


# -- garbage and slow clients ----------------------------------------------------------------------


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
def test_garbage_is_refused_and_changes_nothing(here: Path, raw: bytes) -> None:
    with agent(here):
        answer = say(here, raw)
        assert answer.endswith("\n")
        assert not answer.startswith("ok")
        assert say(here, message("begin", "good")) == "ok\n"
        wait_for(lambda: started(here) == {"good"})


def test_an_endless_message_is_refused(here: Path) -> None:
    with agent(here), connect(here) as connection:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for _ in range(64):
                connection.sendall(b"x" * 65536)
        with contextlib.suppress(ConnectionResetError):
            assert b"more than" in connection.recv(1000)
        assert say(here, message("begin", "7")) == "ok\n"


def test_slow_clients_delay_no_other_client_and_are_dropped(here: Path) -> None:
    with agent(here), contextlib.ExitStack() as stack:
        slow = [stack.enter_context(connect(here)) for _ in range(100)]
        for connection in slow:
            connection.sendall(message("begin", "slow")[:10])
        before = time.monotonic()
        assert say(here, message("begin", "7")) == "ok\n"
        assert time.monotonic() - before < 2
        assert slow[0].recv(100) == b"too slow\n"


def test_clients_that_do_not_read_the_result_cost_nothing(here: Path) -> None:
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


# -- stopping, starting, recovering ----------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_an_agent_ends_cleanly_at_a_signal(here: Path, number: int) -> None:
    with agent(here) as process:
        say(here, message("begin", "7", wait=True))
        process.send_signal(number)
        assert process.wait(20) == 0
    assert not (here / "agent.sock").exists()
    assert '"agent stopped"' in (here / "agent.log").read_text()
    assert started(here) == {"7"}


def test_an_accepted_event_survives_a_kill(here: Path) -> None:
    (here / "options.json").write_text(json.dumps({"delay": 60}))
    place(here, "7", {"0": ([os.getpid()], "0", "0")})
    with agent(here) as process:
        say(here, message("look", "7", wait=True))
        place(here, "7", {"0": ([os.getpid()], "2", "2")})
        assert say(here, message("resize", "7")) == "ok\n"
        assert say(here, message("end", "7")) == "ok\n"  # waits for the relocation
        process.kill()
        process.wait()
    (here / "options.json").unlink()
    with agent(here):
        wait_for(lambda: [run for run in history(here) if run["ended"]])
    assert moves_of(here) == [{"job": "7", "pairs": {"0": 2}}]


def test_events_in_the_spool_are_accepted(here: Path) -> None:
    for point in ("begin", "end"):
        for job in ("1", "2"):
            hook(here, point, job)
    (here / "spool" / "0bad.event").write_bytes(b"garbage")
    (here / "spool" / "directory.event").mkdir()
    assert len(list((here / "spool").glob("*.event"))) == 6
    with agent(here):
        wait_for(lambda: len([run for run in history(here) if run["ended"]]) == 2)
        assert [path.name for path in (here / "spool").iterdir()] == ["directory.event"]
        # Written by a hook that found no agent just before this one started.
        fallback.write_spool(message("begin", "3"), str(here / "spool"))
        wait_for(lambda: "3" in started(here))
    assert started(here) == {"1", "2", "3"}


def test_a_message_sent_over_socket_and_spool_counts_once(here: Path) -> None:
    raw = message("begin", "7")
    (here / "spool").mkdir(mode=0o700)
    fallback.write_spool(raw, str(here / "spool"))
    with agent(here):
        wait_for(lambda: "7" in started(here))
        assert say(here, raw) == "ok\n"
    (run,) = history(here)
    assert len(run["events"]) == 1


def test_no_event_is_lost_or_doubled_while_the_agent_hangs(here: Path) -> None:
    """Hooks leave it in the spool as well; the agent then finds it in its socket, too."""
    with agent(here) as process:
        process.send_signal(signal.SIGSTOP)
        try:
            for point in ("begin", "end"):
                for job in ("1", "2"):
                    assert "the event is kept in" in hook(here, point, job, "--strict").stdout
        finally:
            process.send_signal(signal.SIGCONT)
        wait_for(lambda: not list((here / "spool").iterdir()))
        wait_for(lambda: len([run for run in history(here) if run["ended"]]) == 2)
    assert [len(run["events"]) for run in history(here)] == [2, 2]


def test_runs_from_before_a_reboot_are_closed(here: Path) -> None:
    with Journal.open(here / "state" / "journal.db") as journal:
        journal.runs.record_start("fake", "old", at=boot_time() - 100)
        journal.runs.record_start("fake", "new")
    with agent(here):
        wait_for(lambda: [run for run in history(here) if run["ended"]])
    assert [run["job"] for run in history(here) if run["ended"] is None] == ["new"]


def test_a_change_of_the_clock_is_not_taken_for_a_reboot(here: Path) -> None:
    """A host may boot with a wrong clock, and start jobs before the clock is set."""
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


def test_a_parked_job_that_was_resumed_without_an_agent_is_moved_back(here: Path) -> None:
    place(here, "7", {"0": ([os.getpid()], "0", "0")})
    with Journal.open(here / "state" / "journal.db") as journal:
        journal.runs.record_start("fake", "7")
        parked = {"tasks": {"0": {"home": "0", "nodes": {"0": 3}}}, "widened": False}
        journal.notes.set("fake", "7", "parked", json.dumps(parked))
    with agent(here):
        wait_for(lambda: moves_of(here))
    assert [move["pairs"] for move in moves_of(here)] == [{"3": 0}]


def test_a_damaged_event_does_not_hide_others(here: Path) -> None:
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


def test_events_are_kept_in_the_spool_while_the_journal_is_locked(here: Path) -> None:
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
def test_a_file_that_cannot_be_removed_from_the_spool_delays_no_event(here: Path) -> None:
    """It may be immutable, in use or on a broken disk; or it may be a directory."""
    first = Path(fallback.write_spool(message("begin", "1"), str(here / "spool")))
    directory = here / "spool" / "0.tmp"
    directory.mkdir()
    os.utime(directory, (0, 0))
    fallback.write_spool(message("begin", "2"), str(here / "spool"))
    subprocess.run(["mount", "--bind", first, first], check=True)
    try:
        with agent(here):
            wait_for(lambda: started(here) == {"1", "2"})
            fallback.write_spool(message("begin", "3"), str(here / "spool"))
            wait_for(lambda: started(here) == {"1", "2", "3"})
            wait_for(lambda: {*(here / "spool").iterdir()} == {directory, first})
        assert (here / "agent.log").read_text().count("cannot remove spooled event") == 1
    finally:
        subprocess.run(["umount", first], check=True)


def test_a_spool_whose_time_of_change_stays_the_same_is_read(here: Path) -> None:
    """A file system's clock has ticks; files may be added within the same tick."""
    (here / "spool").mkdir(mode=0o700)
    tick = time.time_ns()

    def stand_still() -> None:
        os.utime(here / "spool", ns=(tick, tick))

    with agent(here):
        for job in ("1", "2", "3"):
            fallback.write_spool(message("begin", job), str(here / "spool"))
            tick = time.time_ns() + 10**11
            stand_still()
            wait_for(lambda job=job: job in started(here))
            stand_still()
            time.sleep(0.2)  # the agent looks several times
            fallback.write_spool(message("begin", f"1{job}"), str(here / "spool"))
            stand_still()
            wait_for(lambda job=job: f"1{job}" in started(here))


def test_hooks_and_agent_go_on_with_a_full_disk(here: Path) -> None:
    """The journal's files must not grow, as on a full disk.

    Nor may the interpreter write bytecode: it would leave the first 4 KiB of each module's, which
    every later test would fail to import.
    """
    limited = (
        "import resource, runpy, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "sys.argv = sys.argv[1:];"
        "from schedhook.journal.journal import Journal; from pathlib import Path;"
        "Journal.open(Path(sys.argv[1]) / 'state' / 'journal.db').close();"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096));"
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    with (here / "agent.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-B", "-c", limited, agentkit.__file__, str(here)],
            stderr=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": str(agentkit.HOOK.parents[1])},
        )
        try:
            wait_for(lambda: agentkit.answers(here / "agent.sock"))
            for point in ("begin", "end"):
                result = hook(here, point, "7", "--strict", "--patience=20")
                assert (result.returncode, result.stderr) == (0, "")
            assert process.poll() is None
        finally:
            process.terminate()
            log.write(process.communicate(timeout=20)[1])
    assert "the disk" in (here / "agent.log").read_text()
