"""Calls that another process's memory lock can hold up."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from schedhook.host.bounded import call_bounded
from schedhook.values.errors import NotAnsweringError, ProcessGoneError

_SECONDS = 0.3


class KernelWait:
    """A call that waits in the kernel, as for a memory lock, until `end` is called.

    It starts a program without a copy of this process, vfork(2), and that one first opens a FIFO.
    """

    def __init__(self, fifo: Path) -> None:
        self._fifo = fifo
        os.mkfifo(fifo)
        self.returned = threading.Event()

    def __call__(self) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        actions = ctypes.create_string_buffer(256)
        libc.posix_spawn_file_actions_init(actions)
        libc.posix_spawn_file_actions_addopen(
            actions, 0, os.fsencode(self._fifo), os.O_RDONLY, ctypes.c_int(0)
        )
        pid = ctypes.c_int()
        words = (ctypes.c_char_p * 2)(b"true", None)
        libc.posix_spawn(ctypes.byref(pid), b"/bin/true", actions, None, words, None)
        os.waitpid(pid.value, 0)
        self.returned.set()

    def end(self) -> None:
        os.close(os.open(self._fifo, os.O_WRONLY))
        assert self.returned.wait(20)


@pytest.fixture
def waits(tmp_path: Path) -> Iterator[KernelWait]:
    call = KernelWait(tmp_path / "fifo")
    yield call
    if not call.returned.is_set():
        call.end()


def test_a_call_that_waits_in_the_kernel_is_given_up(waits: KernelWait) -> None:
    me = os.getpid()
    began = time.monotonic()
    with pytest.raises(NotAnsweringError, match=f"process {me} does not answer"):
        call_bounded(me, waits, seconds=_SECONDS)
    assert time.monotonic() - began < 20 * _SECONDS

    # No second thread is left behind at the same process.
    threads = threading.active_count()
    with pytest.raises(NotAnsweringError):
        call_bounded(me, lambda: None, seconds=_SECONDS)
    assert threading.active_count() == threads

    waits.end()
    _until(lambda: call_bounded(me, lambda: 7) == 7)


def _until(holds: object) -> None:
    """Wait until a call works again: the call that was left behind has returned by then."""
    for _ in range(100):
        try:
            assert callable(holds)
            assert holds()
        except NotAnsweringError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError("still refused")


GIVES_UP = """
import os, sys
from pathlib import Path
from schedhook.host.bounded import call_bounded
from schedhook.values.errors import NotAnsweringError
from tests.unit.host.test_bounded import KernelWait
try:
    call_bounded(os.getpid(), KernelWait(Path(sys.argv[1])), seconds=0.3)
except NotAnsweringError as error:
    print("given up")
"""


def test_a_call_that_was_given_up_does_not_keep_the_process_from_its_end(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    command = [sys.executable, "-c", GIVES_UP, str(fifo)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            assert process.stdout.readline() == "given up\n"
            assert process.wait(20) == 0
        finally:
            process.kill()
            os.close(os.open(fifo, os.O_RDWR))  # the program that it started reads an end of file


def test_a_slow_call_that_works_is_waited_for() -> None:
    def work() -> int:
        end = time.thread_time() + 3 * _SECONDS
        while time.thread_time() < end:
            pass
        return 7

    assert call_bounded(os.getpid(), work, seconds=_SECONDS / 4) == 7


def test_a_call_that_waits_for_something_else_is_waited_for() -> None:
    assert call_bounded(os.getpid(), lambda: time.sleep(2 * _SECONDS) or 7, seconds=_SECONDS) == 7


def test_errors_reach_the_caller() -> None:
    def fail() -> None:
        raise ProcessGoneError("gone")

    with pytest.raises(ProcessGoneError, match="gone"):
        call_bounded(os.getpid(), fail)


def test_a_thread_is_used_again() -> None:
    first = call_bounded(os.getpid(), threading.get_ident)
    assert {call_bounded(os.getpid(), threading.get_ident) for _ in range(100)} == {first}
    assert first != threading.get_ident()


def test_each_thread_has_one_with_its_processors() -> None:
    def bind_and_call() -> None:
        os.sched_setaffinity(0, {cpu})
        found.append(call_bounded(os.getpid(), lambda: os.sched_getaffinity(0)))
        found.append(os.sched_getaffinity(0))

    cpu, found = min(os.sched_getaffinity(0)), list[set[int]]()
    before = call_bounded(os.getpid(), lambda: os.sched_getaffinity(0))
    threads = threading.active_count()
    thread = threading.Thread(target=bind_and_call)
    thread.start()
    thread.join()
    assert found == [{cpu}, {cpu}]
    assert call_bounded(os.getpid(), lambda: os.sched_getaffinity(0)) == before
    deadline = time.monotonic() + 20
    while threading.active_count() > threads and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == threads  # it ended with its thread


def test_calls_within_a_call_need_no_other_thread() -> None:
    me = os.getpid()
    ids = call_bounded(me, lambda: (threading.get_ident(), call_bounded(me, threading.get_ident)))
    assert ids[0] == ids[1]


def test_a_child_begins_with_threads_of_its_own() -> None:
    call_bounded(os.getpid(), lambda: None)
    child = os.fork()
    if child == 0:
        os._exit(call_bounded(os.getpid(), lambda: 7))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_without_another_thread_the_caller_makes_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("schedhook.host.bounded._thread", threading.local())
    monkeypatch.setattr(threading.Thread, "start", fail)
    assert call_bounded(os.getpid(), threading.get_ident) == threading.get_ident()


def test_a_user_has_few_threads_that_wait(tmp_path: Path) -> None:
    """The real user counts: a program can be set-user-ID."""
    users = {1: 1000, 2: 1000, 3: 1000, 4: 1000, 5: 1000, 6: 2000}
    for pid, user in users.items():
        status = tmp_path / f"proc/{pid}/status"
        status.parent.mkdir(parents=True)
        status.write_text(f"Name:\tx\nUid:\t{user}\t{pid}\t{pid}\t{pid}\n")
    calls = [KernelWait(tmp_path / f"fifo{pid}") for pid in range(1, 5)]
    try:
        for pid, call in enumerate(calls, 1):
            assert call_bounded(5, lambda: 7, tmp_path) == 7
            with pytest.raises(NotAnsweringError):
                call_bounded(pid, call, tmp_path, seconds=_SECONDS)
        with pytest.raises(NotAnsweringError, match="process 5 does not answer"):
            call_bounded(5, lambda: 7, tmp_path)
        assert call_bounded(6, lambda: 7, tmp_path) == 7
    finally:
        for call in calls:
            call.end()
    _until(lambda: call_bounded(5, lambda: 7, tmp_path) == 7)
