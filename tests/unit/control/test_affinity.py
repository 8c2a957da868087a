"""Bind the threads of a process, and undo it: real threads, and a list that grows."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from schedhook.control import affinity
from schedhook.control.affinity import Binding
from schedhook.control.rollback import Rollback
from schedhook.control.threads import Thread
from schedhook.roles.backend import Target
from schedhook.values.errors import ProcessGoneError, RefusedError
from schedhook.values.sets import CpuSet

ALL = CpuSet(os.sched_getaffinity(0))
ONE = CpuSet({max(ALL)})
PROGRAM = """
import threading
threading.Thread(target=threading.Event().wait, daemon=True).start()
print("ready", flush=True)
input()
"""

pytestmark = pytest.mark.skipif(len(ALL) < 2, reason="needs two processors")


@dataclass
class Process:
    """A process as `Binding` sees it."""

    pid: int
    lives: bool = True

    def alive(self) -> bool:
        return self.lives


@dataclass
class Records:
    """A rollback that notes what it is told, and how the thread was bound at that time."""

    told: list[tuple[int, CpuSet, CpuSet, set[int]]] = field(default_factory=list)

    def record_affinity(self, tid: int, _start: int, before: CpuSet, after: CpuSet) -> None:
        self.told.append((tid, before, after, os.sched_getaffinity(tid)))


@pytest.fixture
def process() -> Iterator[Process]:
    with subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", PROGRAM],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as child:
        assert child.stdout
        child.stdout.readline()
        yield Process(child.pid)
        child.kill()


def threads(process: Process) -> list[int]:
    return sorted(map(int, os.listdir(f"/proc/{process.pid}/task")))  # noqa: PTH208


def bindings(process: Process) -> list[set[int]]:
    return [os.sched_getaffinity(tid) for tid in threads(process)]


def make(records: Records | None = None) -> Binding:
    return Binding(cast("Rollback", records or Records()))


def bind(binding: Binding, process: Process, cpus: CpuSet = ONE) -> None:
    binding.bind([cast("Target", process)], cpus)


def test_every_thread_is_bound_and_bound_back(process: Process) -> None:
    records = Records()
    binding = make(records)
    bind(binding, process)
    assert bindings(process) == [set(ONE), set(ONE)]
    # Each record came first: what is killed in between is rolled back.
    everywhere = [(tid, ALL, ONE, set(ALL)) for tid in threads(process)]
    assert sorted(records.told) == everywhere

    binding.undo()
    assert bindings(process) == [set(ALL), set(ALL)]
    os.sched_setaffinity(process.pid, ONE)
    binding.undo()  # there is nothing left to undo
    assert os.sched_getaffinity(process.pid) == set(ONE)


def test_a_thread_that_another_process_has_bound_since_is_left_alone(process: Process) -> None:
    first, second = threads(process)
    binding = make()
    bind(binding, process)
    os.sched_setaffinity(second, ALL - ONE)
    os.sched_setaffinity(first, ALL)
    os.sched_setaffinity(first, ONE)
    binding.undo()
    assert os.sched_getaffinity(first) == set(ALL)
    assert os.sched_getaffinity(second) == set(ALL - ONE)


def test_a_thread_that_its_cpuset_narrowed_is_bound_back(process: Process) -> None:
    binding = make()
    os.sched_setaffinity(process.pid, ONE)
    bind(binding, process, ALL)
    os.sched_setaffinity(process.pid, ALL - ONE)  # a part of what it was bound to
    binding.undo()
    assert os.sched_getaffinity(process.pid) == set(ONE)


def test_threads_of_a_process_that_has_ended_are_left_alone(process: Process) -> None:
    """Its number may be another process's by now."""
    binding = make()
    bind(binding, Process(process.pid, lives=False))
    assert bindings(process) == [set(ALL), set(ALL)]
    bind(binding, Process(2**22 + 1))  # no such number


def test_threads_that_appear_meanwhile_are_bound_too(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, third = (Thread(pid=1, tid=tid, start_time=1) for tid in (1, 2, 3))
    found = iter([[first], [first, second], [first, second], []])
    bound: list[int] = []
    monkeypatch.setattr(affinity, "read_threads", lambda *_: next(found))
    monkeypatch.setattr(
        affinity, "affinity", lambda thread, _root: CpuSet() if thread == third else ALL
    )
    monkeypatch.setattr(affinity, "bind", lambda thread, *_: bound.append(thread.tid))
    bind(make(), Process(1))
    assert bound == [1, 2]
    assert next(found) == []

    # One that has ended has no processors.
    found = iter([[third], [third]] + [[third]] * 3)
    bind(make(), Process(1))
    assert bound == [1, 2]


def test_threads_that_appear_without_end_are_not_followed_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rounds: list[int] = []

    def one_more(*_: Any) -> list[Thread]:
        rounds.append(len(rounds))
        return [Thread(pid=1, tid=tid + 1, start_time=1) for tid in rounds]

    monkeypatch.setattr(affinity, "read_threads", one_more)
    monkeypatch.setattr(affinity, "affinity", lambda *_: ALL)
    monkeypatch.setattr(affinity, "bind", lambda *_: True)
    bind(make(), Process(1))
    assert len(rounds) == 5


def test_one_whose_binding_failed_is_undone_too(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> bool:
        os.sched_setaffinity(process.pid, ONE)
        raise RefusedError("half-way")

    binding = make()
    with monkeypatch.context() as patch:
        patch.setattr(affinity, "bind", fail)
        with pytest.raises(RefusedError):
            bind(binding, process)
    binding.undo()
    assert bindings(process) == [set(ALL), set(ALL)]


def test_errors_while_it_is_undone_leave_no_thread_out(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[int] = []

    def fail(thread: Thread, *_: object) -> bool:
        tried.append(thread.tid)
        raise ProcessGoneError("ended")

    binding = make()
    bind(binding, process)
    monkeypatch.setattr(affinity, "bind", fail)
    binding.undo()
    assert sorted(tried) == threads(process)
