"""What `perf script` prints, perf-script(1): one line a sample, with the fields that -F asks for.

Understood are lines with a process or thread, a processor, and an address, be it the field `addr`
or the text of the tracepoint exceptions:page_fault_user:

    stream  4711/4713  [005]  812.053124:      1000 cpu/mem-loads,ldlat=30/P:  7f2c40a1b2c0 …
    stream  4713 [005] 812.053124: exceptions:page_fault_user: address=0x7f2c40a1b2c0 ip=…

Without `addr` among the fields perf prints the instruction's address, symbol and file in its place:
such a line is no sample. Fields come in perf's own order whatever -F says. A weight is a latency
there, not a number of accesses: it says more of a remote node than of a local one, so each sample
counts once.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

from schedhook.migration.profiling.samples import Collector

_LINE = re.compile(
    rb"""
    (?:^|[ \t])(\d{1,9})(?:/[ ]*\d+)?   # process, or thread where perf does not print both
    [ \t]+\[(\d{1,9})\]                 # processor
    (?:[ \t]+[\d.]+:)?                  # time
    (?:(?:[ \t]+\d+)?[ \t]+\S+:)?       # period and event
    [ \t]+(?:address=)?(?:0x)?
    (?:([0-9a-f]{1,13})[0-9a-f]{3}|[0-9a-f]{1,3})(?![^\s])   # address, less its offset in the page
    (?![ \t]+\|OP)                      # or else it was the number of data_src
    (?![ \t]++(?![0-9a-f]{5,16}[ \t])[^\n|]*\)[ \t\r]*$)  # or the instruction's address
    (?:[^\n|]*\|OP[^\n|]*\|LVL[ ]([^\n|]*))?                 # level that answered
    [^\n]*
    """,
    re.MULTILINE | re.VERBOSE,
)
_SAID = re.compile(rb"^[ \t\r]*[^\s#]", re.MULTILINE)
_CACHED = re.compile(rb"(?:L[1-4]|LFB)\b[^|]*\bhit")
_AT_ONCE = 1 << 17

_Found = Counter[tuple[bytes, bytes, bytes, bytes]]


def read(blocks: Iterable[bytes], collector: Collector) -> None:
    """Read blocks of whole lines. Samples that are alike are counted before they are looked at."""
    pending: _Found = Counter()
    for block in blocks:
        found = _LINE.findall(block)
        pending.update(found)
        said = block.count(b"\n")
        if said != len(found):
            said = max(len(found), len(_SAID.findall(block)))
        collector.tally.lines += said
        collector.bad(said - len(found))
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
