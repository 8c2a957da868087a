"""Undo what records list: the rollback helper, and the recovery after it was killed.

    python3 -I -S undo.py RECORD WATCH PATH SECONDS     undo this record once standard input is
                                                closed, and already after SECONDS unless they are 0
    python3 -I -S undo.py                       undo what no living process holds

This file runs by itself in a bare interpreter, so it imports nothing of the package. A record
is a sequence of entries of three fields, each field ended by NUL:

    write PATH TEXT       write the text to the file
    bind "TID START" "CPUS|NEW"     bind the thread to CPUS, if it is bound within NEW
    watch NUMBER PATH     the inotify watch that tells whether others have written to the file
    keep "" PATH          they have
    commit "" ""          keep all changes so far
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress

DIRECTORY = "/run/schedhook/rollback"
"""Root's records. A record is locked while its process or the helper lives; flock(2)."""

WRITE, BIND, WATCH, KEEP, COMMIT = b"write", b"bind", b"watch", b"keep", b"commit"
FIELDS = 3

_IN_MODIFY = 2
_HEADER = 16
"""Bytes of an event, before its name; inotify(7)."""


def recover(directory: str = "") -> int:
    """Undo the records of processes that were killed along with their helpers.

    `directory` is DIRECTORY unless given. Return how many such records there were. Those that other
    users could have written are left alone.
    """
    directory = directory or DIRECTORY
    try:
        names = sorted(os.listdir(directory))  # noqa: PTH208
        if not names or not _is_own(directory):
            return 0
    except OSError:
        return 0
    import fcntl  # noqa: PLC0415 - there may be records

    found = 0
    for name in names:
        path = f"{directory}/{name}"
        with suppress(OSError):
            record = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(record, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(record).st_nlink:  # else another process was faster
                    finish(record, path)
                    found += 1
            finally:
                os.close(record)
    return found


def finish(record: int, path: str, watch: int = -1) -> None:
    """Undo what the record lists, and remove its file, if it has one.

    `watch` is the inotify instance of its watches, if that is still open.
    """
    with open(record, "rb", closefd=False) as file:
        file.seek(0)
        roll_back(file.read(), read_written(watch))
    if path:
        with suppress(OSError):
            os.unlink(path)  # noqa: PTH108


def read_written(watch: int) -> set[int]:
    """Return the watches whose files were written to since this was last asked."""
    numbers = set()
    with suppress(OSError):  # there are no more events
        while events := os.read(watch, 1 << 16):
            at = 0
            while at < len(events):
                number, mask, _, size = (
                    int.from_bytes(events[at + n : at + n + 4], sys.byteorder)
                    for n in range(0, _HEADER, 4)
                )
                if mask & _IN_MODIFY:
                    numbers.add(number)
                at += _HEADER + size
    return numbers


def roll_back(record: bytes, written: set[int] | frozenset[int] = frozenset()) -> None:
    """Undo what the record lists since its last commit, last change first. Ignore errors.

    A file that others have written to since stays as they have left it: `written` are its watches.
    """
    fields = record.split(b"\0")[:-1]
    entries = [fields[at : at + FIELDS] for at in range(0, len(fields), FIELDS)]
    entries = [entry for entry in entries if len(entry) == FIELDS]  # the last may be cut off
    for number, entry in reversed(list(enumerate(entries))):
        if entry[0] == COMMIT:
            entries = entries[number + 1 :]
            break
    kept = {
        path
        for kind, number, path in entries
        if kind == KEEP or (kind == WATCH and int(number) in written)
    }
    for kind, what, value in reversed(entries):
        with suppress(OSError, ValueError):
            if kind == WRITE and what not in kept:
                with open(what, "wb", buffering=0) as file:  # noqa: PTH123 - imports nothing
                    file.write(value)
            elif kind == BIND:
                _bind(what, value)


def _bind(what: bytes, value: bytes) -> None:
    """Bind a thread as before, unless another process has bound it since."""
    tid, started = what.split()
    before, after = (set(map(int, cpus.split())) for cpus in value.split(b"|"))
    if _start_time(int(tid)) == started and os.sched_getaffinity(int(tid)) <= after:
        os.sched_setaffinity(int(tid), before)


def _start_time(tid: int) -> bytes:
    """Return when the thread started, from /proc/PID/stat (proc(5)); empty if it is gone."""
    try:
        with open(f"/proc/{tid}/stat", "rb") as file:  # noqa: PTH123 - imports nothing
            return file.read().rpartition(b")")[2].split()[19]
    except (OSError, IndexError):
        return b""


def _is_own(directory: str) -> bool:
    """Return whether no other user could have written in the directory."""
    status = os.lstat(directory)
    is_directory = status.st_mode & 0o170000 == 0o040000
    return is_directory and status.st_uid == os.geteuid() and not status.st_mode & 0o022


def _main(arguments: list[str]) -> None:
    if not arguments:
        recover()
        return
    import signal  # noqa: PLC0415 - only in the helper

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # a stopped service must not lose its helper
    record, watch, path, seconds = arguments
    if float(seconds):
        import select  # noqa: PLC0415

        if not select.select([0], [], [], float(seconds))[0]:
            finish(int(record), "", int(watch))  # the file of the record is removed in the end
    sys.stdin.buffer.read()
    finish(int(record), path, int(watch))


if __name__ == "__main__":
    _main(sys.argv[1:])
