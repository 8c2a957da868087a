"""What a guard puts back, and when; with real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from schedhook.control import rollback as guards
from schedhook.control.rollback import Rollback, recover, roll_back
from schedhook.host.processes import read_start_time


@pytest.fixture
def sleeper() -> Iterator[int]:
    with subprocess.Popen(["sleep", "600"]) as process:
        yield process.pid
        process.kill()


@pytest.fixture(autouse=True)
def records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where root's records are."""
    path = tmp_path / "guards"
    monkeypatch.setattr(guards, "DIRECTORY", str(path))
    return path


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def ignores(pid: int, number: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text()
    return bool(int(status.partition("SigIgn:")[2].split()[0], 16) & 1 << number - 1)


def test_what_was_not_forgotten_is_roll_back_last_first(tmp_path: Path) -> None:
    with Rollback() as guard:
        guard.record_file(tmp_path / "one", "first")
        guard.commit()
        guard.record_file(tmp_path / "a\nb", "first")
        guard.record_file(tmp_path / "a\nb", "second")
    assert not (tmp_path / "one").exists()
    assert (tmp_path / "a\nb").read_text() == "first"


def test_nothing_told_starts_nothing() -> None:
    with Rollback() as guard:
        guard.commit()
        assert guard._helper is None


def test_a_thread_gets_its_processors_again(sleeper: int) -> None:
    had = os.sched_getaffinity(sleeper)
    one = {min(had)}
    with Rollback() as guard:
        guard.record_affinity(sleeper, read_start_time(sleeper), one)
    assert os.sched_getaffinity(sleeper) == one


def test_another_thread_with_its_number_is_left_alone(sleeper: int) -> None:
    had = os.sched_getaffinity(sleeper)
    roll_back(b"bind\0%d 1\0%d\0" % (sleeper, min(had)))
    assert os.sched_getaffinity(sleeper) == had


def test_half_a_record_is_not_acted_on(tmp_path: Path) -> None:
    """Killed while it wrote."""
    path = os.fsencode(tmp_path / "one")
    roll_back(b"write\0%s\0old" % path)
    assert not (tmp_path / "one").exists()
    roll_back(b"write\0%s\0old\0write\0" % path)
    assert (tmp_path / "one").read_text() == "old"


GUARDED = """
import sys, time; from pathlib import Path; from schedhook.control import rollback as guards
guards.DIRECTORY = sys.argv[2]
with guards.Rollback() as guard:
    guard.record_file(Path(sys.argv[1]), 'old')
    print(guard._helper.pid, flush=True); time.sleep(600)
"""


@pytest.fixture
def guarded(tmp_path: Path, records: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A process that a guard puts `one` back for, and the guard's helper."""
    command = [sys.executable, "-P", "-c", GUARDED, str(tmp_path / "one"), str(records)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        helper = int(process.stdout.readline())
        wait_until(lambda: ignores(helper, signal.SIGTERM))
        yield process, helper
        process.kill()


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGKILL])
def test_it_outlives_its_process(
    tmp_path: Path,
    records: Path,
    guarded: tuple[subprocess.Popen[str], int],
    first: signal.Signals,
) -> None:
    """Also where a service manager sends SIGTERM to all of a service's processes."""
    process, helper = guarded
    if first is signal.SIGTERM:
        os.kill(helper, first)
    assert recover(str(records)) == 0, "somebody sees to it"
    assert not (tmp_path / "one").exists()
    process.kill()
    wait_until(lambda: not runs(helper))
    assert (tmp_path / "one").read_text() == "old"
    assert recover(str(records)) == 0


def test_without_its_helper_the_process_puts_back_itself(tmp_path: Path) -> None:
    with Rollback() as guard:
        guard.record_file(tmp_path / "one", "old")
        assert guard._helper
        guard._helper.kill()
        wait_until(lambda: not runs(guard._helper.pid))
        guard.record_file(tmp_path / "two", "old")
    assert (tmp_path / "one").read_text() == (tmp_path / "two").read_text() == "old"


@pytest.mark.skipif(os.geteuid() != 0, reason="others' records end with the last process")
def test_when_both_were_killed_the_next_one_puts_back(
    tmp_path: Path, records: Path, guarded: tuple[subprocess.Popen[str], int]
) -> None:
    process, helper = guarded
    os.kill(helper, signal.SIGKILL)
    process.kill()
    wait_until(lambda: not runs(process.pid) and not runs(helper))
    assert not (tmp_path / "one").exists()
    assert recover(str(records)) == 1
    assert (tmp_path / "one").read_text() == "old"
    assert list(records.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="makes a record of another user's")
def test_records_that_others_may_write_are_not_believed(tmp_path: Path, records: Path) -> None:
    records.mkdir(mode=0o777)
    records.chmod(0o777)
    (records / "1-1").write_bytes(b"write\0%s\0evil\0" % os.fsencode(tmp_path / "one"))
    assert recover(str(records)) == 0
    assert not (tmp_path / "one").exists()


def runs(pid: int) -> bool:
    """Whether there is such a process, and it is none that only waits to be waited for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
