"""Read events that hooks left in the spool; write events to it while the journal is locked."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from schedhook.hook import fallback
from schedhook.hook.spool import read_spool
from schedhook.values.log import get_logger

_log = get_logger()

_TICK_NS = 1_000_000_000
"""Longer than a tick of a file system's clock: a younger time may hide later changes."""


class SpoolReader:
    """The files of one spool. `claim` and `remove` may be called from any thread."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._read_at = -1
        """The directory's time of change when it was last read to its end; -1 to read it again."""
        self._claimed: set[Path] = set()
        """Files whose events are being handled, or were handled but cannot be removed."""

    def has_changed(self) -> bool:
        """Return whether the spool may hold files that were not read yet. Raise OSError."""
        changed = self._directory.stat().st_mtime_ns
        if changed == self._read_at:
            return False
        self._read_at = changed if time.time_ns() - changed > _TICK_NS else -1
        return True

    def read_again(self) -> None:
        """Make `has_changed` return True next time: not all files were read."""
        self._read_at = -1

    def messages(self) -> Iterator[tuple[Path, bytes]]:
        """Yield (file, message) of each event that is not claimed, oldest first."""
        for path, raw in read_spool(self._directory):
            # In this order: a worker removes the file before it drops the claim.
            if path not in self._claimed and path.exists():
                yield path, raw

    def write(self, raw: bytes) -> Path | None:
        """Write a message to the spool and return its file; if that fails, log it, return None."""
        try:
            return Path(fallback.write_spool(raw, str(self._directory)))
        except fallback.NotKept as problem:
            _log.error("cannot write event to the spool", problem=str(problem))
            return None

    def claim(self, path: Path) -> None:
        """Skip the file from now on: its event is already being handled."""
        self._claimed.add(path)

    def remove(self, path: Path) -> None:
        """Remove a file whose event was accepted.

        If it cannot be removed (it may be immutable), log it once and skip it from now on.
        """
        try:
            path.unlink(missing_ok=True)
            self._claimed.discard(path)
        except OSError as error:
            self._claimed.add(path)
            _log.error("cannot remove spooled event", file=str(path), problem=error.strerror)
