"""Read a profiler's log, of any length and any known format, in one pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum
from itertools import chain
from typing import BinaryIO

from schedhook.host.topology import Topology
from schedhook.migration.profiling import perf, tables
from schedhook.migration.profiling.samples import Collector, Tally
from schedhook.roles.profile import CAPACITY, Profile
from schedhook.values.errors import UsageError

_BLOCK = 1 << 20
_LONGEST_LINE = 64 << 10


class Format(StrEnum):
    """The format of a log."""

    AUTO = "auto"
    PERF = "perf"
    CSV = "csv"
    JSONL = "jsonl"


_REMEDY = {
    Format.PERF: "print them by `perf script -F comm,pid,tid,cpu,time,event,addr`",
    Format.CSV: "each line needs the fields that the first one names",
    Format.JSONL: 'each line is an object such as {"pid": 7, "cpu": 3, "address": 140000}',
}
_READERS: dict[Format, Callable[[Iterable[bytes], Collector], None]] = {
    Format.PERF: perf.read,
    Format.CSV: tables.read_csv,
    Format.JSONL: tables.read_json_lines,
}


def read_profile(
    log: BinaryIO,
    topology: Topology,
    *,
    kind: Format = Format.AUTO,
    capacity: int = CAPACITY,
    count_cache_hits: bool = False,
) -> tuple[Profile, Tally]:
    """Read samples of accesses up to the end of `log`.

    Lines that are not samples are counted and skipped. Raise UsageError if no sample is usable.
    """
    profile = Profile(capacity)
    collector = Collector(profile, topology, count_cache_hits=count_cache_hits)
    blocks = _blocks(log, collector)
    first = next(blocks, b"")
    if kind is Format.AUTO:
        kind = detect(first)
    _READERS[kind](chain((first,), blocks), collector)
    tally = collector.tally
    tally.dropped = profile.dropped
    if not profile.numbers:
        raise UsageError(f"no usable sample in the log: {_why(tally, kind)}")
    return profile, tally


def detect(block: bytes) -> Format:
    """Return the format of the first line that is neither blank nor a comment."""
    for line in block.decode("utf-8", "replace").splitlines():
        text = line.strip()
        if text and not text.startswith("#"):
            if text.startswith("{"):
                return Format.JSONL
            return Format.CSV if tables.names_fields(text) else Format.PERF
    return Format.PERF


def _blocks(log: BinaryIO, collector: Collector) -> Iterator[bytes]:
    """Yield the log in blocks of complete lines. Overlong lines are skipped and counted."""
    rest, skipping = b"", False
    while chunk := log.read(_BLOCK):
        if skipping:
            _, newline, chunk = chunk.partition(b"\n")
            skipping = not newline
            if skipping:
                continue
        whole, newline, tail = chunk.rpartition(b"\n")
        if newline:
            yield rest + whole + b"\n"
            rest = tail
        else:
            rest += chunk
        if len(rest) > _LONGEST_LINE:
            collector.tally.lines += 1
            collector.bad()
            rest, skipping = b"", True
    if rest:
        yield rest + b"\n"


def _why(tally: Tally, kind: Format) -> str:
    if not tally.lines:
        return "it is empty; record these processes while they access memory"
    counts = (
        (tally.bad_lines, f"are not samples ({_REMEDY[kind]})"),
        (tally.no_address, "have no address (record with `perf record -d`)"),
        (tally.kernel, "are the kernel's own accesses"),
        (tally.unknown_node, "come from a processor that is not online here"),
        (tally.cache_hits, "were answered by a cache (--cache-hits counts them)"),
    )
    reasons = ", ".join(f"{count} {what}" for count, what in counts if count)
    return f"of {tally.lines} lines, read as {kind.value}, {reasons}"
