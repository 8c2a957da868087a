"""Measure the speed and memory of reading access logs: `python benchmarks/profile_log.py`.

Each row is a process of its own that reads so many samples, made as they are read; the time that
making them takes is not counted. `hot`: most accesses go to a tenth of half a million pages, as in
a running job. `wide`: nearly every sample is of another page, more than there are counters for.
"""

from __future__ import annotations

import argparse
import io
import random
import resource
import subprocess
import sys
import time
from collections.abc import Callable

from schedhook.backends.simulated import four_nodes
from schedhook.migration.profiling.hints import Format
from schedhook.migration.profiling.reading import read_profile

START = 0x7F0000000000
MADE_AT_ONCE = 20_000

LINES: dict[Format, Callable[[int, int, int], str]] = {
    Format.PERF: lambda pid, cpu, address: (
        f"          stream {pid:6}/{pid + cpu:<6} [{cpu:03}] 13614.259736:       1000"
        f" cpu/mem-loads,ldlat=30/P:     {address:12x}      5080022 |OP LOAD|LVL Local RAM hit"
        "|SNP None|TLB L1 or L2 hit|LCK No|BLK  N/A               214\n"
    ),
    Format.CSV: lambda pid, cpu, address: f"{pid},{cpu},{address:#x}\n",
    Format.JSONL: lambda pid, cpu, address: (
        f'{{"pid": {pid}, "cpu": {cpu}, "address": {address}}}\n'
    ),
}
HEADERS = {Format.CSV: "pid,cpu,address\n"}


def hot(chance: random.Random) -> int:
    pages = 50_000 if chance.random() < 0.9 else 500_000
    return int(chance.random() * pages)


def wide(chance: random.Random) -> int:
    return int(chance.random() * (1 << 26))


SPREADS = {"hot": hot, "wide": wide}


class Log(io.RawIOBase):
    """A log that is generated while it is read."""

    def __init__(self, kind: Format, spread: Callable[[random.Random], int], samples: int) -> None:
        self.seconds = 0.0
        self.processor_seconds = 0.0
        self.left = samples
        self.line, self.spread = LINES[kind], spread
        self.chance = random.Random(1)
        self.rest = HEADERS.get(kind, "").encode()

    def read(self, size: int = -1) -> bytes:
        began, began_here = time.monotonic(), time.process_time()
        while len(self.rest) < size and self.left:
            count = min(MADE_AT_ONCE, self.left)
            self.left -= count
            self.rest += "".join(self._line() for _ in range(count)).encode()
        block, self.rest = self.rest[:size], self.rest[size:]
        self.seconds += time.monotonic() - began
        self.processor_seconds += time.process_time() - began_here
        return block

    def _line(self) -> str:
        number = int(self.chance.random() * 32)
        address = START + self.spread(self.chance) * 4096 + number * 8
        return self.line(4000 + number % 8, number % 4, address)


def one(kind: Format, spread: str, samples: int) -> str:
    """Return a row of the table."""
    log = Log(kind, SPREADS[spread], samples)
    began, began_here = time.monotonic(), time.process_time()
    profile, tally = read_profile(log, four_nodes(), kind=kind)  # type: ignore[arg-type]
    seconds = time.monotonic() - began - log.seconds
    here = time.process_time() - began_here - log.processor_seconds
    assert tally.samples == samples
    pages = sum(len(profile.accesses([number])) for number in profile.numbers)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    return (
        f"{kind.value:<6} {spread:<6} {samples:>10} {seconds:>8.1f} {samples / seconds:>10.0f}"
        f" {samples / here:>14.0f} {peak:>8} {pages:>9} {tally.dropped:>9}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=10_000_000)
    parser.add_argument("--only", nargs=2, metavar=("FORMAT", "SPREAD"), help="in this process")
    options = parser.parse_args()
    if options.only:
        print(one(Format(options.only[0]), options.only[1], options.samples))
        return 0
    print(
        "format spread    samples  seconds  samples/s  per cpu second  RSS MiB  counters   dropped",
        flush=True,
    )
    for kind in LINES:
        for spread in SPREADS:
            command = [sys.executable, "-P", __file__, "--samples", str(options.samples)]
            subprocess.run([*command, "--only", kind.value, spread], check=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
