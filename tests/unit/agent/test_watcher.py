"""The watcher, with plain files as cgroups and real processes."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from schedhook.agent.watcher import Watcher
from schedhook.journal.journal import Journal
from schedhook.roles.scheduler import Scheduler
from schedhook.values.config import WatchSection
from schedhook.values.model import Event
from tests.unit.agentkit import FakeScheduler, agent, end, moves_of, place, wait_for

SECTION = WatchSection(interval_s=1, task_interval_s=5, debounce_s=0.5)
ME = os.getpid()


class Clock:
    """A watcher whose time passes as fast as a test needs."""

    def __init__(self, directory: Path, section: WatchSection = SECTION, **more: Any) -> None:
        self.events: list[Event] = []
        self.now = 1000.0
        self.adapter: Scheduler = FakeScheduler(directory)
        self.watcher = Watcher([self.adapter], section, self.events.append, **more)

    def pass_(self, seconds: float) -> list[tuple[str, str]]:
        """Let seconds pass; return the events of that time as (point, job)."""
        self.events.clear()
        limit = self.now + seconds
        while self.now < limit:
            wake = self.watcher.tick(self.now)
            assert wake > self.now
            self.now = min(wake, limit)
        return [(event.point, event.job) for event in self.events]


@pytest.fixture
def clock(tmp_path: Path) -> Iterator[Clock]:
    clock = Clock(tmp_path)
    yield clock
    clock.watcher.close()


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "600"]) as process:
        yield process
        process.kill()


def test_a_new_job_is_reported_and_looked_at_once(clock: Clock, tmp_path: Path) -> None:
    assert clock.pass_(10) == []
    place(tmp_path, "1", {"0": ([ME], "0", "0")})
    assert clock.pass_(10) == [("job-started", "1"), ("look", "1")]
    assert clock.pass_(100) == []


def test_a_job_whose_cgroup_is_there_before_a_process_is_reported_soon(
    clock: Clock, tmp_path: Path
) -> None:
    place(tmp_path, "1", {"0": ([ME], "0", "0")})
    clock.pass_(95)
    with patch.object(clock.adapter, "jobs", return_value=["1"]):
        place(tmp_path, "2", {"0": ([ME], "0", "0")})
        assert clock.pass_(1) == []
    assert clock.pass_(3) == [("job-started", "2"), ("look", "2")]


def test_a_task_that_joins_the_others_is_found_soon(clock: Clock, tmp_path: Path) -> None:
    place(tmp_path, "1", {"0": ([ME], "0", "0")})
    clock.pass_(2)
    place(tmp_path, "1", {"0": ([ME], "0", "0"), "1": ([ME], "0", "0")})
    assert clock.pass_(10) == [("look", "1")]
    assert clock.pass_(100) == []


def test_a_step_that_follows_another_is_found_soon(
    clock: Clock, tmp_path: Path, child: subprocess.Popen[bytes]
) -> None:
    """Its cgroup came as the other one went, and its tasks come later: nothing notifies of them."""
    batch = {"batch": ([ME], "0", "0")}
    place(tmp_path, "1", {**batch, "0": ([child.pid], "0", "0")})
    clock.pass_(3600)
    child.kill()
    child.wait()
    place(tmp_path, "1", batch)
    assert any(clock.pass_(1) for _ in range(70)), "no look"
    place(tmp_path, "1", {**batch, "1": ([ME], "0", "0")})
    assert clock.pass_(15) == [("look", "1")]


def test_the_first_task_of_a_job_is_found_soon_however_late_it_starts(
    clock: Clock, tmp_path: Path
) -> None:
    place(tmp_path, "1", {})
    clock.pass_(3600)
    place(tmp_path, "1", {"0": ([ME], "", "0")})
    assert clock.pass_(30) == [("look", "1")]


def test_all_of_a_quiet_job_is_read_now_and_then(clock: Clock, tmp_path: Path) -> None:
    place(tmp_path, "1", {"0": ([ME], "0", "0")})
    clock.pass_(2)
    with patch.object(clock.adapter, "tasks", wraps=clock.adapter.tasks) as read:
        clock.pass_(600)
        assert 4 <= read.call_count <= 9
        looks = len(clock.pass_(3600))
    assert 8 <= looks <= 24


def test_jobs_are_seldom_listed_while_none_comes_or_goes(clock: Clock, tmp_path: Path) -> None:
    place(tmp_path, "1", {"0": ([ME], "0", "0")})
    clock.pass_(10)
    with patch.object(clock.adapter, "jobs", wraps=clock.adapter.jobs) as listed:
        clock.pass_(120)
    assert 1 <= listed.call_count <= 4


def test_a_job_that_has_gone_is_reported_after_a_delay(clock: Clock, tmp_path: Path) -> None:
    place(tmp_path, "1", {"0": ([ME], "0", "0")})
    clock.pass_(10)
    end(tmp_path, "1")
    assert clock.pass_(8) == []
    assert clock.pass_(10) == [("job-ended", "1")]
    assert clock.watcher.jobs == ()


def test_a_job_that_ended_while_no_agent_ran_is_reported(tmp_path: Path) -> None:
    place(tmp_path, "1", {"0": ([ME], "0", "0")})
    known = [("fake", "1"), ("fake", "2"), ("other", "3")]
    clock = Clock(tmp_path, known=known)
    assert clock.pass_(8) == [("job-started", "1"), ("look", "1")]
    assert clock.pass_(10) == [("job-ended", "2")]
    assert clock.pass_(100) == []
    clock.watcher.close()


def test_a_job_without_a_cgroup_between_two_steps_has_not_ended(
    clock: Clock, tmp_path: Path
) -> None:
    place(tmp_path, "1", {"0": ([ME], "0", "0")})
    clock.pass_(10)
    end(tmp_path, "1")
    clock.pass_(5)
    place(tmp_path, "1", {"1": ([ME], "0", "0")})
    assert clock.pass_(20) == [("look", "1")]


@pytest.mark.parametrize("name", ["cpuset.cpus.effective", "cpuset.mems.effective"])
def test_a_changed_cpuset_is_looked_at_after_it_has_settled(
    clock: Clock, tmp_path: Path, name: str
) -> None:
    place(tmp_path, "1", {"0": ([ME], "0", "0")})
    (tmp_path / "cgroup" / "job_1" / name).write_text("0\n")
    clock.pass_(10)
    (tmp_path / "cgroup" / "job_1" / name).write_text("0,2\n")
    assert clock.pass_(3) == [("look", "1")]
    assert clock.pass_(20) == []


@pytest.mark.parametrize("names", [("cpuset.effective_cpus",), ("cpuset.cpus",), ("cpus",)])
def test_changes_of_a_version_1_cpuset_are_noticed(
    clock: Clock, tmp_path: Path, names: tuple[str, ...]
) -> None:
    place(tmp_path, "1", {"0": ([ME], "0", "0")})
    cgroup = tmp_path / "cgroup" / "job_1"
    (cgroup / "cpuset.cpus.effective").rename(cgroup / names[0])
    clock.pass_(10)
    (cgroup / names[0]).write_text("1\n")
    assert clock.pass_(3) == [("look", "1")]


def test_a_job_that_never_settles_is_looked_at_too(tmp_path: Path) -> None:
    clock = Clock(tmp_path, WatchSection(interval_s=0.1, task_interval_s=5, debounce_s=0.5))
    place(tmp_path, "1", {"0": ([ME], "0", "0")})
    clock.pass_(10)
    looks = []
    for number in range(100):
        (tmp_path / "cgroup" / "job_1" / "cpuset.cpus.effective").write_text(f"{number}\n")
        looks += clock.pass_(0.1)
    assert 1 <= len(looks) <= 3
    clock.watcher.close()


def test_a_new_step_is_noticed(clock: Clock, tmp_path: Path) -> None:
    place(tmp_path, "1", {"0": ([ME], "0", "0")})
    clock.pass_(10)
    (tmp_path / "cgroup" / "job_1" / "step_1").mkdir()
    assert clock.pass_(3) == [("look", "1")]


def test_the_first_process_of_a_job_is_noticed(clock: Clock, tmp_path: Path) -> None:
    """Nothing of its cgroup changes as it joins."""
    place(tmp_path, "1", {})
    clock.pass_(5)
    place(tmp_path, "1", {"0": ([ME], "", "")})
    clock.pass_(25)
    (watched,) = clock.watcher.watched
    assert watched.tasks
    assert clock.pass_(60) == []


def test_a_changed_affinity_is_noticed(
    clock: Clock, tmp_path: Path, child: subprocess.Popen[bytes]
) -> None:
    cpus = sorted(os.sched_getaffinity(child.pid))
    if len(cpus) < 2:
        pytest.fail("needs a host with two CPUs")
    place(tmp_path, "1", {"0": ([child.pid], "0", "0")})
    clock.pass_(10)
    os.sched_setaffinity(child.pid, cpus[:1])
    assert clock.pass_(8) == [("look", "1")]


def test_a_stopped_job_is_reported_as_suspended_and_then_resumed(
    clock: Clock, tmp_path: Path, child: subprocess.Popen[bytes]
) -> None:
    place(tmp_path, "1", {"0": ([child.pid], "0", "0")})
    clock.pass_(10)
    child.send_signal(signal.SIGSTOP)
    os.waitpid(child.pid, os.WUNTRACED)
    assert clock.pass_(8) == [("suspended", "1"), ("look", "1")]
    child.send_signal(signal.SIGCONT)
    os.waitpid(child.pid, os.WCONTINUED)
    assert clock.pass_(3) == [("resumed", "1"), ("look", "1")], (
        "a suspended job is sampled at every tick"
    )


def test_a_job_is_not_suspended_if_only_one_of_two_tasks_is_stopped(
    clock: Clock, tmp_path: Path, child: subprocess.Popen[bytes]
) -> None:
    place(tmp_path, "1", {"0": ([child.pid], "0", "0"), "1": ([ME], "1", "1")})
    clock.pass_(10)
    child.send_signal(signal.SIGSTOP)
    os.waitpid(child.pid, os.WUNTRACED)
    assert clock.pass_(20) == [("look", "1")]


def test_the_adapter_decides_whether_a_job_is_suspended(
    clock: Clock, tmp_path: Path, child: subprocess.Popen[bytes]
) -> None:
    clock.adapter.suspended = lambda job: job == "1"  # type: ignore[attr-defined]
    place(tmp_path, "1", {"0": ([child.pid], "0", "0"), "1": ([ME], "1", "1")})
    assert ("suspended", "1") in clock.pass_(10)


def test_short_lived_processes_do_not_cause_constant_reading(
    clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place(tmp_path, "1", {"0": ([2**22 - 1], "0", "0")})
    clock.pass_(10)
    calls = []
    tasks = FakeScheduler.tasks
    monkeypatch.setattr(
        FakeScheduler, "tasks", lambda self, job: calls.append(job) or tasks(self, job)
    )
    clock.pass_(600)
    assert len(calls) <= 600 / 15 + 1


def test_many_new_jobs_are_read_a_few_per_tick(tmp_path: Path) -> None:
    for number in range(45):
        place(tmp_path, str(number), {"0": ([ME], "0", "0")})
    clock = Clock(tmp_path)
    clock.watcher.tick(clock.now)
    assert len(clock.watcher.jobs) == 10
    clock.pass_(10)
    assert len(clock.watcher.jobs) == 45
    clock.watcher.close()


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_files_are_closed_with_the_job(tmp_path: Path) -> None:
    clock = Clock(tmp_path)
    before = open_files()
    for number in range(20):
        place(tmp_path, str(number), {"0": ([ME], "0", "0")})
    clock.pass_(10)
    assert open_files() > before
    for number in range(20):
        end(tmp_path, str(number))
    clock.pass_(10)
    assert open_files() <= before + 2, "except for the directories above"
    clock.watcher.close()
    assert open_files() == before


def test_removed_directories_above_jobs_are_closed(tmp_path: Path) -> None:
    before = open_files()
    clock = Clock(tmp_path)
    for _ in range(3):
        place(tmp_path, "1", {"0": ([ME], "0", "0")})
        clock.pass_(15)
        assert ("fake", "1") in clock.watcher.jobs
        end(tmp_path, "1")
        (tmp_path / "cgroup").rmdir()
        clock.pass_(15)
    assert open_files() <= before + 1
    clock.watcher.close()


def test_a_new_job_beside_others_is_noticed_at_the_next_tick(clock: Clock, tmp_path: Path) -> None:
    place(tmp_path, "1", {"0": ([ME], "0", "0")})
    clock.pass_(11)
    place(tmp_path, "2", {"0": ([ME], "0", "0")})
    assert clock.pass_(1.5) == [("job-started", "2"), ("look", "2")]


@pytest.mark.parametrize("job", ["../..", "1 2", ""])
def test_an_invalid_job_id_is_not_watched(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, job: str
) -> None:
    monkeypatch.setattr(FakeScheduler, "jobs", lambda _self: (job,))
    assert clock.pass_(10) == []
    assert clock.watcher.jobs == ()


def test_a_broken_adapter_is_logged_once_and_the_others_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Broken(FakeScheduler):
        name = "broken"

        def jobs(self) -> tuple[str, ...]:
            raise RuntimeError("bug")

    events: list[Event] = []
    watcher = Watcher([Broken(tmp_path), FakeScheduler(tmp_path)], SECTION, events.append)
    place(tmp_path, "1", {"0": ([ME], "0", "0")})
    for now in range(1000, 1020):
        watcher.tick(float(now))
    assert [event.point for event in events] == ["job-started", "look"]
    assert capsys.readouterr().err.count("bug") == 1
    watcher.close()


# -- as a part of an agent -------------------------------------------------------------------------


def history(here: Path) -> list[dict[str, Any]]:
    with Journal.open(here / "state" / "journal.db", create=False) as journal:
        return journal.history()


def test_memory_follows_without_a_hook(tmp_path: Path) -> None:
    place(tmp_path, "7", {"0": ([ME], "0", "0")})
    with agent(tmp_path):
        wait_for(lambda: history(tmp_path) and history(tmp_path)[0]["placements"])
        place(tmp_path, "7", {"0": ([ME], "2", "2")})
        wait_for(lambda: moves_of(tmp_path))
        end(tmp_path, "7")
        wait_for(lambda: history(tmp_path)[0]["ended"])
    assert moves_of(tmp_path) == [{"job": "7", "pairs": {"0": 2}}]
    (run,) = history(tmp_path)
    assert [event["point"] for event in run["events"]] == ["job-started", "look", "job-ended"]


def test_a_move_while_no_agent_ran_is_found_at_the_next_start(tmp_path: Path) -> None:
    place(tmp_path, "7", {"0": ([ME], "0", "0")})
    with agent(tmp_path):
        wait_for(lambda: history(tmp_path) and history(tmp_path)[0]["placements"])
    place(tmp_path, "7", {"0": ([ME], "3", "3")})
    with agent(tmp_path):
        wait_for(lambda: moves_of(tmp_path))
    assert moves_of(tmp_path) == [{"job": "7", "pairs": {"0": 3}}]


def test_a_suspended_job_is_parked_and_moved_back(
    tmp_path: Path, child: subprocess.Popen[bytes]
) -> None:
    (tmp_path / "options.json").write_text('{"park": "2"}')
    place(tmp_path, "7", {"0": ([child.pid], "0", "0")})
    with agent(tmp_path):
        wait_for(lambda: history(tmp_path) and history(tmp_path)[0]["placements"])
        child.send_signal(signal.SIGSTOP)
        wait_for(lambda: len(moves_of(tmp_path)) == 1)
        child.send_signal(signal.SIGCONT)
        wait_for(lambda: len(moves_of(tmp_path)) == 2)
    assert [move["pairs"] for move in moves_of(tmp_path)] == [{"0": 2}, {"2": 0}]
