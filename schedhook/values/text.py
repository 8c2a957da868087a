"""Text from untrusted sources, made safe for a terminal or a log."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


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


def closest(name: str, names: Iterable[str]) -> list[str]:
    """Return the one of `names` that was probably meant by `name`, in a list; else an empty one."""
    from difflib import get_close_matches  # noqa: PLC0415 - only for an error's text

    return get_close_matches(name[:100], list(names), n=1)


def join_some(names: Sequence[str], most: int = 12) -> str:
    """Return names with commas between them; beyond `most` only how many more there are."""
    shown = ", ".join(names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown
