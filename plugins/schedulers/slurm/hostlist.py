"""Lists of hosts in Slurm's format: `n[1-3,07],login1` names n1, n2, n3, n07 and login1."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

_MOST = 100_000
_MOST_DIGITS = 20
_LIST = re.compile(r"[^\[\],\s]*(?:\[[0-9,-]*\][^\[\],\s]*)*")


def expand_hosts(text: str) -> tuple[str, ...]:
    """Return the hosts of a list in its order; a blank list, `(null)` and `None` have none.

    Raise ValueError if it is malformed or names more than 100,000 hosts.
    """
    text = text.strip()
    if text in ("", "(null)", "None assigned", "None"):
        return ()
    found: list[str] = []
    for part in _parts(text):
        if not _LIST.fullmatch(part):
            raise ValueError(f"{part!r} is not a list of hosts")
        pieces = []
        count = 1
        for piece in re.split(r"(\[[^\]]*\])", part):
            numbered = piece.startswith("[")
            pieces.append(list(_numbers(piece[1:-1])) if numbered else [piece])
            count *= len(pieces[-1])
            if len(found) + count >= _MOST:
                raise ValueError(f"the list of hosts {text[:40]!r}… names more than {_MOST}")
        found += map("".join, itertools.product(*pieces))
    return tuple(found)


def _parts(text: str) -> Iterator[str]:
    """Split at the commas outside brackets."""
    start = depth = 0
    for position, char in enumerate(text):
        depth += (char == "[") - (char == "]")
        if char == "," and not depth:
            yield text[start:position]
            start = position + 1
    yield text[start:]


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS


def _numbers(ranges: str) -> Iterator[str]:
    total = 0
    for part in ranges.split(","):
        first, dash, last = part.partition("-")
        if not _is_number(first) or (dash and not _is_number(last)):
            raise ValueError(f"{part[:40]!r} is not a number or a range of numbers")
        if not dash:
            yield first
            continue
        low, high = int(first), int(last)
        if not low <= high < low + _MOST:
            raise ValueError(f"the range {part!r} runs backwards or is too long")
        total += high - low + 1
        if total > _MOST:
            raise ValueError(f"{ranges[:40]!r}… names more than {_MOST} hosts")
        yield from (str(number).zfill(len(first)) for number in range(low, high + 1))
