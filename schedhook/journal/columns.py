"""Read columns of the journal's rows.

Each function raises ValueError, which says what is wrong, if the value is damaged.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from typing import Any, TypeVar

from schedhook.values.model import Placement
from schedhook.values.sets import CpuSet, NodeSet

_T = TypeVar("_T")

_LATEST = 1e11
"""Seconds after the epoch. Later times are damage: `datetime` ends with the year 9999."""


def text(row: sqlite3.Row, column: str) -> str:
    """Return a column of text."""
    value = _typed(row, column, str)
    try:
        value.encode()  # invalid UTF-8 was read as surrogates
    except UnicodeEncodeError:
        raise ValueError(f"{column} is not valid UTF-8: {value!r:.60}") from None
    return value


def integer(row: sqlite3.Row, column: str) -> int:
    """Return a column of whole numbers."""
    return _typed(row, column, int)


def number(row: sqlite3.Row, column: str) -> float:
    """Return a column of real numbers."""
    return _typed(row, column, float)


def timestamp(row: sqlite3.Row, column: str) -> float:
    """Return a column of times, in seconds after the epoch."""
    value = number(row, column)
    if not abs(value) < _LATEST:
        raise ValueError(f"{column} is {value!r}")
    return value


def optional(read: Callable[[sqlite3.Row, str], _T], row: sqlite3.Row, column: str) -> _T | None:
    """Return what `read` returns, or None if the column is NULL."""
    return None if row[column] is None else read(row, column)


def placement(row: sqlite3.Row, cpus: str, nodes: str) -> Placement:
    """Return a placement from two columns, which hold lists such as 0-3,8."""
    return Placement(cpus=CpuSet.parse(text(row, cpus)), nodes=NodeSet.parse(text(row, nodes)))


def json_object(value: str) -> dict[str, Any]:
    """Parse a JSON object. Raise ValueError for any other text."""
    parsed = json_value(value)
    if not isinstance(parsed, dict):
        raise ValueError(f"{parsed!r:.60} is not a JSON object")
    return parsed


def json_value(value: str) -> object:
    """Parse JSON. Raise ValueError for any other text, also if it is nested too deeply."""
    try:
        parsed: object = json.loads(value)
    except RecursionError:
        raise ValueError("the JSON is nested too deeply") from None
    return parsed


def _typed(row: sqlite3.Row, column: str, kind: type[_T]) -> _T:
    value = row[column]
    if not isinstance(value, kind):
        raise ValueError(f"{column} is {value!r:.60}")
    return value
