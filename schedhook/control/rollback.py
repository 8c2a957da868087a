"""Undo changes to the host even if this process is killed.

A helper process, the rollback helper, outlives this one: once the pipe to it is closed, it undoes
what a record lists (`undo`). Root's helper leaves this process's cgroup, since cgroup.kill,
memory.oom.group, the end of a login session and systemd kill all of a cgroup at once. In case the
helper is killed too, root's records are files, locked while the process or its helper is alive; a
record that is not locked is undone by the next process that calls `recover`.
"""

from __future__ import annotations

import fcntl
import os
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from schedhook.backends.native.descriptors import memfd_create
from schedhook.control import undo
from schedhook.host.hierarchies import read_hierarchies
from schedhook.values.errors import RefusedError
from schedhook.values.ownership import make_directory

if TYPE_CHECKING:
    import subprocess

_ENDING = frozenset({"name=systemd", "freezer"})
"""Hierarchies of version 1 by which systemd and Slurm find the processes to kill."""
_SHELTER = "schedhook-rollback"
"""A cgroup for helpers where the topmost one may have no processes, as in a container."""


class Rollback:
    """A context manager that undoes what was recorded and not committed, last change first.

    It does so at the block's end, or when this process dies. The first record starts the helper.
    With `seconds` the helper also does it that long after its start: this process may be stopped.
    """

    def __init__(self, *, seconds: float = 0.0) -> None:
        self._seconds = seconds
        self._helper: subprocess.Popen[bytes] | None = None
        self._record = self._watch = -1
        self._path = ""
        self._watches: dict[int, Path] = {}
        self._overwritten: set[Path] = set()

    def __enter__(self) -> Rollback:
        return self

    def __exit__(self, *_: object) -> None:
        if self._helper is not None:
            assert self._helper.stdin is not None
            self._helper.stdin.close()
            if self._helper.wait():  # the helper was killed
                undo.finish(self._record, self._path, self._watch)
            self._close()

    def record_file(self, path: Path, text: str) -> None:
        """Record that `path` must be written with `text`; call it before changing the file.

        Raise RefusedError if the record cannot be written.
        """
        self._append(undo.WRITE, os.fsencode(path), text.encode())

    def record_affinity(
        self, tid: int, start_time: int, before: Iterable[int], after: Iterable[int]
    ) -> None:
        """Record that the thread must be bound to `before`; call it before binding it to `after`.

        `start_time`, in clock ticks after boot, distinguishes it from a later thread with its
        number. A thread that another process has bound to other processors since is left alone.
        Raise RefusedError if the record cannot be written.
        """
        cpus = b"|".join(" ".join(map(str, its)).encode() for its in (before, after))
        self._append(undo.BIND, b"%d %d" % (tid, start_time), cpus)

    def watch(self, path: Path) -> None:
        """Leave a recorded file alone if another process writes to it; call it after the change.

        Does nothing if the kernel has no watch left. Raise RefusedError if the record cannot be
        written.
        """
        from schedhook.backends.native import _core  # noqa: PLC0415 - only needed to freeze

        with suppress(OSError):
            number = _core.watch_writes(self._watch, os.fsencode(path))
            self._watches[number] = path
            self._append(undo.WATCH, b"%d" % number, os.fsencode(path))

    def is_overwritten(self, path: Path) -> bool:
        """Return whether another process has written to a watched file since."""
        for number in undo.read_written(self._watch):
            found = self._watches[number]
            self._append(undo.KEEP, b"", os.fsencode(found))
            self._overwritten.add(found)
        return path in self._overwritten

    def commit(self) -> None:
        """Keep every change made so far."""
        if self._helper is not None:
            self._append(undo.COMMIT)

    def _append(self, *fields: bytes) -> None:
        self.prepare()
        missing = [b""] * (undo.FIELDS - len(fields))
        try:
            os.write(self._record, b"".join(field + b"\0" for field in (*fields, *missing)))
        except OSError as error:
            raise RefusedError(
                f"{self._path or 'memory'}: cannot record how to undo the change:"
                f" {error.strerror}; nothing was changed"
            ) from error

    def prepare(self) -> None:
        """Start the helper, as the first record does if it does not run by then.

        Raise RefusedError if no process can be started.
        """
        if self._helper is not None:
            return
        self._record, self._path = _new_record()
        self._watch = _new_watch()
        try:
            self._helper = _start(self._record, self._watch, self._path, self._seconds)
        except BaseException:
            self._discard()
            raise
        _leave_cgroups(self._helper.pid)

    def _discard(self) -> None:
        """Remove a record without entries."""
        if self._path:
            with suppress(OSError):
                Path(self._path).unlink()
        self._close()

    def _close(self) -> None:
        for descriptor in (self._record, self._watch):
            if descriptor >= 0:
                os.close(descriptor)
        self._record = self._watch = -1


def _new_record() -> tuple[int, str]:
    """Return a descriptor, and the file's path.

    The path is empty for a record in memory, which ends with the last process that has it open.
    """
    if os.geteuid() == 0:
        path = f"{undo.DIRECTORY}/{os.getpid()}-{time.monotonic_ns()}"
        with suppress(OSError):
            make_directory(Path(undo.DIRECTORY), 0o700)
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            record = os.open(path, flags, 0o600)
            fcntl.flock(record, fcntl.LOCK_EX)
            return record, path
    return memfd_create("schedhook-rollback"), ""


def _new_watch() -> int:
    """Return an inotify instance, -1 if the kernel has none left; inotify(7)."""
    from schedhook.backends.native import _core  # noqa: PLC0415

    try:
        return _core.open_watch()
    except OSError:
        return -1


def _start(record: int, watch: int, path: str, seconds: float) -> subprocess.Popen[bytes]:
    """Start the helper. Raise RefusedError if the kernel allows no more processes."""
    import subprocess  # noqa: PLC0415 - most relocations start no helper

    try:
        return subprocess.Popen(
            [sys.executable, "-I", "-S", undo.__file__, *map(str, (record, watch, path, seconds))],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=[each for each in (record, watch) if each >= 0],
            bufsize=0,
            cwd="/",
            start_new_session=True,
        )
    except OSError as error:
        raise RefusedError(
            f"no process can be started that would undo the changes: {error.strerror};"
            " nothing was changed"
        ) from error


def _leave_cgroups(pid: int) -> None:
    """Move a process to the top of the hierarchies by whose cgroups processes are ended.

    That is done as far as the kernel and our rights allow.
    """
    if os.geteuid() != 0:
        return
    for hierarchy in read_hierarchies():
        if hierarchy.version == 1 and hierarchy.controllers.isdisjoint(_ENDING):
            continue
        shelter = hierarchy.point / _SHELTER
        for directory in (hierarchy.point, shelter):
            try:
                if directory == shelter:
                    shelter.mkdir(exist_ok=True)
                (directory / "cgroup.procs").write_text(str(pid))
                break
            except OSError:
                continue
