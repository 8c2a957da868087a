"""A variable of another process, which may say anything, be huge, or be between two programs."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from schedhook.host import environ
from schedhook.host.environ import read_variable


@contextmanager
def running(variables: Mapping[str, str]) -> Iterator[int]:
    """Run a program with this environment and yield its process."""
    with subprocess.Popen(["/bin/sleep", "60"], env=variables) as process:
        try:
            while Path(f"/proc/{process.pid}/comm").read_text() != "sleep\n":
                time.sleep(0.01)
            yield process.pid
        finally:
            process.kill()


def yes() -> bool:
    return True


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def write(root: Path, content: bytes) -> None:
    (root / "proc/77").mkdir(parents=True)
    (root / "proc/77/environ").write_bytes(content)


def test_the_variable_of_a_running_process_is_read() -> None:
    with running({"A": "1", "SCHEDHOOK": "off", "SCHEDHOOKS": "x"}) as pid:
        assert read_variable(pid, "SCHEDHOOK", yes) == b"off"
        assert read_variable(pid, "SCHED", yes) is None


def test_a_process_that_has_gone_says_nothing() -> None:
    with running({"SCHEDHOOK": "off"}) as pid:
        pass
    assert read_variable(pid, "SCHEDHOOK", yes) is None


def test_a_process_that_has_taken_over_the_number_is_not_read(tmp_path: Path) -> None:
    """The question comes while /proc/PID is held: another process is read in neither order."""
    write(tmp_path, b"SCHEDHOOK=off\0")
    assert read_variable(77, "SCHEDHOOK", lambda: False, tmp_path) is None

    def replaced() -> bool:
        (tmp_path / "proc/77").rename(tmp_path / "proc/gone")
        write(tmp_path, b"SCHEDHOOK=follow\0")
        return True

    assert read_variable(77, "SCHEDHOOK", replaced, tmp_path) == b"off"


def test_no_more_than_a_limit_is_read(tmp_path: Path) -> None:
    write(tmp_path, b"A=" + b"x" * (1 << 20) + b"\0SCHEDHOOK=off\0")
    assert read_variable(77, "SCHEDHOOK", yes, tmp_path) is None


def test_the_first_of_several_counts_as_in_getenv(tmp_path: Path) -> None:
    write(tmp_path, b"\0\xff\0=\0SCHEDHOOK\0SCHEDHOOK=off\0SCHEDHOOK=follow")
    assert read_variable(77, "SCHEDHOOK", yes, tmp_path) == b"off"


def test_a_process_that_replaces_its_program_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has no environment between two programs, execve(2)."""
    write(tmp_path, b"")
    told = tmp_path / "proc/77/environ"
    monkeypatch.setattr(environ.time, "sleep", lambda _: told.write_bytes(b"SCHEDHOOK=off\0"))
    assert read_variable(77, "SCHEDHOOK", yes, tmp_path) == b"off"


def test_a_process_without_environment_says_nothing(tmp_path: Path) -> None:
    write(tmp_path, b"")
    assert read_variable(77, "SCHEDHOOK", yes, tmp_path) is None


def test_no_descriptor_stays_open(tmp_path: Path) -> None:
    write(tmp_path, b"A=1\0")
    (tmp_path / "proc/78").mkdir()
    before = open_files()
    for pid in (77, 78, 79):
        read_variable(pid, "A", yes, tmp_path)
        read_variable(pid, "A", lambda: False, tmp_path)
    assert open_files() == before
