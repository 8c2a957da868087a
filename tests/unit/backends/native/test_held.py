from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from schedhook.backends.native.held import HeldProcess
from schedhook.host import processes


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
