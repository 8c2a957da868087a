"""Logs with named fields: CSV with a header line, and JSON with one object per line.

Fields, by any of these names in any case: the process (`pid`, `process`) or thread (`tid`,
`thread`), the `address` (`addr`), the origin of the access (`node`, or `cpu`, `processor`), and
optionally the number of accesses (`weight`, `count`, `samples`, `accesses`). Numbers are decimal,
or hexadecimal after 0x; addresses also without it, if one of the first has a letter. Other fields
are ignored. Cells of a CSV log are parted by commas, semicolons, tabs or bars.
"""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from schedhook.migration.profiling.samples import Collector, first_of, number
from schedhook.values.errors import UsageError

_WHO = ("pid", "process", "tid", "thread")
_WHERE = ("address", "addr")
_FROM = ("node", "cpu", "processor")
_WEIGHT = ("weight", "count", "samples", "accesses")
_NEEDED = {"process": _WHO, "processor or node": _FROM, "address": _WHERE}
_EXAMPLE = "pid,cpu,address or pid,node,address,weight"
_DELIMITERS = ",;\t|"
_NUMBER = re.compile(r"\s*(?:0[xX])?[0-9a-fA-F]+\s*")
_BARE_HEX = re.compile(r"\s*(?=[0-9]*[a-fA-F])[0-9a-fA-F]+\s*")


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

    @property
    def names(self) -> list[str]:
        """The process's, the origin's and the address's, and the weight's if there is one."""
        return [self.who, self.origin, self.where, *([self.weight] if self.weight else [])]

    @classmethod
    def among(cls, names: Iterable[str]) -> _Fields | None:
        """Return the fields among `names`; None if one is missing."""
        known = list(names)
        who, where = first_of(_WHO, known), first_of(_WHERE, known)
        origin = first_of(_FROM, known)
        if who is None or where is None or origin is None:
            return None
        return cls(who, where, origin, first_of(_WEIGHT, known))


def is_table(line: str) -> bool:
    """Return whether a CSV log may begin with this line: names of fields, or numbers only."""
    _, cells = _split_header(line)
    if sum(cell in (*_WHO, *_WHERE, *_FROM) for cell in cells) >= 2:
        return True
    return len(cells) >= 3 and all(map(_NUMBER.fullmatch, cells))


def read_csv(blocks: Iterable[bytes], collector: Collector) -> None:
    """Read blocks of lines. Raise UsageError if the first line does not name the needed fields."""
    table: _Table | None = None
    for block in blocks:
        lines = [line for line in _text(block) if line.strip() and not line.startswith("#")]
        if table is None and lines:
            table = _Table(lines.pop(0))
        if table is None:
            continue
        collector.tally.lines += len(lines)
        rows = table.rows(lines)
        collector.bad(len(lines) - len(rows))
        for values, times in Counter(rows).items():
            try:
                who, origin, where, weight = (*values, "1")[:4]
                address = number(where, hexadecimal=table.is_hexadecimal)
                node = number(origin)
                node = collector.node_of(node) if table.from_cpu else node
                collector.add(number(who), node, address, number(weight) * times)
            except ValueError:
                collector.bad(times)


class _Table:
    """The form of a CSV log, from its header line and first rows."""

    def __init__(self, header: str) -> None:
        self._delimiter, names = _split_header(header)
        fields = _Fields.among(names)
        if fields is None:
            raise UsageError(_explain_header(names))
        self.from_cpu = fields.from_cpu
        self.is_hexadecimal = False
        """Whether addresses without 0x are hexadecimal, too."""
        indices = [names.index(name) for name in fields.names]
        self._columns = max(indices) + 1
        self._pick: Callable[[Sequence[str]], tuple[str, ...]] = itemgetter(*indices)
        self._has_rows = False

    def rows(self, lines: Iterable[str]) -> list[tuple[str, ...]]:
        """Return the used cells of those lines that have them."""
        split = (_cells(line, self._delimiter) for line in lines)
        rows = [self._pick(row) for row in split if len(row) >= self._columns]
        if rows and not self._has_rows:
            self._has_rows = True
            self.is_hexadecimal = _are_hexadecimal(row[2] for row in rows)
        return rows


def read_json_lines(blocks: Iterable[bytes], collector: Collector) -> None:
    """Read blocks of lines, each an object with its own fields."""
    is_hexadecimal: bool | None = None
    for block in blocks:
        lines = [line for line in _text(block) if line.strip()]
        collector.tally.lines += len(lines)
        found = [each for each in map(_parse, lines) if each]
        collector.bad(len(lines) - len(found))
        if found and is_hexadecimal is None:
            is_hexadecimal = _are_hexadecimal(values[fields.where] for fields, values in found)
        for fields, values in found:
            try:
                origin = number(values[fields.origin])
                collector.add(
                    number(values[fields.who]),
                    collector.node_of(origin) if fields.from_cpu else origin,
                    number(values[fields.where], hexadecimal=bool(is_hexadecimal)),
                    number(values[fields.weight]) if fields.weight else 1,
                )
            except ValueError:
                collector.bad()


def _parse(line: str) -> tuple[_Fields, Mapping[str, Any]] | None:
    """Return the fields and values of an object; None if the line is none, or lacks one."""
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(values, dict):
        return None
    values = {name.strip().lower(): value for name, value in values.items()}
    fields = _Fields.among(values)
    return (fields, values) if fields else None


def _are_hexadecimal(addresses: Iterable[object]) -> bool:
    """Return whether one of the addresses is hexadecimal without 0x: then they all are."""
    return any(isinstance(each, str) and _BARE_HEX.fullmatch(each) for each in addresses)


def _explain_header(names: Sequence[str]) -> str:
    missing = [what for what, known in _NEEDED.items() if first_of(known, names) is None]
    if len(missing) == len(_NEEDED):
        return f"the first line of a CSV log must name its fields, such as {_EXAMPLE}"
    return (
        f"the CSV log has no field for the {' and the '.join(missing)}: its first line must name"
        f" the fields, such as {_EXAMPLE}"
    )


def _text(block: bytes) -> list[str]:
    return block.decode("utf-8", "replace").replace("\0", "\ufffd").split("\n")


def _split_header(line: str) -> tuple[str, list[str]]:
    """Return the delimiter that gives the most cells, and their texts in lower case."""
    delimiter = max(_DELIMITERS, key=line.count)
    return delimiter, [name.strip().lower() for name in _cells(line, delimiter)]


def _cells(line: str, delimiter: str) -> list[str]:
    """Split one line at a time, so that an unclosed quote does not swallow the next lines."""
    if '"' not in line:
        return line.split(delimiter)
    try:
        return next(csv.reader([line], delimiter=delimiter), [])
    except csv.Error:
        return []
