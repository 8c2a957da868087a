"""The output of `perf script`, perf-script(1): one line per sample, with the fields of option -F.

A sample is a line with a process or thread, a processor, and an address: the field `addr`, or the
text of the tracepoint exceptions:page_fault_user:

    stream  4711/4713  [005]  812.053124:      1000 cpu/mem-loads,ldlat=30/P:  7f2c40a1b2c0 …
    stream  4713 [005] 812.053124: exceptions:page_fault_user: address=0x7f2c40a1b2c0 ip=…

Without the field `addr`, perf prints the instruction's address, symbol and file in its place; that
line is not a sample. With `-F +addr` it prints symbol and file of both addresses. Fields come in
perf's own order, whatever the order in -F. A weight is a latency, not a number of accesses; it
would count accesses to remote nodes more than local ones, so each sample counts once.

For one access perf can make samples of several events: of each SPE record of an Arm processor up to
six, all with the same thread, processor, time and address. They count as one access.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator

from schedhook.migration.profiling.samples import Collector


def _compile(captured: str) -> re.Pattern[bytes]:
    """Return the pattern of a sample; `captured` is `(` or `(?:` for time, event and address."""
    return re.compile(
        rb"""
        (?:^|[ \t])(\d{1,9})(?:/[ ]*\d+)?   # process, or thread if perf does not print both
        [ \t]+\[(\d{1,9})\]                 # processor
        (?:[ \t]+CAPTURED[\d.]+):)?          # time
        (?:(?:[ \t]+\d+)?[ \t]+CAPTURED\S+):)?   # period and event
        [ \t]+(?:address=)?(?:0x)?
        CAPTURED(?:([0-9a-f]{1,13})[0-9a-f]{3}|[0-9a-f]{1,3}))(?![^\s])   # address, and its page
        (?![ \t]+(?:\|OP|[^\s|]+:[ \t]))    # else it was data_src, or the period before an event
        # or the instruction's address, unless another one follows this one or its symbol and file
        (?![ \t]++(?![0-9a-f]{5,16}[ \t])(?![^\n|]*\)[ \t]+[0-9a-f]{5,16}[ \t])[^\n|]*\)[ \t\r]*$)
        (?:[^\n|]*\|OP[^\n|]*\|LVL[ ]([^\n|]*))?                 # memory level that answered
        [^\n]*
        """.replace(b"CAPTURED", captured.encode()),
        re.MULTILINE | re.VERBOSE,
    )


_LINE = _compile("(?:")
_DETAILED = _compile("(")
_EVENT = re.compile(rb"(?:\]|\d:)[ \t]+(?:\d+[ \t]+)?([^\s:\]\d]\S*):[ \t]")
_NOT_BLANK = re.compile(rb"^[ \t\r]*[^\s#]", re.MULTILINE)
_CACHED = re.compile(rb"(?:L[1-4]|LFB)\b[^|]*\bhit")
_AT_ONCE = 1 << 17
_RECENT = 1 << 12

_Key = tuple[bytes, bytes, bytes, bytes]
"""Process, processor, page and memory level."""


def read(blocks: Iterable[bytes], collector: Collector) -> None:
    """Read blocks of complete lines. Equal samples are counted before they are interpreted."""
    pending = Counter[_Key]()
    accesses: _Accesses | None = None
    for block in blocks:
        found = (_DETAILED if accesses else _LINE).findall(block)
        if accesses is None and _has_several_events(block, len(found)):
            accesses = _Accesses()
            found = _DETAILED.findall(block)
        pending.update(accesses.of(found) if accesses else found)
        matched = len(found)
        lines = block.count(b"\n")
        if lines != matched:
            lines = max(matched, len(_NOT_BLANK.findall(block)))
        collector.tally.lines += lines
        collector.bad(lines - matched)
        if len(pending) >= _AT_ONCE:
            _hand_over(pending, collector)
    _hand_over(pending, collector)


def _has_several_events(block: bytes, samples: int) -> bool:
    """Return whether the samples are of several events; a quick guess that errs towards yes."""
    event = _EVENT.search(block)
    return event is not None and block.count(event[1] + b":") < samples


class _Accesses:
    """Finds the accesses that samples of several events are about.

    The samples of one access agree in process, processor, time and address. Without the field time,
    they also follow one another. There are as many accesses as samples of any one event.
    """

    def __init__(self) -> None:
        self._recent: dict[tuple[bytes, ...], Counter[bytes]] = {}
        """Samples by event, of the latest groups that agree."""
        self._last: tuple[bytes, ...] = ()

    def of(self, samples: Iterable[tuple[bytes, ...]]) -> Iterator[_Key]:
        """Yield each access once."""
        for process, cpu, time, event, address, page, level in samples:
            group = (process, cpu, time, address)
            if not time and group != self._last:
                self._recent.pop(group, None)
            self._last = group
            counts = self._recent.setdefault(group, Counter())
            most = max(counts.values(), default=0)
            counts[event] += 1
            if counts[event] > most:
                yield process, cpu, page, level
            if len(self._recent) > _RECENT:
                del self._recent[next(iter(self._recent))]


def _hand_over(pending: Counter[_Key], collector: Collector) -> None:
    cached = {level: bool(_CACHED.search(level)) for level in {key[3] for key in pending}}
    nodes = {cpu: collector.node_of(int(cpu)) for cpu in {key[1] for key in pending}}
    for (process, cpu, page, level), count in pending.items():
        address = int(page, 16) << 12 if page else 0
        try:
            collector.add(int(process), nodes[cpu], address, count, cached=cached[level])
        except ValueError:
            collector.bad(count)
    pending.clear()
