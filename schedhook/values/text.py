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


def suggest(problem: str, name: str, names: Iterable[str], rest: str = "") -> str:
    """Return `PROBLEM; did you mean NAME? REST`, without what is empty.

    NAME is the one of `names` that was probably meant by `name`.
    """
    from difflib import get_close_matches  # noqa: PLC0415 - only for an error's text

    meant = [f"did you mean {each}?" for each in get_close_matches(name[:100], list(names), n=1)]
    return "; ".join(filter(None, (problem, " ".join(filter(None, (*meant, rest))))))


def join_some(names: Sequence[str], most: int = 12) -> str:
    """Return names with commas between them; beyond `most` only how many more there are."""
    shown = ", ".join(names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown
