from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from schedhook.backends.native.held import HeldProcess
from schedhook.host import processes
from schedhook.values.errors import ProcessGoneError, SchedhookError
from tests.unit.agentkit import wait_for

_LEAVE = """
import ctypes, os, threading
other = threading.Thread(target=os.read, args=(0, 1))
other.start()
threading.Thread(target=threading.Event().wait).start()
print(other.native_id, flush=True)
ctypes.CDLL(None).pthread_exit(None)
"""
"""A program whose first thread ends, and the next one once its standard input does."""


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "60"]) as child:
        yield child
        child.kill()


@pytest.fixture
def left() -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Yield a process whose first thread has ended, and the number of the next one."""
    command = [sys.executable, "-c", _LEAVE]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        other = int(process.stdout.readline())
        wait_for(lambda: processes.live_task(process.pid) == other, 20)
        yield process, other
        process.kill()


def test_a_running_process_is_not_exiting(child: subprocess.Popen[bytes]) -> None:
    held = HeldProcess(child.pid, Path("/"))
    assert not held.is_exiting()
    held.close()


def test_a_process_whose_number_is_reused_while_it_is_read_is_exiting(
    child: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The flags that are read are the other process's, which runs."""

    def read_another(*_: object) -> bool:
        child.send_signal(signal.SIGKILL)
        child.wait()
        return False

    held = HeldProcess(child.pid, Path("/"))
    monkeypatch.setattr(processes, "is_exiting", read_another)
    assert held.is_exiting()
    held.close()


def test_a_process_is_held_alive_until_it_exits(child: subprocess.Popen[bytes]) -> None:
    held = HeldProcess(child.pid, Path("/"))
    assert held.alive()
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not held.alive(), "its parent has yet to wait for it"
    child.wait()
    assert not held.alive()
    held.close()


def test_a_process_in_another_cgroup_is_not_held_alive(
    child: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cgroup's name becomes longer, which the beginning of the file does not show."""
    text = Path(f"/proc/{child.pid}/cgroup").read_bytes()
    monkeypatch.setattr(processes, "open_cgroup", lambda *_: (_file_with(text + b"x"), text))
    with pytest.raises(ProcessGoneError):
        HeldProcess(child.pid, Path("/"))


def test_the_cgroup_is_that_of_a_thread_that_has_not_ended(
    left: tuple[subprocess.Popen[bytes], int],
) -> None:
    """The first thread's own file does not show where the others are moved."""
    process, other = left
    held = HeldProcess(process.pid, Path("/"))
    files = {str(each.readlink()) for each in Path("/proc/self/fd").iterdir() if each.is_symlink()}
    assert f"/proc/{process.pid}/task/{other}/cgroup" in files
    assert held.alive()
    held.close()


def test_a_process_outlives_the_thread_by_which_it_is_held(
    left: tuple[subprocess.Popen[bytes], int],
) -> None:
    """It can be held again by the next one."""
    process, other = left
    held = HeldProcess(process.pid, Path("/"))
    assert process.stdin
    process.stdin.close()
    wait_for(lambda: processes.live_task(process.pid) != other, 20)
    assert held.alive()
    process.kill()
    process.wait()
    assert not held.alive()
    held.close()


def test_a_cgroup_that_the_kernel_cannot_show_is_an_error_of_ours(
    child: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any other error would end a relocation without a report."""
    unreadable = os.open("/", os.O_RDONLY)  # EISDIR, in place of ENAMETOOLONG
    monkeypatch.setattr(processes, "open_cgroup", lambda *_: (unreadable, b"0::/\n"))
    with pytest.raises(SchedhookError, match=f"cannot read /proc/{child.pid}/cgroup"):
        HeldProcess(child.pid, Path("/"))


def test_asking_whether_it_lives_opens_no_file(
    child: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relocation asks some twenty times for each process."""
    held = HeldProcess(child.pid, Path("/"))
    monkeypatch.setattr(os, "open", _must_not_open)
    monkeypatch.setattr(io, "open", _must_not_open)
    assert held.alive()
    monkeypatch.undo()
    held.close()


def test_no_call_begins_once_it_is_closed(child: subprocess.Popen[bytes]) -> None:
    """Another file can have the number of a descriptor by then."""
    held = HeldProcess(child.pid, Path("/"))
    held.close()
    begun: list[int] = []
    with pytest.raises(ProcessGoneError):
        held.call(lambda: begun.append(held.pidfd))
    assert not begun


def _file_with(text: bytes) -> int:
    file = os.memfd_create("cgroup")
    os.write(file, text)
    return file


def _must_not_open(*_: object, **__: object) -> NoReturn:
    raise AssertionError("a file is opened")
