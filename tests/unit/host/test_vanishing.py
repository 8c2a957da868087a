"""schedhook.host.vanishing."""

from __future__ import annotations

from pathlib import Path

import pytest

from schedhook.host.vanishing import call_with_living, read_living
from schedhook.testing import write_process
from schedhook.values.errors import NoPermissionError, ProcessGoneError


def _read(number: int) -> str:
    if number == 2:
        raise ProcessGoneError("gone")
    if number == 3:
        raise NoPermissionError("no")
    return str(number)


def test_what_has_ended_is_left_out() -> None:
    assert list(read_living([1, 2, 4], _read)) == [(1, "1"), (4, "4")]


def test_other_errors_are_raised_unless_they_are_named() -> None:
    with pytest.raises(NoPermissionError):
        list(read_living([1, 2, 3], _read))
    skipped = (ProcessGoneError, NoPermissionError)
    assert list(read_living([1, 2, 3], _read, skipped=skipped)) == [(1, "1")]


def test_the_call_is_repeated_without_the_process_that_ended(tmp_path: Path) -> None:
    write_process(tmp_path, 1)
    write_process(tmp_path, 2)
    calls = []

    def act(pids: tuple[int, ...]) -> str:
        calls.append(pids)
        if len(calls) == 1:
            (tmp_path / "proc/1").rename(tmp_path / "ended")
            raise ProcessGoneError("gone")
        return "done"

    assert call_with_living([1, 2, 3], act, tmp_path) == "done"
    assert calls == [(1, 2), (2,)]


def test_without_a_process_nothing_is_called(tmp_path: Path) -> None:
    def act(pids: tuple[int, ...]) -> str:
        raise AssertionError(pids)

    assert call_with_living([1], act, tmp_path) is None


def test_the_number_of_calls_is_bounded(tmp_path: Path) -> None:
    write_process(tmp_path, 1)
    calls = []

    def act(pids: tuple[int, ...]) -> str:
        calls.append(pids)
        raise ProcessGoneError("gone")

    assert call_with_living([1], act, tmp_path) is None
    assert len(calls) == 3
