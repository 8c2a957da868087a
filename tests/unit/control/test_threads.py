"""Bind real threads, and not later ones with their numbers."""

from __future__ import annotations

import errno
import os
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from schedhook.backends.native import _core
from schedhook.backends.native.backend import NativeBackend
from schedhook.control.affinity import Binding
from schedhook.control.freezer import cgroups_to_freeze
from schedhook.control.rollback import Rollback
from schedhook.control.threads import Thread, affinity, bind, member_threads, read_threads
from schedhook.values.errors import NoPermissionError, RefusedError
from schedhook.values.sets import CpuSet

NOWHERE = CpuSet({4095})
"""A processor that no host has: binding a thread to it is refused."""


@pytest.fixture
def sleeper() -> Iterator[int]:
    with subprocess.Popen(["sleep", "600"]) as process:
        yield process.pid
        process.kill()


@pytest.fixture
def thread(sleeper: int) -> Thread:
    (thread,) = read_threads(sleeper)
    return thread


def earlier(thread: Thread) -> Thread:
    """Return an earlier thread with the same number."""
    return replace(thread, start_time=thread.start_time - 1)


def test_a_thread_is_bound(thread: Thread) -> None:
    one = CpuSet({min(os.sched_getaffinity(thread.tid))})
    assert bind(thread, one)
    assert os.sched_getaffinity(thread.tid) == affinity(thread) == one


def test_all_threads_of_a_process_are_found() -> None:
    stop = threading.Event()
    another = threading.Thread(target=stop.wait)
    another.start()
    tids = {thread.tid for thread in read_threads(os.getpid())}
    stop.set()
    another.join()
    assert {os.getpid(), another.native_id} <= tids


def test_processors_that_no_cpuset_allows_are_refused(thread: Thread) -> None:
    with pytest.raises(RefusedError, match=f"thread {thread.tid} may not use processors 4095"):
        bind(thread, NOWHERE)


def test_a_later_thread_with_its_number_is_left_alone(thread: Thread) -> None:
    assert not bind(earlier(thread), NOWHERE)
    assert affinity(earlier(thread)) == CpuSet()


def test_a_thread_that_has_ended_is_skipped() -> None:
    stop = threading.Event()
    another = threading.Thread(target=stop.wait)
    another.start()
    (thread,) = [each for each in read_threads(os.getpid()) if each.tid == another.native_id]
    assert thread.lives()
    stop.set()
    another.join()
    while thread.lives():
        pass
    assert not bind(thread, NOWHERE)
    assert affinity(thread) == CpuSet()


def test_a_process_that_is_not_listed_again_is_left_out(sleeper: int) -> None:
    listed = iter([[os.getpid(), sleeper], [os.getpid()]])
    assert {thread.pid for thread in member_threads(lambda: next(listed))} == {os.getpid()}


def test_a_later_process_with_the_number_is_neither_bound_nor_frozen(
    thread: Thread, monkeypatch: pytest.MonkeyPatch
) -> None:
    had = os.sched_getaffinity(thread.tid)
    with Rollback() as rollback, NativeBackend().attach(thread.pid) as target:
        binding = Binding(rollback)
        binding.bind([target], CpuSet(had))
        assert binding._bound == {thread: (CpuSet(had), CpuSet(had))}
        binding._before = {earlier(thread): NOWHERE}
        binding.undo()
        monkeypatch.setattr(target, "alive", lambda: False)
        binding.bind([target], NOWHERE)
        assert cgroups_to_freeze([target], None, Path("/")) == []
    assert os.sched_getaffinity(thread.tid) == had


def test_what_a_security_module_forbids_is_an_error(
    thread: Thread, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> int:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    with monkeypatch.context() as patch:
        patch.setattr(_core, "bind", fail)
        with pytest.raises(NoPermissionError, match=f"cannot bind thread {thread.tid}"):
            bind(thread, CpuSet({0}))
    monkeypatch.setattr(os, "sched_getaffinity", fail)
    with pytest.raises(RefusedError, match=f"cannot read the affinity of thread {thread.tid}"):
        affinity(thread)


def test_nothing_is_bound_to_no_processors_and_no_file_stays_open(thread: Thread) -> None:
    before = os.sched_getaffinity(thread.tid), len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    assert not bind(thread, CpuSet())
    assert bind(thread, CpuSet(before[0]))
    assert not bind(earlier(thread), CpuSet(before[0]))
    after = os.sched_getaffinity(thread.tid), len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    assert after == before


def test_a_thread_that_ends_while_it_is_bound_is_named_if_its_number_was_given_away(
    thread: Thread, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def gone(*_: object) -> bool:
        raise ProcessLookupError(errno.ESRCH, "No such process")

    one = CpuSet({min(os.sched_getaffinity(thread.tid))})
    assert bind(thread, one)
    monkeypatch.setattr(_core, "bind", gone)
    assert not bind(thread, one)
    assert not capsys.readouterr().err
    monkeypatch.setattr(_core, "bind", lambda *_: False)
    assert not bind(thread, one)
    assert "the thread that has its number now may have been bound" in capsys.readouterr().err
    monkeypatch.setattr(Path, "exists", lambda _: False)
    assert not bind(thread, one)
    assert not capsys.readouterr().err
