"""Open the journal's file: damage, owners, permissions and full disks."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from schedhook.journal.errors import JournalError
from schedhook.journal.file import journal_path
from schedhook.journal.journal import Journal
from schedhook.values.config import Config, JournalSection
from schedhook.values.errors import SchedhookError
from tests.users import NOBODY


@pytest.mark.parametrize(
    "content", [b"this is no database\n" * 400, b"SQLite format 3\0" + b"\xff" * 5000]
)
def test_a_damaged_file_is_refused_and_left_alone(path: Path, content: bytes) -> None:
    path.parent.mkdir(mode=0o700)
    path.write_bytes(content)
    with pytest.raises(JournalError, match=r"journal\.db: .*move it away"):
        Journal.open(path)
    assert path.read_bytes() == content


def test_damaged_pages_are_an_error_with_a_remedy(path: Path) -> None:
    with Journal.open(path) as journal:
        for number in range(300):
            journal.runs.record_start("slurm", str(number))
    whole = path.read_bytes()
    path.write_bytes(whole[:4096] + b"\xa5" * (len(whole) - 4096))
    with (
        pytest.raises(JournalError, match="damaged; move it away"),
        Journal.open(path) as journal,
    ):
        journal.runs.record_start("slurm", "new")
        journal.history()


def test_a_newer_schema_is_refused(path: Path) -> None:
    Journal.open(path).close()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(JournalError, match="newer schedhook"):
        Journal.open(path)


def test_a_database_with_other_tables_is_refused(path: Path) -> None:
    path.parent.mkdir(mode=0o700)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE jobs (something TEXT)")
    path.chmod(0o600)
    with pytest.raises(JournalError, match="move it away"):
        Journal.open(path)


def test_other_users_can_neither_read_nor_write_it(path: Path) -> None:
    with Journal.open(path) as journal:
        journal.runs.record_start("slurm", "7")
        assert path.parent.stat().st_mode & 0o777 == 0o700
        for file in path.parent.iterdir():
            assert file.stat().st_mode & 0o777 == 0o600, file


@pytest.mark.parametrize("mode", [0o770, 0o707])
def test_a_directory_that_other_users_can_write_is_refused(path: Path, mode: int) -> None:
    path.parent.mkdir()
    path.parent.chmod(mode)
    with pytest.raises(JournalError, match="may be written by others"):
        Journal.open(path)


def test_a_symbolic_link_is_not_followed(path: Path, tmp_path: Path) -> None:
    path.parent.mkdir(mode=0o700)
    victim = tmp_path / "victim"
    victim.write_text("precious")
    path.symlink_to(victim)
    with pytest.raises(JournalError, match="not a regular file"):
        Journal.open(path)
    assert victim.read_text() == "precious"


def in_child(work: str, path: Path, *, before: str = "") -> str:
    """Run `work` on a journal in another process, and return what it prints."""
    program = f"""
import os, resource, sys
from pathlib import Path
from typing import Any
from schedhook.journal.errors import JournalError
from schedhook.journal.journal import Journal
path = Path(sys.argv[1])
{before}
{work}
"""
    result = subprocess.run(
        [sys.executable, "-c", program, str(path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_a_user_without_permission_gets_an_error_with_the_path(path: Path) -> None:
    Journal.open(path).close()
    path.parent.chmod(0o755)
    path.chmod(0o644)
    said = in_child(
        """
try:
    Journal.open(path).runs.record_start("slurm", "7")
except JournalError as error:
    print(error)
""",
        path,
        before=f"if os.geteuid() == 0: os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})\n"
        "else: os.chmod(path, 0o400)",
    )
    assert str(path) in said
    assert "Permission denied" in said


def test_a_full_disk_is_an_error_and_loses_nothing(path: Path) -> None:
    with Journal.open(path) as journal:
        journal.runs.record_start("slurm", "before")
    said = in_child(
        """
journal = Journal.open(path)
try:
    for number in range(100_000):
        journal.runs.record_start("slurm", str(number))
except JournalError as error:
    print(error)
journal.runs.latest("slurm", "before").job
""",
        path,
        # A limit on the size of files has the same effect as a full disk.
        before="import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))",
    )
    assert "the disk" in said
    with Journal.open(path) as journal:
        assert journal.runs.latest("slurm", "before") is not None
        journal.runs.record_start("slurm", "after")


def test_a_disk_without_room_for_a_new_journal_is_an_error(path: Path) -> None:
    said = in_child(
        """
try:
    Journal.open(path)
except JournalError as error:
    print(error)
""",
        path,
        before="import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))",
    )
    assert "the disk" in said


def test_a_missing_journal_is_an_error(path: Path) -> None:
    assert issubclass(JournalError, SchedhookError)
    with pytest.raises(JournalError, match="cannot be used"):
        Journal.open(path, create=False)


def test_the_default_path_depends_on_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    in_home = Path("~/.local/state/schedhook/journal.db").expanduser()
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert journal_path(Config(), {}) == Path("/var/lib/schedhook/journal.db")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert journal_path(Config(), {"XDG_STATE_HOME": "/s"}) == Path("/s/schedhook/journal.db")
    assert journal_path(Config(), {"XDG_STATE_HOME": "s"}) == in_home


def test_the_configured_path_comes_first() -> None:
    config = Config(journal=JournalSection(path="/j"))
    assert journal_path(config, {"XDG_STATE_HOME": "/s"}) == Path("/j")
