"""The output of `perf script`, perf-script(1): one line per sample, with the fields of option -F.

A sample is a line with a process or thread, a processor, and an address: the field `addr`, or the
text of the tracepoint exceptions:page_fault_user:

    stream  4711/4713  [005]  812.053124:      1000 cpu/mem-loads,ldlat=30/P:  7f2c40a1b2c0 …
    stream  4713 [005] 812.053124: exceptions:page_fault_user: address=0x7f2c40a1b2c0 ip=…

Without the field `addr`, perf prints the instruction's address, symbol and file in its place; that
line is not a sample. Fields come in perf's own order, whatever the order in -F. A weight is a
latency, not a number of accesses; it would count accesses to remote nodes more than local ones, so
each sample counts once.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

from schedhook.migration.profiling.samples import Collector

_LINE = re.compile(
    rb"""
    (?:^|[ \t])(\d{1,9})(?:/[ ]*\d+)?   # process, or thread if perf does not print both
    [ \t]+\[(\d{1,9})\]                 # processor
    (?:[ \t]+[\d.]+:)?                  # time
    (?:(?:[ \t]+\d+)?[ \t]+\S+:)?       # period and event
    [ \t]+(?:address=)?(?:0x)?
    (?:([0-9a-f]{1,13})[0-9a-f]{3}|[0-9a-f]{1,3})(?![^\s])   # address, its page only
    (?![ \t]+\|OP)                      # else it was the number of data_src
    (?![ \t]++(?![0-9a-f]{5,16}[ \t])[^\n|]*\)[ \t\r]*$)  # or the instruction's address
    (?:[^\n|]*\|OP[^\n|]*\|LVL[ ]([^\n|]*))?                 # memory level that answered
    [^\n]*
    """,
    re.MULTILINE | re.VERBOSE,
)
_NOT_BLANK = re.compile(rb"^[ \t\r]*[^\s#]", re.MULTILINE)
_CACHED = re.compile(rb"(?:L[1-4]|LFB)\b[^|]*\bhit")
_AT_ONCE = 1 << 17

_Found = Counter[tuple[bytes, bytes, bytes, bytes]]


def read(blocks: Iterable[bytes], collector: Collector) -> None:
    """Read blocks of complete lines. Equal samples are counted before they are interpreted."""
    pending: _Found = Counter()
    for block in blocks:
        found = _LINE.findall(block)
        pending.update(found)
        lines = block.count(b"\n")
        if lines != len(found):
            lines = max(len(found), len(_NOT_BLANK.findall(block)))
        collector.tally.lines += lines
        collector.bad(lines - len(found))
        if len(pending) >= _AT_ONCE:
            _hand_over(pending, collector)
    _hand_over(pending, collector)


def _hand_over(pending: _Found, collector: Collector) -> None:
    cached = {level: bool(_CACHED.search(level)) for level in {key[3] for key in pending}}
    nodes = {cpu: collector.node_of(int(cpu)) for cpu in {key[1] for key in pending}}
    for (process, cpu, page, level), count in pending.items():
        address = int(page, 16) << 12 if page else 0
        try:
            collector.add(int(process), nodes[cpu], address, count, cached=cached[level])
        except ValueError:
            collector.bad(count)
    pending.clear()
