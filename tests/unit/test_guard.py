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

from schedhook.guard import Guard, put_back


@pytest.fixture
def sleeper() -> Iterator[int]:
    with subprocess.Popen(["sleep", "600"]) as process:
        yield process.pid
        process.kill()


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def ignores(pid: int, number: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text()
    return bool(int(status.partition("SigIgn:")[2].split()[0], 16) & 1 << number - 1)


def test_what_was_not_forgotten_is_put_back_last_first(tmp_path: Path) -> None:
    with Guard() as guard:
        guard.write_back(tmp_path / "one", "first")
        guard.forget()
        guard.write_back(tmp_path / "a\nb", "first")
        guard.write_back(tmp_path / "a\nb", "second")
    assert not (tmp_path / "one").exists()
    assert (tmp_path / "a\nb").read_text() == "first"


def test_nothing_told_starts_nothing() -> None:
    with Guard() as guard:
        guard.forget()
        assert guard._helper is None


def test_a_thread_gets_its_processors_again(sleeper: int) -> None:
    had = os.sched_getaffinity(sleeper)
    one = {min(had)}
    with Guard() as guard:
        guard.bind_back(sleeper, one)
    assert os.sched_getaffinity(sleeper) == one


def test_another_thread_with_its_number_is_left_alone(sleeper: int) -> None:
    had = os.sched_getaffinity(sleeper)
    put_back(b"bind\0%d 1\0%d\0" % (sleeper, min(had)))
    assert os.sched_getaffinity(sleeper) == had


def test_half_a_record_is_not_acted_on(tmp_path: Path) -> None:
    """Killed while it wrote."""
    path = os.fsencode(tmp_path / "one")
    put_back(b"write\0%s\0old" % path)
    assert not (tmp_path / "one").exists()
    put_back(b"write\0%s\0old\0write\0" % path)
    assert (tmp_path / "one").read_text() == "old"


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGKILL])
def test_it_outlives_its_process(tmp_path: Path, first: signal.Signals) -> None:
    """Also where a service manager sends SIGTERM to all of a service's processes."""
    program = (
        "import sys, time; from pathlib import Path; from schedhook.guard import Guard\n"
        "with Guard() as guard:\n"
        "    guard.write_back(Path(sys.argv[1]), 'old')\n"
        "    print(guard._helper.pid, flush=True); time.sleep(600)"
    )
    command = [sys.executable, "-P", "-c", program, str(tmp_path / "one")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        helper = int(process.stdout.readline())
        wait_until(lambda: ignores(helper, signal.SIGTERM))
        if first is signal.SIGTERM:
            os.kill(helper, first)
        assert not (tmp_path / "one").exists()
        process.kill()
    wait_until((tmp_path / "one").exists)
    assert (tmp_path / "one").read_text() == "old"
