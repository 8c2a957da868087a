"""In which order jobs are listed, and how many of them.

The jobs are the objects that `show --json` prints.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from schedhook.host.users import user_name


class SortKey(StrEnum):
    """What decides the order of jobs; the largest first, names and ids ascending."""

    OFF_NODE = "off-node"
    SHARE = "share"
    """Of the job's memory that is off-node."""
    MEMORY = "memory"
    JOB = "job"
    NAME = "name"
    USER = "user"


Json = Mapping[str, Any]

_KEYS: Mapping[SortKey, Callable[[Json], Any]] = {
    SortKey.OFF_NODE: lambda job: -job["bytes_off_node"],
    SortKey.SHARE: lambda job: -job["bytes_off_node"] / max(job["bytes"], 1),
    SortKey.MEMORY: lambda job: -job["bytes"],
    SortKey.JOB: lambda _: 0,
    SortKey.NAME: lambda job: job["name"] or "",
    SortKey.USER: lambda job: user_name(job["user"]),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """The order of a list of jobs."""

    key: SortKey = SortKey.OFF_NODE
    most: int | None = None
    """How many are listed; None: all."""

    def of(self, jobs: Iterable[Json]) -> list[Json]:
        """Return the first of the jobs; those that are equal are sorted by their ids."""
        key = _KEYS[self.key]
        return sorted(jobs, key=lambda job: (key(job), _natural(job)))[: self.most]


def _natural(job: Json) -> tuple[Any, ...]:
    """Sort job 9 before job 10, and jobs whose ids begin with no number behind them."""
    number = (job["job"] or "").partition("[")[0].partition(".")[0]
    return (
        job["scheduler"] or "",
        (0, int(number)) if number.isdigit() and number.isascii() else (1, 0),
        job["job"] or "",
    )
