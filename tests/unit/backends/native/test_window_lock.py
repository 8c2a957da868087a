"""Two windows onto the same pages are not open at the same time."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from schedhook.backends.native import window_lock as module
from schedhook.backends.native.window_lock import window_lock

SIZE = 32 << 20


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    monkeypatch.setattr(module, "FILE", tmp_path / "run/windows.lock")
    file = os.memfd_create("object")
    yield file
    os.close(file)


def enter_meanwhile(file: int, offset: int) -> threading.Thread:
    def enter() -> None:
        with window_lock(file, offset, SIZE):
            pass

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join(0.2)
    return thread


@pytest.mark.skipif(os.getuid() != 0, reason="only root's windows exclude each other")
def test_a_window_waits_for_another_one_on_the_same_pages(file: int) -> None:
    with window_lock(file, 2 * SIZE, SIZE):
        waiting = [enter_meanwhile(file, SIZE * number // 2) for number in (3, 4, 5)]
        assert all(thread.is_alive() for thread in waiting)
        for number in (1, 3):
            assert not enter_meanwhile(file, SIZE * number).is_alive()
    for thread in waiting:
        thread.join(5)
        assert not thread.is_alive()


def test_patience_ends(file: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other process may be stopped."""
    monkeypatch.setattr(module, "_PATIENCE", 0.01)
    with window_lock(file, 0, SIZE):
        assert not enter_meanwhile(file, 0).is_alive()


def test_a_directory_that_others_can_write_to_has_no_lock(file: int) -> None:
    module.FILE.parent.mkdir(0o777)
    module.FILE.parent.chmod(0o777)
    with window_lock(file, 0, SIZE):
        assert not module.FILE.exists()
