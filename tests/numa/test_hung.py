"""Processes that hold the lock of their address space: they are left out, and others go on."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from schedhook.backends.native.backend import NativeBackend
from schedhook.host.bounded import SECONDS
from schedhook.roles.backend import Limits, Part
from schedhook.values.errors import NotAnsweringError
from schedhook.values.sets import NodeSet
from tests.numa.hung import hung_process
from tests.numa.jobs import Job
from tests.numa.killing import settle

LIMIT = 120
"""Seconds for a command in the emulated guest."""
LIMITS = Limits()


@pytest.mark.parametrize("name", ["numa_maps", "smaps", "pagemap", "cmdline", "environ"])
def test_the_kernel_lets_no_reader_through(name: str, tmp_path: Path) -> None:
    with hung_process(tmp_path / "file") as pid:
        reader = subprocess.Popen(["head", "-c", "8", f"/proc/{pid}/{name}"])
        with pytest.raises(subprocess.TimeoutExpired):
            reader.wait(3)
        reader.kill()
        assert reader.wait(LIMIT) == -9  # the reader can be killed


def test_a_program_with_a_reader_left_behind_ends(tmp_path: Path) -> None:
    with hung_process(tmp_path / "file") as pid:
        command = [sys.executable, "-P", "-m", "schedhook.cli.main", "show", "--pid", str(pid)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
        assert done.returncode == 0, done.stderr
        assert f"does not answer: process {pid}" in " ".join(done.stdout.split())


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
