"""Reading the spool: only when it has changed, and no event twice."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from schedhook.agent.spool_reader import SpoolReader
from tests.unit.agentkit import hook, message

LONG_AGO = 1_000_000_000


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    for job in ("1", "2"):
        hook(tmp_path, "begin", job)
    return tmp_path / "spool"


def changed(spool: Path, seconds: float) -> None:
    os.utime(spool, (seconds, seconds))


def test_a_spool_is_read_once_for_each_change(spool: Path) -> None:
    reader = SpoolReader(spool)
    changed(spool, LONG_AGO)
    assert [reader.has_changed() for _ in range(3)] == [True, False, False]
    changed(spool, LONG_AGO + 1)
    assert [reader.has_changed() for _ in range(2)] == [True, False]
    reader.read_again()
    assert [reader.has_changed() for _ in range(2)] == [True, False]


def test_a_change_of_just_now_may_hide_another(spool: Path) -> None:
    """A clock of a file system can stand still for some milliseconds."""
    reader = SpoolReader(spool)
    changed(spool, time.time() - 0.3)
    assert [reader.has_changed() for _ in range(2)] == [True, True]
    changed(spool, time.time() - 30)
    assert [reader.has_changed() for _ in range(2)] == [True, False]


def test_a_claimed_event_is_read_again_only_after_it_was_removed(spool: Path) -> None:
    reader = SpoolReader(spool)
    (first, _), (second, _) = reader.messages()
    reader.claim(first)
    assert [path for path, _ in reader.messages()] == [second]
    reader.remove(first)
    reader.remove(first)  # another process may have done so
    assert not first.exists()
    first.write_bytes(message("begin", "3"))
    assert [path for path, _ in reader.messages()] == [first, second]


def test_one_that_is_removed_while_the_spool_is_read_is_passed_over(spool: Path) -> None:
    reader = SpoolReader(spool)
    messages = reader.messages()
    first, _ = next(messages)
    (second,) = set(spool.glob("*.event")) - {first}
    reader.remove(second)
    assert list(messages) == []


def test_one_that_cannot_be_removed_is_handled_once(
    spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    reader = SpoolReader(spool)
    (first, _), (second, _) = reader.messages()
    monkeypatch.setattr(Path, "unlink", fail)
    reader.remove(first)
    assert first.exists()
    assert [path for path, _ in reader.messages()] == [second]


def test_a_message_is_written_unless_others_may_write_there(spool: Path) -> None:
    raw = message("begin", "3")
    written = SpoolReader(spool).write(raw)
    assert written is not None
    assert written.read_bytes() == raw
    spool.chmod(0o777)
    assert SpoolReader(spool).write(raw) is None
