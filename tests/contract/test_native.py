"""The native backend on a host with one node."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from schedhook.backends.native.backend import NativeBackend
from schedhook.roles.strategy import Pages
from schedhook.testing.contracts.page_plans import make_page_move
from schedhook.testing.native import NativeHooks
from schedhook.testing.processes import NativeProcess
from schedhook.values.errors import ProcessGoneError


class TestContract(NativeHooks):
    pass


def test_a_zombie_is_gone() -> None:
    with NativeProcess(nodes=[0]) as process:
        os.kill(process.pid, signal.SIGKILL)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        with pytest.raises(ProcessGoneError):
            NativeBackend().attach(process.pid)


def test_a_thread_is_not_a_process() -> None:
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


def test_shared_memory_is_queried_wherever_it_is_mapped() -> None:
    """Two processes share a segment: each has touched its own half, and both one page."""
    with (
        NativeProcess(nodes=[0] * 16 + [None] * 16, shared=True) as one,
        NativeProcess(nodes=[None] * 15 + [0] * 17, share_with=one) as two,
        NativeBackend().attach(one.pid) as first,
        NativeBackend().attach(two.pid) as second,
    ):
        asked: list[tuple[int, int, int]] = []

        def choose(pages: Pages) -> None:
            if one.start <= pages.start < one.end:
                index = (pages.start - one.start) // one.unit
                asked.append((pages.pid, index, len(pages.addresses)))

        make_page_move(NativeBackend(), first, (0,), second).plan_pages(choose)
        assert asked == [(one.pid, 0, 15), (two.pid, 15, 17)]


def test_descriptors_are_closed() -> None:
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
