"""Undo changes to the host even if this process is killed.

A helper process, the rollback helper, outlives this one: once the pipe to it is closed, it undoes
what a record lists. It is this file, run by a bare interpreter. In case the helper is killed too,
root's records are files in /run/schedhook/rollback, locked while the process or its helper is
alive; a record that is not locked is undone by the next process that calls `recover`.
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

DIRECTORY = "/run/schedhook/rollback"

_WRITE, _BIND, _COMMIT = b"write", b"bind", b"commit"
_FIELDS = 3


class Rollback:
    """A context manager that undoes what was recorded and not committed, last change first.

    It does so at the block's end, or when this process dies. The first record starts the helper.
    """

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
            if self._helper.wait():  # the helper was killed
                _finish(self._record, self._path)
            os.close(self._record)

    def record_file(self, path: Path, text: str) -> None:
        """Record that `path` must be written with `text`; call it before changing the file.

        Raise RefusedError if the record cannot be written.
        """
        self._append(_WRITE, os.fsencode(path), text.encode())

    def record_affinity(self, tid: int, start_time: int, cpus: Iterable[int]) -> None:
        """Record that the thread must be bound to `cpus`; call it before binding the thread.

        `start_time`, in clock ticks after boot, distinguishes it from a later thread with its
        number. Raise RefusedError if the record cannot be written.
        """
        thread = b"%d %d" % (tid, start_time)
        self._append(_BIND, thread, " ".join(map(str, cpus)).encode())

    def commit(self) -> None:
        """Keep every change made so far."""
        if self._helper is not None:
            self._append(_COMMIT)

    def _append(self, *fields: bytes) -> None:
        if self._helper is None:
            self._record, self._path = _new_record()
            self._helper = _start(self._record, self._path)
        missing = [b""] * (_FIELDS - len(fields))
        try:
            os.write(self._record, b"".join(field + b"\0" for field in (*fields, *missing)))
        except OSError as error:
            from schedhook.values.errors import RefusedError  # noqa: PLC0415 - not in the helper

            raise RefusedError(
                f"{self._path or 'memory'}: cannot record how to undo the change:"
                f" {error.strerror}; nothing was changed"
            ) from error


def _new_record() -> tuple[int, str]:
    """Return a descriptor, and the file's path.

    The path is empty for a record in memory, which ends with the last process that has it open.
    """
    import fcntl  # noqa: PLC0415 - not in the helper
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
    return os.memfd_create("schedhook-rollback"), ""


def _start(record: int, path: str) -> subprocess.Popen[bytes]:
    import subprocess  # noqa: PLC0415 - not in the helper

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
    """Undo the records of processes that were killed along with their helpers.

    Return how many such records there were.
    """
    import fcntl  # noqa: PLC0415
    from pathlib import Path  # noqa: PLC0415

    from schedhook.values.ownership import explain_untrusted  # noqa: PLC0415

    try:
        names = sorted(os.listdir(directory))  # noqa: PTH208
        if not names or explain_untrusted(Path(directory)):
            return 0  # the usual case, or a directory that others could write
    except OSError:
        return 0
    found = 0
    for name in names:
        path = f"{directory}/{name}"
        with suppress(OSError):
            record = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(record, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(record).st_nlink:  # else another process was faster
                    _finish(record, path)
                    found += 1
            finally:
                os.close(record)
    return found


def _finish(record: int, path: str) -> None:
    with open(record, "rb", closefd=False) as file:
        file.seek(0)
        roll_back(file.read())
    if path:
        with suppress(OSError):
            os.unlink(path)  # noqa: PTH108


def roll_back(record: bytes) -> None:
    """Undo what the record lists since its last commit, last change first. Ignore errors."""
    fields = record.split(b"\0")[:-1]
    entries = [fields[at : at + _FIELDS] for at in range(0, len(fields), _FIELDS)]
    entries = [entry for entry in entries if len(entry) == _FIELDS]  # the last may be cut off
    for number, entry in reversed(list(enumerate(entries))):
        if entry[0] == _COMMIT:
            entries = entries[number + 1 :]
            break
    for kind, what, value in reversed(entries):
        with suppress(OSError, ValueError):
            if kind == _WRITE:
                with open(what, "wb", buffering=0) as file:  # noqa: PTH123 - imports nothing
                    file.write(value)
            elif kind == _BIND:
                tid, started = what.split()
                if _start_time(int(tid)) == started:
                    os.sched_setaffinity(int(tid), map(int, value.split()))


def _start_time(tid: int) -> bytes:
    """Return when the thread started, from /proc/PID/stat (proc(5)); empty if it is gone."""
    try:
        with open(f"/proc/{tid}/stat", "rb") as file:  # noqa: PTH123 - imports nothing
            return file.read().rpartition(b")")[2].split()[19]
    except (OSError, IndexError):
        return b""


def _main() -> None:
    import signal  # noqa: PLC0415 - only in the helper

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # a stopped service must not lose its helper
    sys.stdin.buffer.read()
    _finish(int(sys.argv[1]), sys.argv[2])


if __name__ == "__main__":
    _main()
