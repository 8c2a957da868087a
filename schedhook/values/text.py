"""Text from untrusted sources, made safe for a terminal or a log."""

from __future__ import annotations


def printable(text: str) -> str:
    """Return `text` with escapes for control characters and those that reorder or hide text."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii")
        for char in text
    )


def describe_error(error: BaseException) -> str:
    """Return the exception's class and message on one line, for logs and reports."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
