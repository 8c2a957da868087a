"""keep_local on the real kernel: an agent brings off-node memory home, or says why not."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from schedhook.host.topology import read_topology
from schedhook.journal.journal import Journal
from tests.numa.agents import running_agent
from tests.numa.dirt import fill_with_files, tmpfs
from tests.numa.jobs import MIB, Job, drop_caches, numa_stat
from tests.numa.slurm_jobs import slurm_job

pytestmark = pytest.mark.nodes(4)

SIZE = 200
"""MiB of a job."""
HOME, AWAY = 0, 1
MINUTE = 60.0
LONG = 7200
CONFIG = "[actions]\nkeep_local = true\n"


@dataclass(frozen=True, kw_only=True)
class Host:
    """A host with an agent that keeps memory local."""

    directory: Path

    def lines(self, job: str) -> list[str]:
        """Return what the journal has of the decisions about a job."""
        path = self.directory / "db"
        if not path.exists():
            return []
        with Journal.open(path, create=False) as journal:
            runs = journal.history(job)
        return [
            str(each["summary"])
            for run in runs
            for each in run["events"]
            if each["point"] == "keep-local"
        ]

    def wait_for(self, condition: Callable[[], Any], seconds: float = MINUTE) -> float:
        """Wait until the condition holds, and return for how long."""
        began = time.monotonic()
        while not condition():
            assert time.monotonic() - began < seconds, (self.directory / "log").read_text()[-3000:]
            time.sleep(0.2)
        return time.monotonic() - began


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    drop_caches()
    file = tmp_path / "config.toml"
    file.write_text(f'[log]\nlevel = "debug"\n[journal]\npath = "{tmp_path}/db"\n{CONFIG}')
    options = ["--config", file, "--socket", tmp_path / "s", "--spool", tmp_path / "spool"]
    with running_agent(tmp_path / "log", *options):
        yield Host(directory=tmp_path)


@contextmanager
def astray(job: str, seconds: int = LONG, mib: int = SIZE) -> Iterator[tuple[Path, Job]]:
    """Run a job on node HOME whose memory the kernel has put on node AWAY; it ends by itself."""
    end = str(int(time.time()) + seconds)
    with (
        patch.dict(os.environ, SLURM_JOB_END_TIME=end),
        slurm_job(job, mib, (HOME,), memory=(AWAY,)) as (path, tasks),
    ):
        yield path, tasks[0]


def is_home(path: Path) -> bool:
    """Return whether the kernel counts the job's memory at home: memory.numa_stat."""
    sizes = numa_stat(path, "anon")
    return sizes.get(HOME, 0) >= SIZE * MIB and sizes.get(AWAY, 0) < 16 * MIB


def room_of(node: int) -> int:
    return read_topology().node(node).room // MIB


def test_memory_comes_home_when_another_job_ends(host: Host) -> None:
    neighbour = slurm_job("4702", room_of(HOME) - SIZE // 2, (HOME,))
    with astray("4701") as (path, job):
        with neighbour:
            before = job.checksum()
            host.wait_for(lambda: host.lines("4701"), 2 * MINUTE)
            (line,) = host.lines("4701")
            assert "wait for room: node 0 has no room" in line
            time.sleep(25)
            assert host.lines("4701") == [line], "what has not changed is not written again"
            assert not is_home(path)
        seconds = host.wait_for(lambda: is_home(path))
        host.wait_for(lambda: len(host.lines("4701")) == 2)
        print("home", seconds, "s after the other job's end:", host.lines("4701"))
        assert f"{SIZE}." in host.lines("4701")[1]
        assert job.checksum() == before
        assert job.share_on(HOME) == 1


@pytest.mark.short(0)
def test_memory_comes_home_when_files_in_memory_are_gone(host: Host, tmp_path: Path) -> None:
    with tmpfs(tmp_path / "files") as files, astray("4703") as (path, job):
        fill_with_files(files, HOME, SIZE // 2)
        host.wait_for(lambda: host.lines("4703"), 2 * MINUTE)
        assert "wait for room" in host.lines("4703")[0]
        for file in files.iterdir():
            file.unlink()
        drop_caches()
        seconds = host.wait_for(lambda: is_home(path))
        print("home", seconds, "s after the caches were dropped:", host.lines("4703"))
        assert job.share_on(HOME) == 1


def test_a_job_about_to_end_and_a_bound_one_are_left_alone(host: Host) -> None:
    with (
        astray("4704", seconds=50, mib=64) as (ending, _),
        astray("4705", mib=64) as (bound, job),
    ):
        job.say(f"policy 2 {AWAY}")  # MPOL_BIND
        host.wait_for(lambda: host.lines("4704") and host.lines("4705"), 2 * MINUTE)
        assert "the job ends in" in host.lines("4704")[0]
        assert f"bound off-node by memory policies: bind:{AWAY}" in host.lines("4705")[0]
        time.sleep(30)
        assert [len(host.lines(job)) for job in ("4704", "4705")] == [1, 1]
        for path in (ending, bound):
            assert numa_stat(path, "anon").get(AWAY, 0) >= 64 * MIB


@pytest.mark.short(0)
def test_what_was_gained_is_counted(host: Host) -> None:
    with astray("4706") as (path, _):
        host.wait_for(lambda: is_home(path), 2 * MINUTE)
        host.wait_for(lambda: host.lines("4706"))
        time.sleep(25)
        with Journal.open(host.directory / "db", create=False) as journal:
            (entry,) = journal.history("4706")
        gained = entry["off_node_gib_hours_avoided"] * 3600 * 1024
        assert SIZE * 20 <= gained <= SIZE * 70, "MiB times seconds"
    host.wait_for(lambda: "off-node avoided" in host.lines("4706")[-1])
    with Journal.open(host.directory / "db", create=False) as journal:
        assert journal.counters.read()["avoided", "slurm"] >= SIZE * MIB * 20.0
