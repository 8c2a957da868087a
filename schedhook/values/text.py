"""Text that others have written, made fit for a terminal or a log."""

from __future__ import annotations


def printable(text: str) -> str:
    """`text` with control characters, and those that reorder or hide text, written as escapes."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii")
        for char in text
    )
