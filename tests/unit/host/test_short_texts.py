"""What is kept of the texts that processes have in common."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from schedhook.host._maps import parse_maps
from schedhook.host._numa_maps import parse_numa_maps
from schedhook.host.memory_files import memory_devices

_COUNT = 40
_LONG = "a" * 100_000
"""A path of directories can be as long; /proc/PID/maps shows all of it."""


def _read_maps(number: int, _: Path) -> None:
    line = f"7f0000000000-7f0000001000 rw-s {number:08x} 08:02 {number}   /{_LONG}\n"
    assert len(list(parse_maps(line.encode()))) == 1


def _read_numa_maps(number: int, _: Path) -> None:
    line = f"7f0000000000 default file=/{_LONG} mapped={number} N0={number}\n"
    assert len(list(parse_numa_maps(line.encode(), resident_only=True))) == 1


def _read_mounts(number: int, root: Path) -> None:
    (root / f"proc/{number}").mkdir(parents=True)
    mount = f"22 1 0:{number} / /{_LONG} rw - tmpfs tmpfs rw\n"
    (root / f"proc/{number}/mountinfo").write_text(4 * mount)
    assert list(memory_devices(number, root)) == [f"0:{number}"]


@pytest.mark.parametrize("read", [_read_maps, _read_numa_maps, _read_mounts])
def test_long_texts_are_not_kept(read: Callable[[int, Path], None], tmp_path: Path) -> None:
    """A service reads the files of other users' processes for years."""
    read(1000, tmp_path)
    tracemalloc.start()
    try:
        for number in range(1, _COUNT):
            read(number, tmp_path)
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 4 * len(_LONG)
