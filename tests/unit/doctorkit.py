"""Findings of `schedhook doctor` for tests."""

from __future__ import annotations

from collections.abc import Iterable

from schedhook.plugins.findings import Finding


def found(findings: Iterable[Finding], subject: str) -> Finding:
    """Return the only finding about `subject`."""
    (finding,) = [each for each in findings if each.subject == subject]
    return finding
