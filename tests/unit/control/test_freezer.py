"""Freeze directories that look like cgroups; tests/numa has real ones."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from schedhook.backends.simulated import SimulatedBackend
from schedhook.control import freezer
from schedhook.control.freezer import cgroups_to_freeze, freeze_cgroups
from schedhook.control.rollback import Rollback
from schedhook.roles.backend import Target
from schedhook.testing.hosts import write_cgroup, write_cgroup_mounts, write_process
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


def test_processes_that_stop_late_are_waited_for_a_while(
    group: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (group / "cgroup.events").write_text("populated 1\nfrozen 0\n")
    monkeypatch.setattr(freezer, "_SETTLE_SECONDS", 0.3)
    began = time.monotonic()
    with freeze_cgroups([group], Rollback()):
        assert 0.3 <= time.monotonic() - began < 10


def test_processes_that_have_stopped_are_not_waited_for(
    group: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(freezer, "_SETTLE_SECONDS", 60.0)
    began = time.monotonic()
    with freeze_cgroups([group], Rollback()):
        assert time.monotonic() - began < 30


# -- which ones -----------------------------------------------------------------------------------


@pytest.fixture
def host(tmp_path: Path) -> Path:
    write_cgroup_mounts(tmp_path)
    for pid, cgroup in ((10, "/job"), (11, "/job"), (20, "/other"), (30, "/")):
        write_process(tmp_path, pid, cgroup=f"0::{cgroup}\n")
    for name in ("job", "other"):
        write_cgroup(tmp_path, name, files={"cgroup.freeze": "0\n"})
    return tmp_path


def targets(*pids: int) -> Sequence[Target]:
    backend = SimulatedBackend()
    for pid in pids:
        backend.add_process(pid)
    return [backend.attach(pid) for pid in pids]


def test_each_cgroup_of_the_processes_is_frozen_once(host: Path) -> None:
    found = cgroups_to_freeze(targets(10, 20, 11), None, host)
    assert found == [host / "sys/fs/cgroup/job", host / "sys/fs/cgroup/other"]


def test_a_cgroup_that_is_named_is_frozen_itself(host: Path) -> None:
    assert cgroups_to_freeze(targets(20), "/job", host) == [host / "sys/fs/cgroup/job"]


def test_of_a_process_that_has_ended_none_is_frozen(host: Path) -> None:
    backend = SimulatedBackend()
    for pid in (10, 20):
        backend.add_process(pid)
    ended, lives = backend.attach(10), backend.attach(20)
    backend.end_process(10)
    assert cgroups_to_freeze([ended, lives], None, host) == [host / "sys/fs/cgroup/other"]
    (reused,) = targets(99)  # no such process any more
    assert cgroups_to_freeze([reused], None, host) == []


def test_the_topmost_cgroup_is_refused(host: Path) -> None:
    with pytest.raises(RefusedError, match="the topmost one"):
        cgroups_to_freeze(targets(30), None, host)


@pytest.mark.parametrize("cgroup", [None, "/job"])
def test_a_host_without_version_2_is_refused(host: Path, cgroup: str | None) -> None:
    (host / "proc/mounts").write_text("cgroup /sys/fs/cgroup/cpuset cgroup rw,cpuset 0 0\n")
    write_cgroup(host, "job", version=1)
    with pytest.raises(RefusedError, match="of version 1"):
        cgroups_to_freeze(targets(10), cgroup, host)


def test_a_process_does_not_freeze_itself(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Above the own cgroup and in it; a cgroup beside it is another matter."""
    write_process(host, os.getpid(), cgroup="0::/job/step\n")
    directory = freezer._directory

    def on_this_host(pid: int, _root: Path) -> Path | None:
        return directory(pid, host)

    monkeypatch.setattr(freezer, "_directory", on_this_host)
    with pytest.raises(RefusedError, match="this process is in it"):
        cgroups_to_freeze(targets(10), None, Path("/"))
    assert cgroups_to_freeze(targets(20), None, Path("/")) == [host / "sys/fs/cgroup/other"]
