"""What an examination of this host finds; see `schedhook doctor`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How a finding matters."""

    OK = "ok"
    NOTE = "note"
    """Works, but with a limit that one should know."""
    PROBLEM = "problem"
    """Something that schedhook is for does not work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line of the examination. What is not ok has a remedy."""

    subject: str
    level: Level
    what: str
    remedy: str = ""


def ok(subject: str, what: str) -> Finding:
    """All is well with `subject`."""
    return Finding(subject=subject, level=Level.OK, what=what)


def note(subject: str, what: str, remedy: str) -> Finding:
    """`subject` works, but not in full."""
    return Finding(subject=subject, level=Level.NOTE, what=what, remedy=remedy)


def problem(subject: str, what: str, remedy: str) -> Finding:
    """`subject` does not work."""
    return Finding(subject=subject, level=Level.PROBLEM, what=what, remedy=remedy)
