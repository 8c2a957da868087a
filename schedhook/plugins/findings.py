"""Findings: what `schedhook doctor` finds on this host, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """How much a finding matters."""

    OK = "ok"
    NOTE = "note"
    """It works, with a limit that the administrator should know."""
    PROBLEM = "problem"
    """Something that schedhook is meant to do does not work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line of the report. A finding that is not `ok` has a remedy."""

    subject: str
    level: Severity
    what: str
    remedy: str = ""


def ok(subject: str, what: str) -> Finding:
    """Return the finding that `subject` works."""
    return Finding(subject=subject, level=Severity.OK, what=what)


def note(subject: str, what: str, remedy: str) -> Finding:
    """Return the finding that `subject` works with a limit."""
    return Finding(subject=subject, level=Severity.NOTE, what=what, remedy=remedy)


def problem(subject: str, what: str, remedy: str) -> Finding:
    """Return the finding that `subject` does not work."""
    return Finding(subject=subject, level=Severity.PROBLEM, what=what, remedy=remedy)
