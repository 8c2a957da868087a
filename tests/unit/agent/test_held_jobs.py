"""Threads that hold jobs."""

from __future__ import annotations

import threading
import time

import pytest

from schedhook.agent.held_jobs import HeldJobs
from schedhook.journal.errors import JobLockedError


def test_one_thread_holds_a_job_at_a_time() -> None:
    held = HeldJobs()
    with held.hold("fake", "1"):
        with (
            pytest.raises(JobLockedError, match="the agent is moving memory of job 1"),
            held.hold("fake", "1"),
        ):
            pass
        with held.hold("fake", "2"), held.hold("other", "1"):
            pass
    with held.hold("fake", "1"):
        pass


def test_a_job_is_let_go_also_after_an_error() -> None:
    held = HeldJobs()
    with pytest.raises(ValueError, match="x"), held.hold("fake", "1"):
        raise ValueError("x")
    with held.hold("fake", "1"):
        pass


def test_a_thread_waits_for_another_one() -> None:
    held, order = HeldJobs(), list[str]()

    def wait() -> None:
        with held.hold("fake", "1", wait=60):
            order.append("second")

    with held.hold("fake", "1"):
        thread = threading.Thread(target=wait)
        thread.start()
        time.sleep(0.1)
        order.append("first")
    thread.join(60)
    assert order == ["first", "second"]
