from __future__ import annotations

import io
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from schedhook.backends.native.held import HeldProcess
from schedhook.host import processes
from schedhook.values.errors import ProcessGoneError, SchedhookError


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "60"]) as child:
        yield child
        child.kill()


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
