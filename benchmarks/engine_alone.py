"""Move one mapping with the page mover alone: no plan, no check, no command line.

    engine_alone.py PID START OLD NEW THREADS BATCH_KIB

Prints seconds, bytes moved, calls.
"""

from __future__ import annotations

import sys
import time
from concurrent.futures import ThreadPoolExecutor

from schedhook.backends.native.backend import NativeBackend
from schedhook.migration.units import spread
from schedhook.roles.backend import Limits


def main() -> None:
    pid, start, old, new, threads, batch = (int(word, 0) for word in sys.argv[1:])
    limits = Limits(batch_bytes=batch << 10)
    with NativeBackend().attach(pid) as target, ThreadPoolExecutor(threads) as pool:
        area = next(area for area in target.areas() if area.start <= start < area.end)
        list(pool.map(lambda _: time.sleep(0.05), range(threads)))  # starts the threads

        def sweep(piece: tuple[int, int]) -> tuple[int, int]:
            done = target.sweep(area, *piece, {old: new}, shared=True, limits=limits)
            return sum(done.moved.values()), done.calls

        began = time.monotonic()
        results = list(pool.map(sweep, spread(area)))
        seconds = time.monotonic() - began
    moved, calls = (sum(column) for column in zip(*results, strict=True))
    print(f"{seconds:.6f} {moved} {calls}")


main()
