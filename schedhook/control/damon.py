"""Let DAMON, the kernel's monitor of accesses, tell which address ranges are used most.

Again and again it looks whether one page of each range, chosen at random, was accessed since the
last look: at long intervals, which tell rarely used memory apart, and then at shorter ones, since a
page that is used all the time, and any huge page, is accessed in every long one. See
https://docs.kernel.org/admin-guide/mm/damon/usage.html; the files that tell the result are there
since Linux 6.2. Whatever happens to this process, DAMON ends.
"""

from __future__ import annotations

import errno
import fcntl
import os
import threading
import time
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import cycle
from pathlib import Path

from schedhook.control.rollback import Rollback
from schedhook.values.errors import RefusedError, SchedhookError

MOST_RANGES = 1000
ALWAYS = 1000
"""The count that a range gets from a pass if it was accessed in every interval."""
_PASSES = ((20_000, 25), (1_000, 50), (100, 50))
"""(Microseconds between looks, looks at each range): so the number of looks is bounded."""
_PATIENCE = 10
"""Seconds. The kernel waits for a result for twice the planned time, and a busy host needs more."""
_ROUND = 0.002
"""Seconds in which each processor of the processes is interrupted once."""
_FEWEST = 3
"""The fewest regions that DAMON takes as a lower bound."""
_DIRECTORY = "sys/kernel/mm/damon/admin/kdamonds"
_OWN_MONITOR = "sys/module/damon_stat/parameters/enabled"
"""Reads as Y while the kernel runs a monitor of its own, beside which no other can start. Debian's
Linux 7.3 starts it at boot."""
_OPERATIONS = "fvaddr"
"""Virtual addresses in ranges that the user fixes."""
_ANY = {"sz": 1 << 62, "nr_accesses": 1 << 31, "age": 1 << 31}

Ranges = Mapping[int, Sequence[tuple[int, int]]]
"""By process: ranges [start, end) in ascending order."""
Counts = dict[int, list[tuple[int, int, int]]]
"""By process: (start, end, how often it was found accessed), in ascending order."""


class NoDamonError(SchedhookError):
    """DAMON cannot be used now; the message is why, the end of a sentence."""


def count_accesses(ranges: Ranges, root: Path = Path("/")) -> Counts:
    """Count the accesses to the ranges, MOST_RANGES at most, for about a second.

    Only root may. A count is the sum over the passes of the shares of intervals with an access,
    each at most ALWAYS. Raise NoDamonError if the kernel has no DAMON, or another program uses it.
    """
    directory = root / _DIRECTORY
    try:
        _require_free(root)
        with _held(directory), Rollback() as rollback:
            _write(directory, "nr_kdamonds", 1, rollback)
            kdamond = directory / "0"
            _write(kdamond, "contexts/nr_contexts", 1)
            _configure(kdamond / "contexts/0", ranges)
            rollback.record_file(kdamond / "state", "off\n")
            with _switching(ranges, root):
                passes = [_monitor(kdamond, ranges, *each) for each in _PASSES]
    except OSError as error:
        raise NoDamonError(f"DAMON: {error.strerror}") from error
    except RefusedError as error:  # it could not be ended
        raise NoDamonError(str(error)) from error
    sums = map(sum, zip(*passes, strict=True))
    return {pid: [(*bounds, next(sums)) for bounds in its] for pid, its in ranges.items()}


def _require_free(root: Path) -> None:
    """Raise NoDamonError while the kernel's own monitor has DAMON for itself."""
    monitor = root / _OWN_MONITOR
    if monitor.exists() and monitor.read_text(encoding="ascii").strip() == "Y":
        raise NoDamonError(f"the kernel's own monitor has DAMON: write N to {monitor} to end that")


@contextmanager
def _held(directory: Path) -> Iterator[None]:
    """Keep other processes of this program from using DAMON during the block."""
    number = directory / "nr_kdamonds"
    if not number.exists():
        raise NoDamonError("this kernel has no DAMON")
    if not os.access(number, os.W_OK):
        raise NoDamonError("not permitted to use DAMON")
    with number.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise NoDamonError("another program uses DAMON") from None
        if int(file.read() or b"0"):
            raise NoDamonError("another program uses DAMON")
        yield


@contextmanager
def _switching(pids: Iterable[int], root: Path) -> Iterator[None]:
    """Interrupt the processes for a moment again and again during the block if that is of use.

    A processor marks a page when it loads the page's translation, and not while that is in its
    TLB. Where the switch to another process empties the TLB, the next access marks the page again:
    on x86 without PCID, as in many virtual machines.
    """
    if not _forgets_at_switches(root):
        yield
        return
    cpus = set[int]()
    for pid in pids:
        with suppress(ProcessLookupError):
            cpus |= os.sched_getaffinity(pid)
    pause = _ROUND / max(1, len(cpus))
    ended = threading.Event()

    def visit() -> None:
        for cpu in cycle(cpus):
            with suppress(OSError):
                os.sched_setaffinity(0, {cpu})
            if ended.wait(pause):
                return

    thread = threading.Thread(target=visit, name="schedhook-switch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _forgets_at_switches(root: Path) -> bool:
    """Return whether the processors are of the x86 family and have no PCID."""
    with (
        suppress(OSError),
        (root / "proc/cpuinfo").open(encoding="ascii", errors="replace") as file,
    ):
        for line in file:
            if line.startswith("flags"):
                return "pcid" not in line.split()
    return False


def _configure(context: Path, ranges: Ranges) -> None:
    """Say what DAMON monitors, for how long, and that nothing is to be done about it."""
    operations = (context / "avail_operations").read_text(encoding="ascii").split()
    if _OPERATIONS not in operations:
        raise NoDamonError("this kernel's DAMON cannot monitor processes")
    _write(context, "operations", _OPERATIONS)
    attributes = context / "monitoring_attrs"
    _write(attributes, "intervals/update_us", 60_000_000)
    count = max(_FEWEST, sum(map(len, ranges.values())))  # so it neither joins nor splits them
    _write(attributes, "nr_regions/max", count)
    _write(attributes, "nr_regions/min", count)
    _write(context, "targets/nr_targets", len(ranges))
    for number, (pid, its) in enumerate(ranges.items()):
        target = context / f"targets/{number}"
        _write(target, "pid_target", pid)
        _write(target, "regions/nr_regions", len(its))
        for index, (start, end) in enumerate(its):
            _write(target, f"regions/{index}/start", start)
            _write(target, f"regions/{index}/end", end)
    _write(context, "schemes/nr_schemes", 1)
    scheme = context / "schemes/0"
    _write(scheme, "action", "stat")
    for name, most in _ANY.items():
        _write(scheme, f"access_pattern/{name}/min", 0)
        _write(scheme, f"access_pattern/{name}/max", most)


def _monitor(kdamond: Path, ranges: Ranges, interval: int, looks: int) -> list[int]:
    """Return the count of each range, after so many looks with `interval` microseconds between."""
    intervals = kdamond / "contexts/0/monitoring_attrs/intervals"
    _write(intervals, "sample_us", interval)
    _write(intervals, "aggr_us", interval * looks)
    try:
        _command(kdamond, "on")
        found = _find(kdamond)
    finally:
        with suppress(OSError):  # it has ended by itself
            _command(kdamond, "off")
    return [round(ALWAYS * count / looks) for count in _assign(found, ranges)]


def _find(kdamond: Path) -> list[tuple[int, int, int]]:
    """Return (start, end, accesses) of each region, in the order of the targets."""
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end:
        _command(kdamond, "update_schemes_tried_regions")  # waits, but not always enough
        if found := _read(kdamond / "contexts/0/schemes/0/tried_regions"):
            return found
    raise NoDamonError("DAMON has found nothing in time")


def _command(kdamond: Path, name: str) -> None:
    """Give DAMON a command; wait while it is still busy with another one."""
    end = time.monotonic() + _PATIENCE
    while True:
        try:
            _write(kdamond, "state", name)
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() > end:
                raise
            time.sleep(0.01)
        else:
            return


def _read(regions: Path) -> list[tuple[int, int, int]]:
    """Return (start, end, accesses) of each region, in the order of the targets."""
    if not regions.exists():
        raise NoDamonError("this kernel's DAMON does not tell what it finds")
    numbers = sorted(int(each.name) for each in regions.iterdir() if each.name.isdecimal())

    def value(number: int, name: str) -> int:
        return int((regions / str(number) / name).read_bytes())

    return [(value(n, "start"), value(n, "end"), value(n, "nr_accesses")) for n in numbers]


def _assign(found: Sequence[tuple[int, int, int]], ranges: Ranges) -> Iterator[int]:
    """Yield the accesses to the region in which each range begins.

    The regions of a process have the size of its ranges, and some may be parts of a range, or
    adjacent ranges together.
    """
    left = iter(found)
    for its in ranges.values():
        size, regions = sum(end - start for start, end in its), list[tuple[int, int, int]]()
        while size > 0:
            region = next(left, None)
            if region is None:
                raise NoDamonError("DAMON has lost a process")
            regions.append(region)
            size -= region[1] - region[0]
        starts = [region[0] for region in regions]
        for start, _ in its:
            yield regions[max(0, bisect_right(starts, start) - 1)][2]


def _write(directory: Path, name: str, value: int | str, rollback: Rollback | None = None) -> None:
    """Write a value; with `rollback`, 0 is written in the end."""
    path = directory / name
    if rollback is not None:
        rollback.record_file(path, "0\n")
    with path.open("wb", buffering=0) as file:
        file.write(f"{value}\n".encode())
