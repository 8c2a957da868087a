"""Results kept for short texts only: users choose the names in what the kernel shows."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import TypeVar

_T = TypeVar("_T")


def keep_results(
    most: int, longest: int
) -> Callable[[Callable[[bytes], _T]], Callable[[bytes], _T]]:
    """Keep the last `most` results of a function of one text if that has at most `longest` bytes.

    In /proc/PID/maps, a file's path can have hundreds of thousands of bytes.
    """

    def decorate(act: Callable[[bytes], _T]) -> Callable[[bytes], _T]:
        kept = lru_cache(most)(act)

        @wraps(act)
        def recall(text: bytes) -> _T:
            return kept(text) if len(text) <= longest else act(text)

        return recall

    return decorate
