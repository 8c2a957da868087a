"""Charts of a relocation: residency before and after, or of a plan what it would be."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from schedhook.cli.output.charts import (
    Bar,
    Chart,
    Group,
    Json,
    Tone,
    make_chart,
    make_group,
    node_name,
    title_of,
)
from schedhook.cli.output.text import by_number, count, size, when
from schedhook.values.sizes import sum_sizes
from schedhook.values.text import printable


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A process's residency before and after; bytes by node."""

    title: str
    before: Mapping[int, int]
    after: Mapping[int, int]


def chart_report(report: Json) -> Chart:
    """Return the chart of what `relocate --json` prints, or the journal keeps."""
    changes = read_changes(report)
    named = {int(node) for pair in report["node_map"].items() for node in pair}
    drawn = changes if len(changes) == 1 else [_total(changes), *changes]
    groups = (_change_group(change, named) for change in drawn)
    return make_chart(
        _title(report),
        facts=_facts(report),
        groups=(group for group in groups if group.bars),
    )


def read_changes(report: Json) -> list[Change]:
    """Return how each process's residency changed, or in a plan how it would."""
    planned = {each["pid"]: each["moves"] for each in report.get("plan", {}).get("processes", ())}
    changes = []
    for process in report["processes"]:
        after = by_number(process["residency_after"])
        for move in planned.get(process["pid"], ()):
            after[move["from"]] = after.get(move["from"], 0) - move["bytes"]
            after[move["to"]] = after.get(move["to"], 0) + move["bytes"]
        error = f" ({printable(process['error'])})" if process["error"] else ""
        before = by_number(process["residency_before"])
        changes.append(Change(title=title_of(process) + error, before=before, after=after))
    return changes


def _title(report: Json) -> str:
    job = f"job {printable(str(report['job']))}: " if report["job"] else ""
    if "plan" in report:
        return f"{job}{report['outcome']}, {size(report['bytes_planned'])} to move"
    left = f", {size(report['bytes_left'])} left" if report["bytes_left"] else ""
    return f"{job}{report['outcome']}, {size(report['bytes_moved'])} moved{left}"


def _facts(report: Json) -> Iterator[str]:
    if "at" in report:  # from the journal
        yield when(report["at"])
    pairs = ", ".join(f"{old} to {new}" for old, new in report["node_map"].items())
    how = f"nodes {pairs or '-'}, strategy {printable(report['strategy'])}"
    if "plan" in report:
        yield how
    else:
        yield f"{how}, {report['seconds']:.2f} s"
        for why, left in report["left_by_reason"].items():
            yield f"left: {size(left)} {printable(why)}"
    for note in report["notes"]:
        yield f"note: {printable(note)}"


def _change_group(change: Change, named: set[int]) -> Group:
    """Return two bars for each node that the map names or whose residency changed."""
    before, after = change.before, change.after
    bars, others = [], 0
    for node, total in sorted(sum_sizes((before, after)).items()):
        was, now = before.get(node, 0), after.get(node, 0)
        if not total:
            continue
        if node not in named and was == now:
            others += 1
            continue
        bars.append(Bar(name=node_name(node), parts=((Tone.BEFORE, was),)))
        bars.append(Bar(name=node_name(node), is_continued=True, parts=((Tone.AFTER, now),)))
    note = f"unchanged on {count(others, 'other node')}" if others else ""
    return make_group(change.title, bars, note=note)


def _total(changes: Iterable[Change]) -> Change:
    changes = tuple(changes)
    return Change(
        title="all processes",
        before=sum_sizes(change.before for change in changes),
        after=sum_sizes(change.after for change in changes),
    )
