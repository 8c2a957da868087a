"""The memory of each job on each node, in cells that stand below each other."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree.ElementTree import Element

from schedhook.cli.output.charts import HOME_LEGEND, Json, Tone, node_name
from schedhook.cli.output.footprint_chart import home_nodes, job_title, parts_on
from schedhook.cli.output.html.elements import make
from schedhook.cli.output.html.style import tone_class
from schedhook.cli.output.text import size


def draw_matrix(shown: Json) -> Element:
    """Return a row of cells for each job, with a cell for each node on which a job has memory.

    On a narrow screen, or with many nodes, a row has several lines, and still one cell below the
    other.
    """
    used = {int(node) for job in shown["jobs"] for node, part in job["residency"].items() if part}
    rows = (_row(job, sorted(used)) for job in shown["jobs"])
    return make("div", make("p", HOME_LEGEND, class_="note"), *rows, class_="matrix")


def _row(job: Json, nodes: Sequence[int]) -> Element:
    cells = (_cell(job, node) for node in nodes)
    return make("section", make("h4", job_title(job)), make("ul", *cells))


def _cell(job: Json, node: int) -> Element:
    parts = [(tone, part) for tone, part in parts_on(job, node).items() if part]
    said = [_part(tone, part) for tone, part in parts] or [make("span", "-", class_="part")]
    is_home = node in home_nodes(job["placement"])
    return make("li", make("span", node_name(node, is_home=is_home), class_="node"), *said)


def _part(tone: Tone, part: int) -> Element:
    kind = f"part {tone_class(tone)}"
    return make("span", f"{size(part)} {tone.value}", class_=kind)
