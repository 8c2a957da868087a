"""The tables of a host's page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from xml.etree.ElementTree import Element

from schedhook.cli.output.charts import Json, Tone, node_name
from schedhook.cli.output.footprint_chart import parts_on
from schedhook.cli.output.html.tables import Column, draw_table
from schedhook.cli.output.text import cut, percent, size, when, written
from schedhook.host.users import user_name
from schedhook.values.policy import PolicyCount
from schedhook.values.sizes import sum_sizes
from schedhook.values.text import printable

_LONGEST_JOB = 40
_Node = tuple[int, Json, dict[Tone, int]]
"""(number, what the host has there, bytes of jobs by tone)."""


def _job(row: Json) -> str:
    return cut(printable(f"{row['scheduler']} {written(row)}"), _LONGEST_JOB)


def _size(number: int) -> str:
    return size(number) if number else "-"


def _seconds(seconds: Any) -> str:
    return f"{seconds:.2f} s" if isinstance(seconds, int | float) else ""


def _left(move: Json) -> str:
    """Return what stayed and why, such as `4.0 KiB (EBUSY)`."""
    if not move["bytes_left"]:
        return "-"
    why = ", ".join(move["left_by_reason"] or ())
    return f"{size(move['bytes_left'])} ({why})" if why else size(move["bytes_left"])


_OF_JOB: tuple[Column[Json], ...] = (
    Column("job", _job),
    Column("name", lambda row: row["name"] or "", is_long=True),
    Column("user", lambda row: user_name(row["user"])),
)
_JOBS: tuple[Column[Json], ...] = (
    *_OF_JOB,
    Column("state", lambda job: "suspended" if job["suspended"] else ""),
    Column("processes", lambda job: str(len(job["processes"])), is_number=True),
    Column("processors", lambda job: job["placement"]["cpus"], is_long=True),
    Column("nodes", lambda job: job["placement"]["nodes"], is_long=True),
    Column("memory", lambda job: size(job["bytes"]), is_number=True),
    Column("off-node", lambda job: _size(job["bytes_off_node"]), is_number=True),
    Column("share", lambda job: percent(job["bytes_off_node"], job["bytes"]), is_number=True),
    Column(
        "policies to other nodes",
        lambda job: str(PolicyCount(**job["off_node_policies"])),
        is_long=True,
    ),
)
_MOVES: tuple[Column[Json], ...] = (
    Column("time", lambda move: when(move["at"])),
    *_OF_JOB,
    Column(
        "nodes",
        lambda move: ", ".join(f"{a} to {b}" for a, b in move["node_map"].items()),
        is_long=True,
    ),
    Column("moved", lambda move: size(move["bytes_moved"]), is_number=True),
    Column("took", lambda move: _seconds(move["seconds"]), is_number=True),
    Column("outcome", lambda move: move["outcome"]),
    Column("left", _left, is_long=True),
)
_DECISIONS: tuple[Column[Json], ...] = (
    Column("time", lambda decision: when(decision["at"])),
    *_OF_JOB,
    Column("decision", lambda decision: str(decision["verdict"] or "")),
    Column("why", lambda decision: decision["summary"] or "", is_long=True),
)
_NODES: tuple[Column[_Node], ...] = (
    Column("node", lambda node: node_name(node[0])),
    Column("processors", lambda node: node[1]["cpus"] or "-", is_long=True),
    Column("size", lambda node: size(node[1]["total"]), is_number=True),
    Column("free", lambda node: size(node[1]["free"]), is_number=True),
    Column("of jobs", lambda node: _size(sum(node[2].values())), is_number=True),
    Column("on-node", lambda node: _size(node[2].get(Tone.HOME, 0)), is_number=True),
    Column("off-node", lambda node: _size(node[2].get(Tone.OFF, 0)), is_number=True),
    Column("shared files", lambda node: _size(node[2].get(Tone.SHARED, 0)), is_number=True),
)


def node_table(shown: Json) -> Element:
    """Return the table of nodes: their size, what is free, and what jobs have there."""
    rows = [
        (int(name), node, sum_sizes(parts_on(job, int(name)) for job in shown["jobs"]))
        for name, node in shown["nodes"].items()
    ]
    return draw_table(_NODES, rows)


def job_table(shown: Json) -> Element:
    """Return the table of jobs."""
    return draw_table(_JOBS, shown["jobs"])


def move_table(moves: Sequence[Json]) -> Element:
    """Return the table of relocations."""
    return draw_table(_MOVES, moves)


def decision_table(decisions: Sequence[Json]) -> Element:
    """Return the table of keep_local's decisions."""
    return draw_table(_DECISIONS, decisions)
