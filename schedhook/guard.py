"""Put things back even if this process is killed: a helper that outlives it.

The helper is this file run by a bare interpreter. It reads what is to be put back from a pipe, and
does it once the other end is closed, unless it was told to forget.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from contextlib import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:  # the helper pays for each import
    import subprocess
    from pathlib import Path

_WRITE, _BIND, _FORGET = b"write", b"bind", b"forget"
_FIELDS = 3


class Guard:
    """A context manager. What it was told to put back and has not forgotten at the block's end, or
    when this process dies, is put back in the opposite order. Starts its helper when first told."""

    def __init__(self) -> None:
        self._helper: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Guard:
        return self

    def __exit__(self, *_: object) -> None:
        if self._helper is not None:
            assert self._helper.stdin is not None
            self._helper.stdin.close()
            self._helper.wait()

    def write_back(self, path: Path, text: str) -> None:
        """`path` shall hold `text` again."""
        self._tell(_WRITE, os.fsencode(path), text.encode())

    def bind_back(self, tid: int, cpus: Iterable[int]) -> None:
        """The thread shall have these processors again, if it is still the same one."""
        thread = b"%d %s" % (tid, _start_time(tid))
        self._tell(_BIND, thread, " ".join(map(str, cpus)).encode())

    def forget(self) -> None:
        """Leave everything as it is now."""
        if self._helper is not None:
            self._tell(_FORGET)

    def _tell(self, *fields: bytes) -> None:
        if self._helper is None:
            self._helper = _start()
        assert self._helper.stdin is not None
        missing = [b""] * (_FIELDS - len(fields))
        # A helper that has been killed guards nothing, which is no reason to stop.
        with suppress(BrokenPipeError):
            self._helper.stdin.write(b"".join(field + b"\0" for field in (*fields, *missing)))


def _start() -> subprocess.Popen[bytes]:
    import subprocess  # noqa: PLC0415 - for few

    return subprocess.Popen(
        [sys.executable, "-I", "-S", __file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        bufsize=0,
        cwd="/",
        start_new_session=True,
    )


def put_back(told: bytes) -> None:
    """Do what a guard was told and has not forgotten. What cannot be done any more is left."""
    fields = told.split(b"\0")[:-1]
    records = [fields[at : at + _FIELDS] for at in range(0, len(fields), _FIELDS)]
    records = [record for record in records if len(record) == _FIELDS]
    for number, record in reversed(list(enumerate(records))):
        if record[0] == _FORGET:
            records = records[number + 1 :]
            break
    for kind, what, value in reversed(records):
        with suppress(OSError, ValueError):
            if kind == _WRITE:
                with open(what, "wb", buffering=0) as file:  # noqa: PTH123 - imports nothing
                    file.write(value)
            elif kind == _BIND:
                tid, started = what.split()
                if _start_time(int(tid)) == started:
                    os.sched_setaffinity(int(tid), map(int, value.split()))


def _start_time(tid: int) -> bytes:
    """When the thread started, by /proc/PID/stat (proc(5)); of another one with its number it would
    be another time. Empty where there is no such thread."""
    try:
        with open(f"/proc/{tid}/stat", "rb") as file:  # noqa: PTH123 - imports nothing
            return file.read().rpartition(b")")[2].split()[19]
    except (OSError, IndexError):
        return b""


def _main() -> None:
    import signal  # noqa: PLC0415 - the helper's alone

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # a service that is stopped must not lose its guard
    put_back(sys.stdin.buffer.read())


if __name__ == "__main__":
    _main()
