"""Read a profiler's log, of any length and any known format, in one pass."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import BinaryIO

from schedhook.host.topology import Topology
from schedhook.migration.profiling import perf, tables
from schedhook.migration.profiling.hints import Format, explain_unusable
from schedhook.migration.profiling.packed import opened
from schedhook.migration.profiling.samples import Collector, Tally
from schedhook.roles.profile import CAPACITY, Profile
from schedhook.values.errors import UsageError

_BLOCK = 1 << 20
_LONGEST_LINE = 64 << 10
_JSON = re.compile(r"\{|\[\s*(?:\{|$)")

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
    """Read samples of accesses up to the end of `log`, which may be compressed.

    Lines that are not samples are counted and skipped. Raise UsageError if no sample is usable.
    """
    profile = Profile(capacity)
    collector = Collector(profile, topology, count_cache_hits=count_cache_hits)
    with opened(log) as text:
        blocks = _blocks(text, collector)
        first = next(blocks, b"")
        if kind is Format.AUTO:
            kind = detect(first)
        _READERS[kind](chain((first,), blocks), collector)
    tally = collector.tally
    tally.dropped = profile.dropped
    if not profile.numbers:
        raise UsageError(f"no usable sample in the log: {explain_unusable(tally, kind, first)}")
    return profile, tally


def detect(block: bytes) -> Format:
    """Return the format of the first line that is neither blank nor a comment."""
    for line in block.decode("utf-8", "replace").splitlines():
        text = line.strip()
        if text and not text.startswith("#"):
            if _JSON.match(text):
                return Format.JSONL
            return Format.CSV if tables.is_table(text) else Format.PERF
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
