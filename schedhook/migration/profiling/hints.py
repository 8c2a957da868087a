"""Say why a log has no usable sample, and what would help."""

from __future__ import annotations

import re
from enum import StrEnum

from schedhook.migration.profiling.samples import Tally


class Format(StrEnum):
    """The format of a log."""

    AUTO = "auto"
    PERF = "perf"
    CSV = "csv"
    JSONL = "jsonl"


_PERF = "print them by `perf script -F comm,pid,tid,cpu,time,event,addr`"
_NO_PROCESSOR = (
    "no line has a processor: record with `perf record -d --sample-cpu`, and print the field cpu:"
    " `perf script -F comm,pid,tid,cpu,time,event,addr`"
)
_JSON = 'each line is an object such as {"pid": 7, "cpu": 3, "address": 140000}'
_ARRAY = "a JSON array is not read: print one object per line by `jq -c '.[]' FILE`"
_REMEDY = {
    Format.PERF: _PERF,
    Format.CSV: "each line needs the fields that the first one names",
    Format.JSONL: _JSON,
}
_PROCESSOR = re.compile(rb"[ \t]\[\d+\]")
_EVENT = re.compile(rb"^.*[ \t]\d+(?:/\d+)?[ \t]+.*:", re.MULTILINE)


def explain_unusable(tally: Tally, kind: Format, first: bytes) -> str:
    """Return why nothing of a log could be used; `first` are its first lines."""
    if not tally.lines:
        return "it is empty; record these processes while they access memory"
    counts = (
        (tally.bad_lines, f"are not samples ({_remedy(kind, first)})"),
        (tally.no_address, "have no address (record with `perf record -d`)"),
        (tally.kernel, "are the kernel's own accesses"),
        (tally.unknown_node, "come from a processor that is not online here"),
        (tally.cache_hits, "were answered by a cache (--cache-hits counts them)"),
    )
    reasons = ", ".join(f"{count} {what}" for count, what in counts if count)
    return f"of {tally.lines} lines, read as {kind.value}, {reasons}"


def _remedy(kind: Format, first: bytes) -> str:
    if kind is Format.PERF and not _PROCESSOR.search(first) and _EVENT.search(first):
        return _NO_PROCESSOR
    if kind is Format.JSONL and first.lstrip().startswith(b"["):
        return _ARRAY
    return _REMEDY[kind]
