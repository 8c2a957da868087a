"""The native backend on a host with one node: all that needs no second one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from schedhook.errors import ProcessGoneError
from schedhook.native.backend import NativeBackend
from schedhook.testing.native import NativeHooks
from schedhook.testing.processes import NativeProcess


class TestContract(NativeHooks):
    pass


def test_a_zombie_is_gone() -> None:
    with NativeProcess(nodes=[0]) as process:
        os.kill(process.pid, signal.SIGKILL)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        with pytest.raises(ProcessGoneError):
            NativeBackend().attach(process.pid)


def test_a_thread_is_no_process() -> None:
    program = "import threading; threading.Timer(60, int).start(); print('up', flush=True)"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout
        child.stdout.readline()
        threads = {int(path.name) for path in Path(f"/proc/{child.pid}/task").iterdir()}
        (thread,) = threads - {child.pid}
        try:
            with pytest.raises(ProcessGoneError):
                NativeBackend().attach(thread)
        finally:
            child.kill()


def test_descriptors_are_given_back() -> None:
    before = open_descriptors()
    backend = NativeBackend()
    with NativeProcess(nodes=[0]) as process:
        inside = open_descriptors()
        for _ in range(3):
            backend.attach(process.pid).close()
        for _ in range(3):
            with pytest.raises(ProcessGoneError):
                backend.attach(1 << 22)
        assert open_descriptors() == inside
    assert open_descriptors() == before


def open_descriptors() -> set[str]:
    return {path.name for path in Path("/proc/self/fd").iterdir()}
