"""`schedhook profile` on a terminal: what the profile says, and how many accesses will be local."""

from __future__ import annotations

from rich.console import Console

from schedhook.cli.output.tables import Column, make_table
from schedhook.cli.output.text import count, percent
from schedhook.migration.profiling.summary import PairSummary, Summary

_Pair = tuple[str, PairSummary]
"""(pid, or empty below the first pair of a process; accesses between two nodes)."""

_COLUMNS: tuple[Column[_Pair], ...] = (
    Column("pid", lambda row: row[0], is_number=True),
    Column("from node", lambda row: str(row[1].accessing)),
    Column("to memory on", lambda row: str(row[1].memory)),
    Column("before", lambda row: str(row[1].before), is_number=True),
    Column("after", lambda row: str(row[1].after), is_number=True),
)


def print_profile(summary: Summary) -> None:
    """Print the profile in numbers, and accesses by pair of nodes before and after."""
    console = Console(highlight=False)
    if made := summary.recording:
        why = f" ({made.why_not})" if made.why_not else ""
        console.print(f"recorded {made.seconds:g} s by {made.source.value}{why}", markup=False)
    console.print(
        f"profile: {count(summary.samples, 'sample')} in {count(summary.lines, 'line')},"
        f" {summary.accesses} to pages in question"
    )
    if summary.bad_lines:
        console.print(f"  lines that are not samples: {summary.bad_lines}")
    for why, number in summary.unused.items():
        console.print(f"  not used: {number} {why}")
    console.print(
        f"local accesses: {percent(summary.local_before, summary.accesses)} before,"
        f" {percent(summary.local_after, summary.accesses)} after"
    )
    rows = [
        ("" if index else str(process.pid), pair)
        for process in summary.processes
        for index, pair in enumerate(process.pairs)
    ]
    if summary.processes:
        console.print(make_table(_COLUMNS, rows, console))
