"""Put things back even if this process is killed: a helper that outlives it, and a record for the
case that the helper is killed as well.

The helper is this file run by a bare interpreter. Once the pipe to it is closed it puts back what
the record says. Root's records are files, each of them locked while somebody sees to it; one that
nobody has locked is put back by whoever finds it.
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

DIRECTORY = "/run/schedhook/guards"

_WRITE, _BIND, _FORGET = b"write", b"bind", b"forget"
_FIELDS = 3


class Rollback:
    """A context manager. What it was told to put back and has not forgotten at the block's end, or
    when this process dies, is put back in the opposite order. Starts its helper when first told."""

    def __init__(self) -> None:
        self._helper: subprocess.Popen[bytes] | None = None
        self._record = -1
        self._path = ""

    def __enter__(self) -> Rollback:
        return self

    def __exit__(self, *_: object) -> None:
        if self._helper is not None:
            assert self._helper.stdin is not None
            self._helper.stdin.close()
            if self._helper.wait():  # it was killed
                _finish(self._record, self._path)
            os.close(self._record)

    def write_back(self, path: Path, text: str) -> None:
        """`path` shall hold `text` again."""
        self._tell(_WRITE, os.fsencode(path), text.encode())

    def bind_back(self, tid: int, start_time: int, cpus: Iterable[int]) -> None:
        """The thread that started then (clock ticks after boot) shall have these processors again:
        not another one that has got its number."""
        thread = b"%d %d" % (tid, start_time)
        self._tell(_BIND, thread, " ".join(map(str, cpus)).encode())

    def forget(self) -> None:
        """Leave everything as it is now."""
        if self._helper is not None:
            self._tell(_FORGET)

    def _tell(self, *fields: bytes) -> None:
        if self._helper is None:
            self._record, self._path = _new_record()
            self._helper = _start(self._record, self._path)
        missing = [b""] * (_FIELDS - len(fields))
        try:
            os.write(self._record, b"".join(field + b"\0" for field in (*fields, *missing)))
        except OSError as error:
            from schedhook.values.errors import RefusedError  # noqa: PLC0415 - the helper's not

            raise RefusedError(
                f"{self._path or 'memory'}: {error.strerror}: nothing is changed that could not be"
                " put back"
            ) from error


def _new_record() -> tuple[int, str]:
    """A descriptor, and the file's path; empty where it has none and ends with its last reader."""
    import fcntl  # noqa: PLC0415 - the helper has no use for it
    import time  # noqa: PLC0415
    from pathlib import Path  # noqa: PLC0415

    from schedhook.values.ownership import make_directory  # noqa: PLC0415

    if os.geteuid() == 0:
        path = f"{DIRECTORY}/{os.getpid()}-{time.monotonic_ns()}"
        with suppress(OSError):
            make_directory(Path(DIRECTORY), 0o700)
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            record = os.open(path, flags, 0o600)
            fcntl.flock(record, fcntl.LOCK_EX)
            return record, path
    return os.memfd_create("schedhook-guard"), ""


def _start(record: int, path: str) -> subprocess.Popen[bytes]:
    import subprocess  # noqa: PLC0415 - for few

    return subprocess.Popen(
        [sys.executable, "-I", "-S", __file__, str(record), path],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=[record],
        bufsize=0,
        cwd="/",
        start_new_session=True,
    )


def recover(directory: str = DIRECTORY) -> int:
    """Put back what is recorded and nobody sees to, guard and guarded having been killed. How many
    records there were."""
    import fcntl  # noqa: PLC0415
    from pathlib import Path  # noqa: PLC0415

    from schedhook.values.ownership import explain_untrusted  # noqa: PLC0415

    try:
        names = sorted(os.listdir(directory))  # noqa: PTH208
        if not names or explain_untrusted(Path(directory)):
            return 0  # the usual case, and one that root does not trust
    except OSError:
        return 0
    found = 0
    for name in names:
        path = f"{directory}/{name}"
        with suppress(OSError):
            record = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(record, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(record).st_nlink:  # else somebody was faster
                    _finish(record, path)
                    found += 1
            finally:
                os.close(record)
    return found


def _finish(record: int, path: str) -> None:
    with open(record, "rb", closefd=False) as file:
        file.seek(0)
        put_back(file.read())
    if path:
        with suppress(OSError):
            os.unlink(path)  # noqa: PTH108


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
    sys.stdin.buffer.read()
    _finish(int(sys.argv[1]), sys.argv[2])


if __name__ == "__main__":
    _main()
