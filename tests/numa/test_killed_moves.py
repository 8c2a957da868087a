"""SIGKILL at random moments, on the kernel and without Slurm, of job-migrate and of agents that
follow cpusets: whoever comes next finishes what was begun. And of a guard with what it guards."""

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
from schedhook.control import rollback
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
from schedhook_plugins.schedulers.slurm.command import command as job_migrate
from tests.numa import killing
from tests.numa.jobs import Job, cgroup
from tests.numa.killing import chance, in_child, kill_after
from tests.numa.slurm_jobs import slurm_job

pytestmark = pytest.mark.nodes(4)

KILLS = int(os.environ.get("SCHEDHOOK_KILLS", "25"))
JOB = "4712"
MIB = 16
ENOUGH = 0.999


class Host:
    """The job of two tasks, the journal, and who acts on them."""

    def __init__(self, directory: Path, cgroup: Path, tasks: list[Job]) -> None:
        self.cgroup = cgroup
        self.tasks = tasks
        self.log = directory / "log"
        self.user = cgroup / "step_0" / "user"
        self.path = directory / "state" / "journal.db"
        self._directory = directory
        self._config = Config(
            journal=JournalSection(path=str(self.path)),
            watch=WatchSection(interval_s=0.05, task_interval_s=0.1, debounce_s=0.05),
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
        """Both tasks, all of their memory and every cpuset are at `first` and the one after it."""
        cpus = f"{first}-{first + 1}"
        return (
            all(self.cpus(path) in (cpus, "") for path in (self.cgroup, self.user))
            and self.bindings() == [{first}, {first + 1}]
            and min(task.share_on(first + rank) for rank, task in enumerate(self.tasks)) >= ENOUGH
        )

    def lies_within(self, first: int) -> bool:
        """All memory is on nodes `first` and the one after it."""
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

    def told(self) -> str:
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
    """Whether it comes true, on a machine that may be slow."""
    return killing.settle(condition, 150)


def finish_with(process: int) -> None:
    os.kill(process, signal.SIGTERM)
    os.waitpid(process, 0)


def test_killed_job_migrates_are_finished(host: Host) -> None:
    """By the agent, or by the next one."""
    chances = chance()
    sums = [task.checksum() for task in host.tasks]
    (host.user / "cpuset.cpus").write_text("0-1")
    first = begun = 0
    began = time.monotonic()
    assert kill_after(host.job_migrate("2-3"), 60) == 0, host.told()
    longest, first = time.monotonic() - began, 2
    assert host.is_at(2), host.told()
    with Journal.open(host.path) as journal:
        for number in range(KILLS):
            target = 2 - first
            cpus = f"{target}-{target + 1}"
            killed = kill_after(host.job_migrate(cpus), chances.uniform(0, longest)) is None
            override = journal.overrides.get("slurm", JOB)
            assert override is not None
            first = min(override.placement.cpus)
            begun += killed and override.under_way
            if not override.under_way:
                assert host.is_at(first), host.told()
            elif number % 10 == 0:
                process = host.agent()
                assert settle(lambda first=first: host.is_at(first)), host.told()
                assert settle(lambda: not under_way(journal)), host.told()
                finish_with(process)
        assert kill_after(host.job_migrate("0-1"), 60) == 0, host.told()
        assert host.is_at(0), host.told()
        assert not under_way(journal)
    print(f"{KILLS} in up to {longest:.2f} s, {begun} of them killed on their way")
    assert [task.checksum() for task in host.tasks] == sums
    assert begun
    check_journal(host.path)


def under_way(journal: Journal) -> bool:
    override = journal.overrides.get("slurm", JOB)
    return override is not None and override.under_way


def test_killed_agents_bring_the_memory_along(host: Host) -> None:
    """While somebody writes cpusets, which takes the tasks' bindings away."""
    chances = chance()
    sums = [task.checksum() for task in host.tasks]
    first = halfway = unbound = 0

    def go() -> None:
        nonlocal first
        first = 2 - first
        (host.cgroup / "cpuset.cpus").write_text(f"{first}-{first + 1}")

    began = time.monotonic()
    process = host.agent()
    assert settle(lambda: host.path.exists() and len(known(host.path)) == 2), host.told()
    longest = 3 * (time.monotonic() - began)
    finish_with(process)
    for _ in range(KILLS):
        if chances.random() < 0.5:
            go()
        assert kill_after(host.agent(), chances.uniform(0, longest)) is None, host.told()
        with Journal.open(host.path) as journal:
            halfway += any(
                seen.visited for seen in journal.placements.known_tasks("slurm", JOB).values()
            )
        assert settle(lambda: not host.frozen()), host.told()
        for rank, bound in enumerate(host.bindings()):
            # Bound to its own, or to both where nobody has seen yet that its binding was lost.
            assert bound in ({first + rank}, {first, first + 1}), host.told()
            unbound += len(bound) > 1
    process = host.agent()
    # A binding that was lost unseen, by a change and its reversal, comes back with the next change.
    assert settle(lambda: host.lies_within(first)), host.told()
    go()
    assert settle(lambda: host.is_at(first)), host.told()
    finish_with(process)
    print(f"{KILLS} agents killed after up to {longest:.2f} s, {halfway} left memory to move;")
    print(f"{unbound} tasks were without a binding of their own then")
    assert [task.checksum() for task in host.tasks] == sums
    assert halfway
    check_journal(host.path)


def known(path: Path) -> set[str]:
    """The tasks that the journal knows."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        if not connection.execute("PRAGMA user_version").fetchone()[0]:
            return set()
        return {task for (task,) in connection.execute("SELECT task FROM placements")}


# -- a guard that is killed as well --------------------------------------------------------------


def test_a_job_whose_guard_was_killed_too_is_thawed_by_the_next(tmp_path: Path) -> None:
    with cgroup("victim") as path, Job("anon", 1, 0, cgroup=path):
        for _ in range(10):

            def work() -> None:
                with rollback.Rollback() as its, freeze_cgroups([path], its):
                    assert its._helper
                    (tmp_path / "helper").write_text(str(its._helper.pid))
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
            assert settle(lambda: rollback.recover() == 1), "the killed ones have it locked"
            assert (path / "cgroup.freeze").read_text().strip() == "0"
