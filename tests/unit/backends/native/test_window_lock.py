"""Two windows onto the same pages are not open at the same time."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from schedhook.backends.native import window_lock as module
from schedhook.backends.native.window_lock import window_lock


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    monkeypatch.setattr(module, "FILE", tmp_path / "run/windows.lock")
    file = os.memfd_create("object")
    yield file
    os.close(file)


def enter_meanwhile(file: int, number: int) -> threading.Thread:
    def enter() -> None:
        with window_lock(file, number):
            pass

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join(0.2)
    return thread


@pytest.mark.skipif(os.getuid() != 0, reason="only root's windows exclude each other")
def test_a_window_waits_for_another_one_on_the_same_pages(file: int) -> None:
    with window_lock(file, 3):
        waiting, other = enter_meanwhile(file, 3), enter_meanwhile(file, 4)
        assert waiting.is_alive()
        assert not other.is_alive()
    waiting.join(5)
    assert not waiting.is_alive()


def test_patience_ends(file: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other process may be stopped."""
    monkeypatch.setattr(module, "_PATIENCE", 0.01)
    with window_lock(file, 3):
        assert not enter_meanwhile(file, 3).is_alive()


def test_a_directory_that_others_can_write_to_has_no_lock(file: int) -> None:
    module.FILE.parent.mkdir(0o777)
    module.FILE.parent.chmod(0o777)
    with window_lock(file, 3):
        assert not module.FILE.exists()
