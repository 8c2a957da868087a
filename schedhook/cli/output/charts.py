"""Charts: what bars to draw of a footprint, of all jobs, of a relocation. How to draw them is for
bars.py (terminals) and drawing.py (SVG and HTML).

Everything is made from what --json prints, which is also what the journal keeps. Text from
processes and schedulers is made printable here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from schedhook.cli.output.text import by_number, count, off_node, size, when
from schedhook.values.sets import NodeSet
from schedhook.values.text import printable

Json = Mapping[str, Any]

HOME_MARK = "*"
HOME_MEANING = "node of its processors"


class Tone(Enum):
    """What a part of a bar stands for, in words."""

    HOME = "on-node"
    OFF = "off-node"
    SHARED = "shared files"
    OTHER = "other memory"
    BEFORE = "before"
    AFTER = "after"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One node, or one node at one time."""

    label: str
    parts: tuple[tuple[Tone, int], ...]
    """(what, bytes), side by side."""
    free: int | None = None
    """Bytes free on the node, where that says something."""
    note: str = ""

    @property
    def size(self) -> int:
        return sum(part for _, part in self.parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Bars on one scale."""

    title: str
    bars: tuple[Bar, ...]
    scale: int
    """Bytes that the longest possible bar stands for."""
    note: str = ""
    """What the bars leave out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """The first group is the whole, those after it its parts."""

    title: str
    facts: tuple[str, ...]
    groups: tuple[Group, ...]


def legend(groups: Iterable[Group]) -> tuple[list[Tone], bool]:
    """(the tones that occur in the groups' bars, whether HOME_MARK does)."""
    bars = [bar for group in groups for bar in group.bars]
    used = {tone for bar in bars for tone, part in bar.parts if part}
    return [tone for tone in Tone if tone in used], any(HOME_MARK in bar.label for bar in bars)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A process's residency at two times."""

    title: str
    before: Mapping[int, int]
    after: Mapping[int, int]


def of_footprint(shown: Json) -> Chart:
    """Residency against placement, as `show` has it for one job or for some processes."""
    processes = shown["processes"]
    groups = [_residency_group("all processes" if len(processes) > 1 else "", shown, shown)]
    if len(processes) > 1:
        groups += [_residency_group(title_of(each), each, shown) for each in processes]
    return Chart(
        title=target_of(shown),
        facts=(
            f"processors {shown['placement']['cpus'] or '-'},"
            f" nodes {shown['placement']['nodes'] or '-'}",
            f"{size(shown['bytes'])} in {count(len(processes), 'process')},"
            f" {off_node(shown['bytes_off_node'], shown['bytes'])}",
        ),
        groups=tuple(groups),
    )


def of_jobs(shown: Json) -> Chart:
    """Every job on the host, as `show` has it without a target: nodes first, then jobs."""
    jobs = shown["jobs"]
    whole = sum(job["bytes"] for job in jobs)
    off = sum(job["bytes_off_node"] for job in jobs)
    return Chart(
        title=f"{count(len(jobs), 'job')} on this host",
        facts=(f"{size(whole)} of memory, {off_node(off, whole)}",),
        groups=(
            _host_group(shown),
            *(_residency_group(_job_title(job), job, shown) for job in jobs),
        ),
    )


def of_report(report: Json) -> Chart:
    """Residency before and after a relocation; of a plan, what it would be."""
    planned = "plan" in report
    each = changes(report)
    whole = Change(
        title="all processes",
        before=_sum(change.before for change in each),
        after=_sum(change.after for change in each),
    )
    named = {int(node) for pair in report["node_map"].items() for node in pair}
    moved = report["bytes_planned"] if planned else report["bytes_moved"]
    left = f", {size(report['bytes_left'])} left" if report["bytes_left"] and not planned else ""
    job = f"job {printable(str(report['job']))}: " if report["job"] else ""
    return Chart(
        title=f"{job}{report['outcome']}, {size(moved)} {'to move' if planned else 'moved'}{left}",
        facts=tuple(_facts(report)),
        groups=tuple(
            group
            for change in (each if len(each) == 1 else [whole, *each])
            if (group := _change_group(change, named)).bars
        ),
    )


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


def target_of(shown: Json) -> str:
    """What a footprint is of, in a few words."""
    if shown["job"] is not None:
        return _job_title(shown)
    if shown["cgroup"] is not None:
        return printable(f"cgroup {shown['cgroup']}")
    processes = shown["processes"]
    return title_of(processes[0]) if len(processes) == 1 else count(len(processes), "process")


def title_of(process: Json) -> str:
    """`process 100, ./app`."""
    return f"process {process['pid']}, {printable(process['command'])}"


def _job_title(job: Json) -> str:
    return printable(f"{job['scheduler']} job {job['job']}")


def _residency_group(title: str, its: Json, shown: Json) -> Group:
    """`its` residency by node; `shown` knows the host's nodes."""
    residency, at_home = by_number(its["residency"]), _home(its)
    bars = []
    for node in sorted(residency.keys() | (at_home if its is shown else set())):
        name = str(node)
        kinds = (
            f"{kind} {size(sizes[name])}" for kind, sizes in its["kinds"].items() if name in sizes
        )
        bars.append(
            Bar(
                label=f"node {node}{HOME_MARK if node in at_home else ''}",
                parts=tuple(_parts(its, node, at_home).items()),
                free=shown["nodes"].get(name, {}).get("free"),
                note=", ".join(kinds),
            )
        )
    others = len(shown["nodes"]) - len(bars)
    note = f"nothing on {count(others, 'other node')}" if others > 0 and its is shown else ""
    return _group(title, bars, note=note)


def _host_group(shown: Json) -> Group:
    """What of each node's memory is the jobs', what others use, what is free."""
    homes = [(job, _home(job)) for job in shown["jobs"]]
    bars = []
    for name, node in shown["nodes"].items():
        total = dict.fromkeys((Tone.HOME, Tone.OFF, Tone.SHARED), 0)
        for job, at_home in homes:
            for tone, part in _parts(job, int(name), at_home).items():
                total[tone] += part
        jobs = sum(total.values())
        total[Tone.OTHER] = max(node["total"] - node["free"] - jobs, 0)
        bars.append(
            Bar(
                label=f"node {name}",
                parts=tuple(total.items()),
                free=node["free"],
                note=f"{size(jobs)} of jobs" if jobs else "",
            )
        )
    largest = max((node["total"] for node in shown["nodes"].values()), default=0)
    return _group("memory in use, of what each node has", bars, largest)


def _home(its: Json) -> set[int]:
    """The nodes of the processors, of a process or of a whole footprint."""
    nodes = its["placement"]["nodes"] if "placement" in its else its["nodes"]
    return set(NodeSet.parse(nodes))


def _parts(its: Json, node: int, at_home: set[int]) -> dict[Tone, int]:
    """What lies on one node, by how it lies there."""
    there = its["residency"].get(str(node), 0)
    off = min(its["off_node"].get(str(node), 0), there)
    rest = there - off
    if node in at_home:
        return {Tone.HOME: rest, Tone.OFF: off}
    return {Tone.OFF: off, Tone.SHARED: rest}


def _change_group(change: Change, named: set[int]) -> Group:
    """Two bars for each node that the map names or on which something has changed."""
    before, after = change.before, change.after
    present = [node for node, there in sorted(_sum((before, after)).items()) if there]
    bars, others = [], 0
    for node in present:
        was, now = before.get(node, 0), after.get(node, 0)
        if node not in named and was == now:
            others += 1
            continue
        bars.append(Bar(label=f"node {node}", parts=((Tone.BEFORE, was),)))
        bars.append(Bar(label="", parts=((Tone.AFTER, now),)))
    note = f"the same as before on {count(others, 'other node')}" if others else ""
    return _group(change.title, bars, note=note)


def _group(title: str, bars: Sequence[Bar], scale: int = 0, note: str = "") -> Group:
    longest = max((bar.size for bar in bars), default=0)
    return Group(title=title, bars=tuple(bars), scale=max(scale, longest, 1), note=note)


def changes(report: Json) -> list[Change]:
    """What became of each process; in a plan, what would."""
    planned = {each["pid"]: each["moves"] for each in report.get("plan", {}).get("processes", ())}
    found = []
    for process in report["processes"]:
        after = by_number(process["residency_after"])
        for move in planned.get(process["pid"], ()):
            after[move["from"]] = after.get(move["from"], 0) - move["bytes"]
            after[move["to"]] = after.get(move["to"], 0) + move["bytes"]
        error = f" ({printable(process['error'])})" if process["error"] else ""
        before = by_number(process["residency_before"])
        found.append(Change(title=title_of(process) + error, before=before, after=after))
    return found


def _sum(parts: Iterable[Mapping[int, int]]) -> dict[int, int]:
    total: dict[int, int] = {}
    for part in parts:
        for node, number in part.items():
            total[node] = total.get(node, 0) + number
    return total
