"""The file through which a hook hands an event to the process that handles it."""

from __future__ import annotations

import os
import posix
from pathlib import Path

import pytest

from schedhook.hook import fallback


@pytest.mark.parametrize("has_memfd", [True, False])
def test_the_file_has_no_name_and_is_closed_on_exec(
    has_memfd: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Builds of Python against an old C library have no os.memfd_create."""
    if not has_memfd:
        monkeypatch.delattr(posix, "memfd_create")
    descriptor = fallback._open_unnamed()
    try:
        assert not os.get_inheritable(descriptor)
        assert os.fstat(descriptor).st_nlink == 0
        assert not Path(f"/proc/self/fd/{descriptor}").readlink().exists()
        os.write(descriptor, b"event")
        os.lseek(descriptor, 0, os.SEEK_SET)
        assert os.read(descriptor, 9) == b"event"
    finally:
        os.close(descriptor)
