"""The pool of threads that handle events."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import pytest

from schedhook.agent.events import QueuedEvent
from schedhook.agent.results import EventResult
from schedhook.agent.workers import WorkerPool
from schedhook.values.model import Event
from tests.unit.agentkit import wait_for


def test_events_of_one_job_are_handled_in_order() -> None:
    done: list[tuple[str, float]] = []

    def work(queued: QueuedEvent) -> EventResult:
        time.sleep(0.001 * (int(queued.event.job) % 3))
        done.append((queued.event.job, queued.at))
        return EventResult(summary="")

    workers = WorkerPool(4, work, lambda: None)
    for at in range(20):
        for job in range(10):
            workers.put(QueuedEvent(Event(scheduler="s", point=str(at), job=str(job)), float(at)))
    wait_for(lambda: len(done) == 200)
    for job in range(10):
        assert [at for its, at in done if its == str(job)] == [float(n) for n in range(20)]
    assert len(workers.finished()) == 200
    workers.stop(5)


@pytest.mark.parametrize("error", [RuntimeError, SystemExit, GeneratorExit])
def test_a_worker_goes_on_after_an_exception(error: type[BaseException]) -> None:
    def work(queued: QueuedEvent) -> EventResult:
        raise error(queued.event.job)

    workers = WorkerPool(1, work, lambda: None)
    for job in ("1", "2"):
        workers.put(QueuedEvent(Event(scheduler="s", point="p", job=job), 0.0))
    done: list[tuple[QueuedEvent, EventResult]] = []
    wait_for(lambda: done.extend(workers.finished()) or len(done) == 2)
    assert all(not result.ok for _, result in done)
    workers.stop(5)


NO_THREADS = """
import os, resource, sys, time
from schedhook.agent.events import QueuedEvent
from schedhook.agent.results import EventResult
from schedhook.values.log import get_logger
from schedhook.values.model import Event
from schedhook.agent.workers import WorkerPool

get_logger().info("log once, while the library can still be read")
done = []
work = lambda queued: done.append(queued.event.job) or EventResult(summary="")
workers = WorkerPool(2, work, lambda: None)
os.setgroups([]); os.setgid(65534); os.setuid(200_000 + os.getpid())
for most in (1, 9):
    resource.setrlimit(resource.RLIMIT_NPROC, (most, 9))
    if most == 1:
        for job in ("1", "2"):
            workers.put(QueuedEvent(Event(scheduler="s", point="p", job=job), 0.0))
    workers.grow()
    end = time.monotonic() + (20 if most > 1 else 0.2)
    while len(done) < 2 and time.monotonic() < end:
        time.sleep(0.01)
    print(*sorted(done), sep=" ", flush=True)
workers.stop(5)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="limits the number of another user's processes")
def test_events_wait_while_no_thread_can_be_started() -> None:
    words = [sys.executable, "-c", NO_THREADS]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (0, "\n1 2\n"), done.stderr
    assert done.stderr.count("cannot start a worker thread") == 3


def test_an_event_that_already_waits_is_not_added_again() -> None:
    release = threading.Event()
    done: list[str] = []

    def work(queued: QueuedEvent) -> EventResult:
        release.wait(10)
        done.append(queued.event.point)
        return EventResult(summary="")

    workers = WorkerPool(1, work, lambda: None)
    look = Event(scheduler="s", point="look", job="1")
    for _ in range(10):
        workers.put(QueuedEvent(look, 0.0))
    workers.put(QueuedEvent(look, 0.0, 17))
    release.set()
    workers.put(QueuedEvent(Event(scheduler="s", point="last", job="1"), 0.0))
    wait_for(lambda: "last" in done)
    assert done.count("look") <= 3
    workers.stop(5)
