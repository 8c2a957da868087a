"""`show` on the real kernel: a job that got other CPUs, before and after its memory follows."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from schedhook.cli.main import main
from schedhook.host.topology import read_topology
from tests.numa.jobs import MIB, Job, cgroup

pytestmark = pytest.mark.nodes(4)

SIZE = 64
STRAY = 2 * MIB
"""Bytes of the program itself at most: its stack, its data."""


@pytest.fixture
def job() -> Iterator[Job]:
    """Return a process with memory on node 0, in a cgroup as Slurm makes it for a job 72."""
    with cgroup("slurmstepd.scope") as scope:
        leaf = scope / "job_72/step_0/user/task_0"
        leaf.mkdir(parents=True)
        with Job("anon", SIZE, 0, cgroup=leaf) as job:
            yield job


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Any:
    """Return a function that calls the command in this process: a new one starts slowly."""

    def run(*arguments: object) -> dict[str, Any]:
        capsys.readouterr()
        main([str(each) for each in arguments] + ["--json"], standalone_mode=False)
        printed = capsys.readouterr().out
        print(printed)  # shown if the test fails
        found: dict[str, Any] = json.loads(printed)
        return found

    return run


def test_memory_is_off_node_until_it_follows_the_job(run: Any, job: Job, tmp_path: Path) -> None:
    (there,) = run("show")["jobs"]
    assert there["placement"]["nodes"] == str(read_topology().memory_nodes)
    assert there["bytes_off_node"] == 0  # not bound, so no node is off-node

    os.sched_setaffinity(job.pid, read_topology().cpus_of([2]))
    (away,) = run("show")["jobs"]
    assert (away["scheduler"], away["job"], away["placement"]["nodes"]) == ("slurm", "72", "2")
    assert SIZE * MIB <= away["off_node"]["0"] <= SIZE * MIB + STRAY
    assert away["processes"][0]["pid"] == job.pid

    picture = tmp_path / "ticket.svg"
    run("relocate", "--job", 72, "--from", "0,1,3", "--to", 2, "--svg", picture)
    assert job.share_on(2) > 0.999
    (home,) = run("show")["jobs"]
    assert home["bytes_off_node"] == 0
    assert home["residency"]["2"] >= SIZE * MIB
    assert "job 72: complete" in picture.read_text()


def test_memory_on_the_node_of_any_thread_is_not_off_node(run: Any, job: Job) -> None:
    job.say("threads 1")
    os.sched_setaffinity(job.pid, read_topology().cpus_of([2]))
    shown = run("show", "--pid", job.pid)
    assert shown["placement"]["nodes"] == str(read_topology().memory_nodes)
    assert shown["bytes_off_node"] == 0
