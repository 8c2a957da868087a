"""The agent on the real kernel: with cgroups as Slurm makes them, memory follows without hooks."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from schedhook.journal.journal import Journal
from tests.numa.agents import PATIENCE, recorded, running_agent
from tests.numa.dirt import LITTLE, PageCache, count_killed, fill_with_files, taken, tmpfs
from tests.numa.jobs import Job, drop_caches
from tests.numa.slurm_jobs import slurm_job

pytestmark = pytest.mark.nodes(4)

JOB = "4711"
BIG, LARGE = 32, 300
"""MiB of each task; the second does not fit on a node without its page cache being dropped."""
ENOUGH = 0.999
UNIT_CAPABILITIES = "-all,+sys_nice,+sys_ptrace,+dac_read_search,+sys_admin"
"""CapabilityBoundingSet of contrib/systemd/schedhook-agent.service."""


@dataclass(kw_only=True)
class Host:
    """A host with one Slurm job of two tasks, on nodes 0 and 1, and an agent."""

    directory: Path
    cgroup: Path
    tasks: list[Job] = field(default_factory=list)

    def history(self) -> list[dict[str, Any]]:
        with Journal.open(self.directory / "state" / "journal.db", create=False) as journal:
            return journal.history(JOB)

    def is_known(self) -> bool:
        """Return whether the agent has recorded the job's placement."""
        path = self.directory / "state" / "journal.db"
        if not path.exists():
            return False
        return len(recorded(self.history())) >= len(self.tasks)

    def shares(self, *nodes: int) -> list[float]:
        """Return the share of each task's memory on its node."""
        return [task.share_on(node) for task, node in zip(self.tasks, nodes, strict=True)]

    @contextmanager
    def agent(self, config: str = "", *prefix: str) -> Iterator[int]:
        """Run an agent for the block and yield its process; `prefix` is a command that runs it."""
        file = self.directory / "config.toml"
        file.write_text(
            f'[log]\nlevel = "debug"\n'
            f'[journal]\npath = "{self.directory}/state/journal.db"\n{config}'
        )
        options = ["--socket", self.directory / "s", "--spool", self.directory / "spool"]
        log = self.directory / "log"
        with running_agent(log, "--config", file, *options, prefix=prefix) as process:
            wait_for(self.is_known, self.log)
            yield process

    def log(self) -> str:
        return (self.directory / "log").read_text()[-3000:]


def wait_for(condition: Callable[[], Any], describe: Callable[[], str] = str) -> None:
    limit = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < limit, describe()
        time.sleep(0.1)


@pytest.fixture
def mib() -> int:
    """MiB of each task."""
    return BIG


@pytest.fixture
def host(tmp_path: Path, mib: int) -> Iterator[Host]:
    with slurm_job(JOB, mib) as (cgroup, tasks):
        yield Host(directory=tmp_path, cgroup=cgroup, tasks=tasks)


def test_memory_of_each_task_follows_a_change_of_the_cpuset_alone(host: Host) -> None:
    sums = [task.checksum() for task in host.tasks]
    assert min(host.shares(0, 1)) > ENOUGH
    with host.agent():
        (host.cgroup / "cpuset.cpus").write_text("2-3")
        wait_for(lambda: min(host.shares(2, 3)) >= ENOUGH, host.log)
        wait_for(lambda: len(host.history()[0]["reports"]) == 2, host.log)
    assert [os.sched_getaffinity(task.pid) for task in host.tasks] == [{2}, {3}]
    assert [task.checksum() for task in host.tasks] == sums
    reports = host.history()[0]["reports"]
    assert sorted(json.dumps(report["node_map"]) for report in reports) == ['{"0": 2}', '{"1": 3}']
    assert all(report["outcome"] == "complete" for report in reports)


def test_memory_of_a_task_follows_its_affinity(host: Host) -> None:
    (host.cgroup / "cpuset.cpus").write_text("0-3")
    os.sched_setaffinity(host.tasks[0].pid, {0})
    os.sched_setaffinity(host.tasks[1].pid, {1})
    with host.agent():
        os.sched_setaffinity(host.tasks[1].pid, {3})
        wait_for(lambda: host.tasks[1].share_on(3) >= ENOUGH, host.log)
        assert host.tasks[0].share_on(0) > ENOUGH


def points_of(host: Host) -> list[str]:
    """Return what the journal has of the job's events, in order."""
    return [event["point"] for event in host.history()[0]["events"]]


def test_a_frozen_job_is_parked_at_once_and_moved_back(host: Host) -> None:
    """The kernel notifies of freezing; the agent itself reads tasks only once an hour here."""
    config = '[watch]\ntask_interval_s = 3600.0\n[actions]\npark = "2-3"\n'
    user = host.cgroup / "step_0" / "user"
    with host.agent(config):
        time.sleep(3)  # until the events of the start are handled
        (user / "cgroup.freeze").write_text("1")
        # Each task on the node that has more room then.
        wait_for(
            lambda: all(max(task.share_on(2), task.share_on(3)) >= ENOUGH for task in host.tasks),
            host.log,
        )
        (user / "cgroup.freeze").write_text("0")
        wait_for(lambda: min(host.shares(0, 1)) >= ENOUGH, host.log)
        # A look that was queued behind the parking may have brought it back before.
        wait_for(lambda: "resumed" in points_of(host), host.log)
    points = points_of(host)
    assert [point for point in points if point != "look"] == ["job-started", "suspended", "resumed"]


def test_a_stopped_job_is_parked_and_moved_back(host: Host) -> None:
    with host.agent('[actions]\npark = "3"\n'):
        for task in host.tasks:
            task.process.send_signal(signal.SIGSTOP)
        wait_for(lambda: min(host.shares(3, 3)) >= ENOUGH, host.log)
        for task in host.tasks:
            task.process.send_signal(signal.SIGCONT)
        wait_for(lambda: min(host.shares(0, 1)) >= ENOUGH, host.log)


# -- room -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mib", [LARGE])
def test_memory_follows_onto_nodes_full_of_page_cache(host: Host, page_cache: PageCache) -> None:
    with host.agent():
        for node in (2, 3):
            page_cache.fill(node)
        (host.cgroup / "cpuset.cpus").write_text("2-3")
        wait_for(lambda: min(host.shares(2, 3)) >= ENOUGH, host.log)
        wait_for(lambda: len(host.history()[0]["reports"]) == 2, host.log)
    assert [report["outcome"] for report in host.history()[0]["reports"]] == ["complete"] * 2


@pytest.mark.parametrize("mib", [LARGE])
def test_a_job_is_parked_and_returns_among_page_cache(host: Host, page_cache: PageCache) -> None:
    """Cache fills the node on which it is parked, and its own nodes while it is away."""
    user = host.cgroup / "step_0" / "user"
    with host.agent('[actions]\npark = "2"\n'):
        page_cache.fill(2)
        (user / "cgroup.freeze").write_text("1")
        wait_for(lambda: min(host.shares(2, 2)) >= ENOUGH, host.log)
        for node in (0, 1):
            page_cache.fill(node)
        (user / "cgroup.freeze").write_text("0")
        wait_for(lambda: min(host.shares(0, 1)) >= ENOUGH, host.log)


@pytest.mark.parametrize("mib", [LARGE])
def test_memory_follows_once_files_in_memory_have_made_room(host: Host, tmp_path: Path) -> None:
    drop_caches()
    killed = count_killed()
    with (
        taken(2, leave=LARGE + 2 * LITTLE),
        tmpfs(tmp_path / "tmpfs") as files,
        host.agent("[agent]\nretry_s = 1\n"),
    ):
        fill_with_files(files, 2)
        (host.cgroup / "cpuset.cpus").write_text("2-3")
        wait_for(lambda: host.tasks[1].share_on(3) >= ENOUGH, host.log)
        wait_for(lambda: "node 2 has no room" in host.log(), host.log)
        assert host.tasks[0].share_on(0) >= ENOUGH
        for file in files.iterdir():
            file.unlink()
        wait_for(lambda: host.tasks[0].share_on(2) >= ENOUGH, host.log)
    assert count_killed() == killed


def test_the_capabilities_of_the_service_are_enough(host: Host) -> None:
    for task in host.tasks:
        assert Path(f"/proc/{task.pid}").stat().st_uid == 0
    prefix = ("setpriv", "--bounding-set", UNIT_CAPABILITIES, "--inh-caps", "-all")
    with host.agent("", *prefix) as process:
        status = Path(f"/proc/{process}/status").read_text()
        effective = int(status.partition("CapEff:")[2].split()[0], 16)
        assert effective == sum(1 << number for number in (23, 21, 19, 2)), UNIT_CAPABILITIES
        (host.cgroup / "cpuset.cpus").write_text("2-3")
        wait_for(lambda: min(host.shares(2, 3)) >= ENOUGH, host.log)


def test_with_a_full_disk_memory_follows_without_a_record(host: Host, tmp_path: Path) -> None:
    small = tmp_path / "state"
    small.mkdir(mode=0o700)
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=512k,mode=0700", "none", small], check=True, timeout=60
    )
    try:
        with host.agent():
            filler = (small / "filler").open("wb", buffering=0)
            with filler, pytest.raises(OSError, match="No space left"):
                while True:
                    filler.write(b"x" * 4096)
                    filler.flush()
            for node in (2, 0, 3):
                os.sched_setaffinity(host.tasks[0].pid, {0, 1})
                (host.cgroup / "cpuset.cpus").write_text(f"1,{node}" if node else "0-1")
                os.sched_setaffinity(host.tasks[0].pid, {node})
                os.sched_setaffinity(host.tasks[1].pid, {1})
                wait_for(lambda node=node: host.tasks[0].share_on(node) >= ENOUGH, host.log)
            (small / "filler").unlink()
            os.sched_setaffinity(host.tasks[0].pid, {1})
            wait_for(lambda: host.tasks[0].share_on(1) >= ENOUGH, host.log)
            wait_for(lambda: host.history()[0]["reports"], host.log)
        assert "the disk is full" in host.log()
    finally:
        subprocess.run(["umount", small], check=True, timeout=60)
