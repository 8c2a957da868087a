"""The spool, in which hooks leave events while no agent runs."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from schedhook.hook.message import parse_message
from schedhook.hook.spool import count_spool, read_spool
from schedhook.values.errors import SchedhookError
from tests.unit.agentkit import hook, message


def test_the_spool_is_read_in_the_order_of_writing(tmp_path: Path) -> None:
    for job in ("1", "2", "3"):
        hook(tmp_path, "begin", job)
    jobs = [parse_message(raw).environ["FAKE_JOB"] for _, raw in read_spool(tmp_path / "spool")]
    assert jobs == ["1", "2", "3"]


def test_only_plain_files_of_events_are_read(tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    spool.mkdir(mode=0o700)
    (tmp_path / "secret").write_text("secret")
    (spool / "1.event").symlink_to(tmp_path / "secret")
    os.mkfifo(spool / "2.event")
    (spool / "3.event").mkdir()
    (spool / "4.other").write_text("x")
    (spool / "5.event").write_bytes(message("begin", "7"))
    assert [(path.name, raw) for path, raw in read_spool(spool)] == [
        ("5.event", (spool / "5.event").read_bytes())
    ]


def test_old_partial_messages_are_removed(tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    spool.mkdir(mode=0o700)
    for name, age in (("old.tmp", 7200), ("new.tmp", 0)):
        (spool / name).write_text("half")
        os.utime(spool / name, (time.time() - age,) * 2)
    assert list(read_spool(spool)) == []
    assert [path.name for path in spool.iterdir()] == ["new.tmp"]


def test_a_spool_that_others_may_write_is_not_read(tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    spool.mkdir()
    spool.chmod(0o777)
    (spool / "1.event").write_bytes(message("begin", "7"))
    with pytest.raises(SchedhookError, match="writable by no other"):
        list(read_spool(spool))


def test_a_missing_spool_is_empty(tmp_path: Path) -> None:
    assert list(read_spool(tmp_path / "none")) == []


def test_a_message_that_is_gone_when_its_turn_comes_is_passed_over(tmp_path: Path) -> None:
    for job in ("1", "2", "3"):
        hook(tmp_path, "begin", job)
    messages = read_spool(tmp_path / "spool")
    first, _ = next(messages)
    second = sorted((tmp_path / "spool").iterdir())[1]
    second.unlink()
    assert [parse_message(raw).environ["FAKE_JOB"] for _, raw in messages] == ["3"]
    assert first.exists()


def test_messages_are_counted_and_their_files_closed(tmp_path: Path) -> None:
    assert count_spool(tmp_path / "none") == 0
    for job in ("1", "2"):
        hook(tmp_path, "begin", job)
    (tmp_path / "spool/half.tmp").write_text("half")
    assert count_spool(tmp_path / "spool") == 2
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    assert len(list(read_spool(tmp_path / "spool"))) == 2
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
    with pytest.raises(SchedhookError, match="Not a directory"):
        count_spool(tmp_path / "spool/half.tmp")
