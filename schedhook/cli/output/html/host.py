"""The page of a host that `schedhook report` writes."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from xml.etree.ElementTree import Element

from schedhook import __version__
from schedhook.cli.output.charts import Json
from schedhook.cli.output.footprint_chart import chart_jobs, group_of_jobs
from schedhook.cli.output.html.elements import make
from schedhook.cli.output.html.figure import draw_figure, draw_legend
from schedhook.cli.output.html.host_tables import (
    decision_table,
    job_table,
    move_table,
    node_table,
)
from schedhook.cli.output.html.matrix import draw_matrix
from schedhook.cli.output.html.page import write_page
from schedhook.cli.output.remarks import notes_of_jobs, remedy_of_jobs
from schedhook.cli.output.text import count, percent, size, when
from schedhook.values.text import printable

_MOST_ROWS = 500
_MEANING = (
    "Off-node memory is on none of the nodes of the processors that use it, and a relocation could"
    " bring it to them. Files that processes outside the job map too are shared files. Sizes are in"
    " binary units: 1 GiB is 1024 MiB."
)


def draw_host(shown: Json) -> str:
    """Return the page of what `report --json` prints."""
    host = printable(shown["host"])
    zone = time.strftime("%Z", time.localtime(shown["at"]))
    facts = (
        f"{when(shown['at'])} {zone}, schedhook {__version__}",
        f"relocations and decisions since {when(shown['since'])} {zone}",
    )
    content = [
        _figures(shown),
        *_nodes(shown),
        *_jobs(shown),
        *_moves(shown),
        *_decisions(shown),
        make("h2", "Notes"),
        make("p", _MEANING),
        *(make("p", note) for note in notes_of_jobs(shown)),
    ]
    return write_page(f"Memory of jobs on {host}", facts, content)


def _figures(shown: Json) -> Element:
    """Return what one looks for first."""
    jobs, moves = shown["jobs"], shown["moves"]
    whole, off = _total(jobs, "bytes"), _total(jobs, "bytes_off_node")
    avoided = shown["off_node_gib_hours_avoided"]
    figures = [
        ("jobs", str(len(jobs)), ""),
        ("memory of jobs", size(whole), ""),
        ("off-node", size(off), percent(off, whole) if off else ""),
        ("moved", size(_total(moves, "bytes_moved")), count(len(moves), "relocation")),
    ]
    if avoided is not None:
        figures.append(("off-node avoided", f"{avoided:.3g} GiB-hours", "by keep_local"))
    entries = [
        make(
            "div",
            make("dt", name),
            make("dd", value, class_="value"),
            *([make("dd", more)] if more else []),
        )
        for name, value, more in figures
    ]
    return make("dl", *entries, class_="figures")


def _nodes(shown: Json) -> list[Element]:
    group = chart_jobs(shown).groups[0]
    return [
        make("h2", "Nodes"),
        draw_legend([group]),
        draw_figure(group),
        node_table(shown),
    ]


def _jobs(shown: Json) -> list[Element]:
    if not shown["jobs"]:
        return [make("h2", "Jobs"), make("p", "no job on this host")]
    group = group_of_jobs(shown["jobs"])
    return [
        make("h2", "Jobs"),
        draw_legend([group]),
        draw_figure(group),
        job_table(shown),
        *(make("p", said) for said in remedy_of_jobs(shown)),
        make("h3", "Memory of each job by node"),
        draw_matrix(shown),
    ]


def _moves(shown: Json) -> list[Element]:
    moves = shown["moves"]
    title = make("h2", "Relocations")
    if not moves:
        return [title, make("p", "none")]
    return [title, move_table(moves[:_MOST_ROWS]), *_more(moves, "earlier relocation")]


def _decisions(shown: Json) -> list[Element]:
    decisions = shown["decisions"]
    title = make("h2", "Decisions of keep_local")
    if not decisions:
        return [title, make("p", "none")]
    return [title, decision_table(decisions[:_MOST_ROWS]), *_more(decisions, "earlier decision")]


def _more(rows: Sequence[Json], what: str) -> list[Element]:
    """Return what to say of rows that are not in the table."""
    more = len(rows) - _MOST_ROWS
    said = f"and {count(more, what)}; schedhook report --json has all"
    return [make("p", said, class_="note")] if more > 0 else []


def _total(rows: Iterable[Json], key: str) -> int:
    return sum(row[key] for row in rows)
