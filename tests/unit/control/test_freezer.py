"""Freeze directories that look like cgroups; tests/numa has real ones."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from schedhook.control.freezer import freeze_cgroups
from schedhook.control.rollback import Rollback
from schedhook.values.errors import RefusedError


@pytest.fixture
def group(tmp_path: Path) -> Path:
    (tmp_path / "cgroup.freeze").write_text("0\n")
    (tmp_path / "cgroup.events").write_text("populated 1\nfrozen 1\n")
    return tmp_path


def state(group: Path) -> str:
    return (group / "cgroup.freeze").read_text().strip()


def test_a_cgroup_is_frozen_for_the_block_only(group: Path) -> None:
    with freeze_cgroups([group], Rollback()):
        assert state(group) == "1"
    assert state(group) == "0"


def test_a_cgroup_that_was_frozen_stays_frozen(group: Path) -> None:
    (group / "cgroup.freeze").write_text("1\n")
    with freeze_cgroups([group], Rollback()):
        assert state(group) == "1"
    assert state(group) == "1"


def test_an_error_thaws_it(group: Path) -> None:
    with pytest.raises(ZeroDivisionError), freeze_cgroups([group], Rollback()):
        _ = 1 / 0
    assert state(group) == "0"


def test_one_that_cannot_be_frozen_leaves_none_frozen(group: Path, tmp_path: Path) -> None:
    with pytest.raises(RefusedError), freeze_cgroups([group, tmp_path / "missing"], Rollback()):
        pytest.fail("the block ran")
    assert state(group) == "0"


@pytest.mark.parametrize("asked", [["1"], ["0"], ["0", "1"], ["1", "0"]])
def test_what_another_process_asks_for_meanwhile_stays(group: Path, asked: list[str]) -> None:
    with Rollback() as rollback, freeze_cgroups([group], rollback):
        for value in asked:
            (group / "cgroup.freeze").write_text(value)
    assert state(group) == asked[-1]


def test_sigkill_thaws_it(group: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path\n"
        "from schedhook.control.freezer import freeze_cgroups\n"
        "from schedhook.control.rollback import Rollback\n"
        "with Rollback() as rollback, freeze_cgroups([Path(sys.argv[1])], rollback):\n"
        "    print('frozen', flush=True); time.sleep(600)"
    )
    command = [sys.executable, "-P", "-c", program, str(group)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as mover:
        assert mover.stdout
        assert mover.stdout.readline() == "frozen\n"
        assert state(group) == "1"
        mover.send_signal(signal.SIGKILL)
    end = time.monotonic() + 30
    while state(group) != "0" and time.monotonic() < end:
        time.sleep(0.05)
    assert state(group) == "0"
