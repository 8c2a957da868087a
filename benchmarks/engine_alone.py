"""Move one mapping with the page mover alone: no plan, no check; print seconds, bytes, calls."""

from __future__ import annotations

import argparse
import time
from concurrent.futures import ThreadPoolExecutor

from schedhook.backends.native.backend import NativeBackend
from schedhook.migration.runs import spread
from schedhook.roles.backend import Limits


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("pid", "start", "old", "new", "threads", "batch_kib"):
        parser.add_argument(name, type=lambda word: int(word, 0), metavar=name.upper())
    given = parser.parse_args()
    threads, old, new = given.threads, given.old, given.new
    limits = Limits(batch_bytes=given.batch_kib << 10)
    with NativeBackend().attach(given.pid) as target, ThreadPoolExecutor(threads) as pool:
        area = next(area for area in target.areas() if area.start <= given.start < area.end)
        list(pool.map(lambda _: time.sleep(0.05), range(threads)))  # starts the threads

        def sweep(piece: tuple[int, int]) -> tuple[int, int]:
            done = target.sweep(area, *piece, {old: new}, shared=True, limits=limits)
            return sum(done.moved.values()), done.calls

        began = time.monotonic()
        results = list(pool.map(sweep, spread(target, area)))
        seconds = time.monotonic() - began
    moved, calls = (sum(column) for column in zip(*results, strict=True))
    print(f"{seconds:.6f} {moved} {calls}")


main()
