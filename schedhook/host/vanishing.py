"""Work on processes and threads of which some end in the course of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from schedhook.values.errors import ProcessGoneError, SchedhookError

_T = TypeVar("_T")

_TRIES = 3


def read_living(
    ids: Iterable[int],
    read: Callable[[int], _T],
    *,
    skipped: tuple[type[SchedhookError], ...] = (ProcessGoneError,),
) -> Iterator[tuple[int, _T]]:
    """Yield each id with what `read` returns for it; leave out those for which it raises `skipped`.

    `ids` are the numbers of processes or threads. By default only those are left out that have
    ended.
    """
    for each in ids:
        try:
            value = read(each)
        except skipped:
            continue
        yield each, value


def call_with_living(
    pids: Iterable[int], act: Callable[[tuple[int, ...]], _T], root: Path = Path("/")
) -> _T | None:
    """Call `act` with the processes that exist, and call it again if it raises ProcessGoneError.

    Return what it returns; None if no process is left, or if one ends each time.
    """
    living = tuple(pids)
    for _ in range(_TRIES):
        living = tuple(pid for pid in living if (root / "proc" / str(pid)).exists())
        if not living:
            return None
        try:
            return act(living)
        except ProcessGoneError:
            continue
    return None
