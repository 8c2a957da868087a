"""Kill job-migrate, and agents that follow cpusets, at random moments, on the kernel without Slurm.

The next process finishes what was begun. Also kill a process together with its rollback helper.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from schedhook.agent.service import serve
from schedhook.control import rollback, undo
from schedhook.control.freezer import freeze_cgroups
from schedhook.journal.journal import Journal
from schedhook.plugins.loading import load_plugins
from schedhook.values.config import (
    Config,
    JournalSection,
    PluginsSection,
    RelocationSection,
    WatchSection,
)
from schedhook.values.model import PlacementOverride
from schedhook_plugins.schedulers.slurm.command import command as job_migrate
from tests.forked import in_child
from tests.numa import killing
from tests.numa.jobs import Job, cgroup
from tests.numa.killing import kill_after, random_moments
from tests.numa.slurm_jobs import slurm_job

pytestmark = pytest.mark.nodes(4)

KILLS = int(os.environ.get("SCHEDHOOK_KILLS", "8"))
JOB = "4712"
MIB = 16
ENOUGH = 0.999


class Host:
    """A job of two tasks, the journal, and the processes that act on them."""

    def __init__(self, directory: Path, cgroup: Path, tasks: list[Job]) -> None:
        self.cgroup = cgroup
        self.tasks = tasks
        self.log = directory / "log"
        self.user = cgroup / "step_0" / "user"
        self.path = directory / "state" / "journal.db"
        self._directory = directory
        self._config = Config(
            journal=JournalSection(path=str(self.path)),
            watch=WatchSection(
                interval_s=0.05, task_interval_s=0.1, debounce_s=0.05, move_pause_s=0
            ),
            relocation=RelocationSection(freeze=True),
            plugins=PluginsSection(third_party=False),
        )
        self._config_file = directory / "config.toml"
        self._config_file.write_text(f'[journal]\npath = "{self.path}"\n')
        self._plugins = load_plugins(self._config)

    def agent(self) -> int:
        def work() -> None:
            serve(
                self._config,
                self._plugins,
                path=self._directory / "s",
                spool=self._directory / "spool",
                watch=True,
            )

        return in_child(work, self.log)

    def job_migrate(self, cpus: str) -> int:
        words = [JOB, "--cpus", cpus, "--this-host", "--config", str(self._config_file)]
        return in_child(lambda: job_migrate(words, standalone_mode=False), self.log)

    def is_at(self, first: int) -> bool:
        """Return whether tasks, memory and cpusets are all at `first` and `first + 1`."""
        cpus = f"{first}-{first + 1}"
        return (
            all(self.cpus(path) in (cpus, "") for path in (self.cgroup, self.user))
            and self.bindings() == [{first}, {first + 1}]
            and min(task.share_on(first + rank) for rank, task in enumerate(self.tasks)) >= ENOUGH
        )

    def is_within(self, first: int) -> bool:
        """Return whether all memory is on nodes `first` and `first + 1`."""
        return all(task.share_on(first) + task.share_on(first + 1) >= ENOUGH for task in self.tasks)

    def cpus(self, path: Path) -> str:
        return (path / "cpuset.cpus").read_text().strip()

    def bindings(self) -> list[set[int]]:
        return [os.sched_getaffinity(task.pid) for task in self.tasks]

    def frozen(self) -> bool:
        return any(
            (path / "cgroup.freeze").read_text().strip() != "0"
            for path in (self.cgroup, self.user, self.user / "task_special")
        )

    def describe(self) -> str:
        memory = [task.residency() for task in self.tasks]
        cpus = [self.cpus(path) for path in (self.cgroup, self.user)]
        return f"{cpus} {self.bindings()} {memory}\n{self.log.read_text()[-4000:]}"


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    with slurm_job(JOB, MIB) as (path, tasks):
        host = Host(tmp_path, path, tasks)
        yield host


def check_journal(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def settle(condition: Callable[[], bool]) -> bool:
    """Return whether the condition becomes true, on a host that may be slow."""
    return killing.settle(condition, 150)


def finish_with(process: int) -> None:
    os.kill(process, signal.SIGTERM)
    os.waitpid(process, 0)


def test_killed_job_migrates_are_finished(host: Host) -> None:
    """The agent finishes an interrupted move, or the next job-migrate does."""
    moments = random_moments()
    sums = [task.checksum() for task in host.tasks]
    (host.user / "cpuset.cpus").write_text("0-1")
    first = begun = kills = 0
    began = time.monotonic()
    assert kill_after(host.job_migrate("2-3"), 60) == 0, host.describe()
    longest, first = time.monotonic() - began, 2
    assert host.is_at(2), host.describe()
    while kills < KILLS or (not begun and kills < 10 * KILLS):
        target = 2 - first
        cpus = f"{target}-{target + 1}"
        killed = kill_after(host.job_migrate(cpus), moments.uniform(0, longest)) is None
        override = override_in(host.path)
        assert override is not None
        first = min(override.placement.cpus)
        begun += killed and override.under_way
        if not override.under_way:
            assert host.is_at(first), host.describe()
        elif kills % 10 == 0:
            process = host.agent()
            assert settle(lambda first=first: host.is_at(first)), host.describe()
            assert settle(lambda: not under_way(host.path)), host.describe()
            finish_with(process)
        kills += 1
    assert kill_after(host.job_migrate("0-1"), 60) == 0, host.describe()
    assert host.is_at(0), host.describe()
    assert not under_way(host.path)
    print(f"{kills} in up to {longest:.2f} s, {begun} of them killed half-way")
    assert [task.checksum() for task in host.tasks] == sums
    assert begun
    check_journal(host.path)


def override_in(path: Path) -> PlacementOverride | None:
    with Journal.open(path) as journal:
        return journal.overrides.get("slurm", JOB)


def under_way(path: Path) -> bool:
    override = override_in(path)
    return override is not None and override.under_way


def test_memory_follows_although_agents_are_killed(host: Host) -> None:
    """Meanwhile another process writes cpusets, which resets the tasks' affinities."""
    moments = random_moments()
    sums = [task.checksum() for task in host.tasks]
    first = halfway = unbound = kills = 0

    def go() -> None:
        nonlocal first
        first = 2 - first
        (host.cgroup / "cpuset.cpus").write_text(f"{first}-{first + 1}")

    began = time.monotonic()
    process = host.agent()
    assert settle(lambda: host.path.exists() and len(known(host.path)) == 2), host.describe()
    longest = 3 * (time.monotonic() - began)
    finish_with(process)
    while kills < KILLS or (not halfway and kills < 10 * KILLS):
        if moments.random() < 0.5:
            go()
        assert kill_after(host.agent(), moments.uniform(0, longest)) is None, host.describe()
        with Journal.open(host.path) as journal:
            halfway += any(
                seen.visited for seen in journal.placements.known_tasks("slurm", JOB).values()
            )
        assert settle(lambda: not host.frozen()), host.describe()
        for rank, bound in enumerate(host.bindings()):
            # Bound to its own CPU, or to both if no agent has noticed the reset yet.
            assert bound in ({first + rank}, {first, first + 1}), host.describe()
            unbound += len(bound) > 1
        kills += 1
    said = host.log.stat().st_size
    process = host.agent()
    assert settle(lambda: host.is_within(first)), host.describe()
    # An affinity that a change and its reversal reset unnoticed is restored at the next change
    # after the agent has seen the reversal.
    assert settle(lambda: '"point": "look"' in host.log.read_text()[said:]), host.describe()
    go()
    assert settle(lambda: host.is_at(first)), host.describe()
    finish_with(process)
    print(f"{kills} agents killed after up to {longest:.2f} s, {halfway} left memory to move;")
    print(f"{unbound} tasks were not bound to their own CPU then")
    assert [task.checksum() for task in host.tasks] == sums
    assert halfway
    check_journal(host.path)


def known(path: Path) -> set[str]:
    """Return the tasks that the journal knows."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        if not connection.execute("PRAGMA user_version").fetchone()[0]:
            return set()
        return {task for (task,) in connection.execute("SELECT task FROM placements")}


# -- the rollback helper -------------------------------------------------------------------------


def test_the_next_process_thaws_a_job_if_the_rollback_helper_was_killed_too(tmp_path: Path) -> None:
    with cgroup("victim") as path, Job("anon", 1, 0, cgroup=path):
        for _ in range(10):

            def work() -> None:
                with rollback.Rollback() as own, freeze_cgroups([path], own):
                    assert own._helper
                    (tmp_path / "helper").write_text(str(own._helper.pid))
                    time.sleep(600)

            child = in_child(work, tmp_path / "log")
            assert settle((tmp_path / "helper").exists)
            assert settle(lambda: "frozen 1" in (path / "cgroup.events").read_text())
            assert settle(lambda: bool((tmp_path / "helper").read_text()))
            os.kill(int((tmp_path / "helper").read_text()), signal.SIGKILL)
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            (tmp_path / "helper").unlink()
            assert (path / "cgroup.freeze").read_text().strip() == "1"
            assert settle(lambda: undo.recover() == 1), "the record is still locked"
            assert (path / "cgroup.freeze").read_text().strip() == "0"
