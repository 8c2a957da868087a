"""Logs with named fields: CSV with a header line, and JSON with one object per line.

Fields, by any of these names: the process (`pid`, `process`) or thread (`tid`, `thread`), the
`address` (`addr`), the origin of the access (`node`, or `cpu`, `processor`), and optionally the
number of accesses (`weight`, `count`, `samples`, `accesses`). Numbers are decimal, or hexadecimal
after 0x. Other fields are ignored.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from operator import itemgetter

from schedhook.migration.profiling.samples import Collector, first_of, number
from schedhook.values.errors import UsageError

_WHO = ("pid", "process", "tid", "thread")
_WHERE = ("address", "addr")
_FROM = ("node", "cpu", "processor")
_WEIGHT = ("weight", "count", "samples", "accesses")


@dataclass(frozen=True, slots=True)
class _Fields:
    """The names of the fields that are used."""

    who: str
    where: str
    origin: str
    weight: str | None

    @property
    def from_cpu(self) -> bool:
        """Whether the origin is a processor, not a node."""
        return self.origin != "node"

    @classmethod
    def among(cls, names: Iterable[str]) -> _Fields | None:
        """Return the fields among `names`; None if one is missing."""
        known = list(names)
        who, where = first_of(_WHO, known), first_of(_WHERE, known)
        origin = first_of(_FROM, known)
        if who is None or where is None or origin is None:
            return None
        return cls(who, where, origin, first_of(_WEIGHT, known))


def names_fields(line: str) -> bool:
    """Return whether this is the header line of a CSV log."""
    return _Fields.among(_header(line)) is not None


def read_csv(blocks: Iterable[bytes], collector: Collector) -> None:
    """Read blocks of lines. Raise UsageError if the first line does not name the needed fields."""
    pick: Callable[[Sequence[str]], tuple[str, ...]] | None = None
    from_cpu, columns = False, 0
    for block in blocks:
        lines = [line for line in _text(block) if line.strip() and not line.startswith("#")]
        if pick is None and lines:
            header = _header(lines.pop(0))
            fields = _Fields.among(header)
            if fields is None:
                raise UsageError(
                    "the first line of a CSV log must name its fields, such as"
                    " pid,cpu,address or pid,node,address,weight"
                )
            wanted = [fields.who, fields.origin, fields.where]
            wanted += [fields.weight] if fields.weight else []
            indices = [header.index(name) for name in wanted]
            pick, columns = itemgetter(*indices), max(indices) + 1
            from_cpu = fields.from_cpu
        if pick is None:
            continue
        collector.tally.lines += len(lines)
        rows = [row for row in map(_cells, lines) if len(row) >= columns]
        collector.bad(len(lines) - len(rows))
        for values, times in Counter(map(pick, rows)).items():
            try:
                who, origin, where, weight = (number(each) for each in (*values, "1")[:4])
                node = collector.node_of(origin) if from_cpu else origin
                collector.add(who, node, where, weight * times)
            except ValueError:
                collector.bad(times)


def read_json_lines(blocks: Iterable[bytes], collector: Collector) -> None:
    """Read blocks of lines, each an object with its own fields."""
    for block in blocks:
        for line in _text(block):
            if not line.strip():
                continue
            collector.tally.lines += 1
            try:
                values = json.loads(line)
                fields = _Fields.among(values) if isinstance(values, dict) else None
                if fields is None:
                    raise ValueError("not a sample")
                origin = number(values[fields.origin])
                collector.add(
                    number(values[fields.who]),
                    collector.node_of(origin) if fields.from_cpu else origin,
                    number(values[fields.where]),
                    number(values[fields.weight]) if fields.weight else 1,
                )
            except (ValueError, RecursionError):
                collector.bad()


def _text(block: bytes) -> list[str]:
    return block.decode("utf-8", "replace").replace("\0", "\ufffd").split("\n")


def _header(line: str) -> list[str]:
    return [name.strip().lower() for name in _cells(line)]


def _cells(line: str) -> list[str]:
    """Split one line at a time, so that an unclosed quote does not swallow the next lines."""
    if '"' not in line:
        return line.split(",")
    try:
        return next(csv.reader([line]), [])
    except csv.Error:
        return []
