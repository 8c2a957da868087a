"""Processes that hold the lock of their address space: they are left out, and others go on."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from schedhook.backends.native.backend import NativeBackend
from schedhook.host.bounded import SECONDS
from schedhook.roles.backend import Limits, Part
from schedhook.values.errors import NotAnsweringError
from schedhook.values.sets import NodeSet
from tests.numa.hung import hung_process
from tests.numa.jobs import Job, cgroup, is_at_least
from tests.numa.killing import settle
from tests.numa.slurm_jobs import slurm_job
from tests.numa.test_watching import ENOUGH, Host, wait_for

four_nodes = pytest.mark.nodes(4)

MIB = 32
LIMIT = 120
"""Seconds for a command in the emulated guest."""
JOB = "4711"
LIMITS = Limits()


def into(path: Path) -> tuple[str, ...]:
    """Return a command that runs a command in that cgroup."""
    return ("/bin/sh", "-c", f'echo $$ > {path}/cgroup.procs && exec "$@"', "sh")


@contextmanager
def hung_beside_a_job(directory: Path) -> Iterator[tuple[Path, Job, int]]:
    """Yield a cgroup, its job on node 0, and its process that holds its memory's lock."""
    with (
        cgroup("schedhook-hung") as path,
        Job("anon", MIB, 0, cgroup=path) as job,
        hung_process(directory / "file", prefix=into(path)) as pid,
    ):
        yield path, job, pid


@pytest.mark.parametrize("name", ["numa_maps", "smaps", "pagemap", "cmdline", "environ"])
def test_the_kernel_lets_no_reader_through(name: str, tmp_path: Path) -> None:
    if name in ("numa_maps", "smaps") and is_at_least(7, 3):
        pytest.skip("this kernel locks each area by itself")
    with hung_process(tmp_path / "file") as pid:
        reader = subprocess.Popen(["head", "-c", "8", f"/proc/{pid}/{name}"])
        with pytest.raises(subprocess.TimeoutExpired):
            reader.wait(3)
        reader.kill()
        assert reader.wait(LIMIT) == -9  # the reader can be killed


@four_nodes
def test_show_plan_and_relocate_leave_it_out(run: Any, tmp_path: Path) -> None:
    with hung_beside_a_job(tmp_path) as (path, job, pid):
        checksum = job.checksum()
        began = time.monotonic()
        status, shown = run("show", "--cgroup", path)
        assert (status, shown["not_answering"]) == (0, [pid])
        assert job.pid in [each["pid"] for each in shown["processes"]]

        status, plan = run("plan", "--cgroup", path, "--from", 0, "--to", 2)
        assert (status, plan["outcome"], plan["not_answering"]) == (0, "planned", [pid])
        assert plan["bytes_planned"] >= MIB << 20

        for strategy, source, target in (("move-pages", 0, 2), ("migrate-process", 2, 1)):
            status, report = run(
                "relocate", "--cgroup", path, "--from", source, "--to", target,
                "--strategy", strategy,
            )  # fmt: skip
            assert (status, report["outcome"], report["not_answering"]) == (3, "partial", [pid])
            errors = {each["pid"]: each["error"] for each in report["processes"]}
            assert errors[job.pid] is None
            assert f"process {pid} does not answer" in errors[pid]
            assert job.share_on(target) >= ENOUGH
        assert time.monotonic() - began < LIMIT
        assert job.checksum() == checksum

    # Once its server has ended, it answers again.
    with hung_process(tmp_path / "other") as pid:
        _, shown = run("show", "--pid", pid)
        assert shown["not_answering"] == [pid]


def test_a_program_with_a_reader_left_behind_ends(tmp_path: Path) -> None:
    with hung_process(tmp_path / "file") as pid:
        command = [sys.executable, "-P", "-m", "schedhook.cli.main", "show", "--pid", str(pid)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
        assert done.returncode == 0, done.stderr
        assert f"does not answer: process {pid}" in " ".join(done.stdout.split())


@four_nodes
def test_a_profile_is_used_without_it(run: Any, tmp_path: Path) -> None:
    with hung_beside_a_job(tmp_path) as (path, job, pid):
        log = tmp_path / "log"
        log.write_text(
            "".join(
                f"job {each} [002] 1.0: mem-loads: {job.start + offset:x}\n"
                for each in (job.pid, pid)
                for offset in range(0, 64 << 12, 1 << 10)
            )
        )
        status, report = run("profile", log, "--cgroup", path, "--move")
        assert (status, report["outcome"], report["not_answering"]) == (3, "partial", [pid])
        assert job.residency()[2] >= 64 << 12


@four_nodes
def test_cpuset_mems_is_not_written(run_cpuset: Any, tmp_path: Path) -> None:
    """The kernel would wait with a lock that every cgroup needs."""
    with hung_beside_a_job(tmp_path) as (path, job, pid):
        _, report = run_cpuset("--cgroup", path, "--from", 0, "--to", 2)
        assert report["outcome"] in ("refused", "failed")
        print(report["notes"], pid, job.residency())


def test_calls_of_the_backend_are_given_up(tmp_path: Path) -> None:
    """What they use is closed only when the kernel has let them return."""
    with Job("anon", 4, 0) as job, NativeBackend().attach(job.pid) as other:
        areas = other.areas()
        area = max(areas, key=lambda each: each.resident)
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    with hung_process(tmp_path / "file") as pid, NativeBackend().attach(pid) as target:
        assert target.command.startswith("[schedhook-test-")
        assert target.no_answer is None
        began = time.monotonic()
        for call in (
            target.areas,
            lambda: target.sweep(area, area.start, area.end, {0: 0}, shared=True, limits=LIMITS),
            lambda: target.migrate(NodeSet({0}), NodeSet({0})),
            lambda: target.locate(area, area.start, area.end),
            lambda: target.survey(area, Part.ALL, None),
        ):
            with pytest.raises(NotAnsweringError):
                call()
        assert time.monotonic() - began < 5 * SECONDS
        assert str(pid) in (target.no_answer or "")
    assert settle(lambda: len(os.listdir("/proc/self/fd")) <= before, 30)  # noqa: PTH208


def test_doctor_names_it(run: Any, tmp_path: Path) -> None:
    with hung_process(tmp_path / "file") as pid:
        _, found = run("doctor")
        (finding,) = [each for each in found["findings"] if each["subject"] == "processes"]
        assert str(pid) in finding["what"]
        assert finding["level"] == "note"


@four_nodes
def test_the_agent_follows_its_job_and_others(tmp_path: Path) -> None:
    """One user can hang more processes than the agent has threads."""
    with slurm_job(JOB, MIB) as (job, tasks):
        host = Host(directory=tmp_path, cgroup=job, tasks=tasks)
        leaf = job / "step_0/user/task_special"
        with (
            hung_process(tmp_path / "1", prefix=into(leaf)),
            hung_process(tmp_path / "2", prefix=into(leaf)),
            host.agent(),
        ):
            began = time.monotonic()
            (job / "cpuset.cpus").write_text("2-3")
            wait_for(lambda: min(host.shares(2, 3)) >= ENOUGH, host.log)
            print("followed after", time.monotonic() - began, host.log())
        assert time.monotonic() - began < LIMIT + 10 * SECONDS
