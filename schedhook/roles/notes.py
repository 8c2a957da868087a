"""Notes: what a scheduler's adapter has to remember of a job between two events."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class JobNotes(Protocol):
    """Texts about the jobs of one scheduler, each under a key; they go when the job ends.

    The agent keeps them in its journal. An implementation raises nothing: if the journal fails, it
    keeps notes for as long as the process lives.
    """

    def get(self, job: str, key: str) -> str | None:
        """Return the text about the job under `key`, None if there is none."""

    def set(self, job: str, key: str, text: str) -> None:
        """Keep `text` under `key` in place of the earlier one; a job that has ended gets none."""

    def jobs(self, key: str) -> tuple[str, ...]:
        """Return the jobs that have a text under `key`."""


class MemoryNotes:
    """Notes that end with this object."""

    def __init__(self) -> None:
        self._texts: dict[tuple[str, str], str] = {}

    def get(self, job: str, key: str) -> str | None:
        """Return the text about the job under `key`, None if there is none."""
        return self._texts.get((job, key))

    def set(self, job: str, key: str, text: str) -> None:
        """Keep `text` under `key` in place of the earlier one."""
        self._texts[job, key] = text

    def jobs(self, key: str) -> tuple[str, ...]:
        """Return the jobs that have a text under `key`."""
        return tuple(job for job, its_key in self._texts if its_key == key)

    def discard(self, job: str, key: str) -> None:
        """Delete the text about the job under `key`, if there is one."""
        self._texts.pop((job, key), None)


class LazyNotes:
    """Notes that are opened by the first question about them."""

    def __init__(self, open_notes: Callable[[], JobNotes]) -> None:
        self._open = open_notes
        self._opened: JobNotes | None = None

    def get(self, job: str, key: str) -> str | None:
        """Return the text about the job under `key`, None if there is none."""
        return self._notes().get(job, key)

    def set(self, job: str, key: str, text: str) -> None:
        """Keep `text` under `key` in place of the earlier one."""
        self._notes().set(job, key, text)

    def jobs(self, key: str) -> tuple[str, ...]:
        """Return the jobs that have a text under `key`."""
        return self._notes().jobs(key)

    def _notes(self) -> JobNotes:
        if self._opened is None:
            self._opened = self._open()
        return self._opened
