"""Freeze cgroups while their memory moves: cgroup.freeze of cgroup version 2.

See Documentation/admin-guide/cgroup-v2.rst of the kernel.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from schedhook.control.rollback import Rollback
from schedhook.roles.backend import Target
from schedhook.values.errors import ProcessGoneError, RefusedError

_SETTLE_SECONDS = 1.0
"""How long to wait until all tasks have stopped. Memory can be moved even if some have not."""


def cgroups_to_freeze(targets: Iterable[Target], cgroup: str | None, root: Path) -> list[Path]:
    """Return the directories of the processes' cgroups (version 2), or of the cgroup named.

    Raise RefusedError for one that cannot be frozen: the host has no version 2, it is the topmost
    cgroup, or this process is in it.
    """
    found: dict[Path | None, None]
    if cgroup is not None:
        found = {_named(cgroup, root): None}
    else:
        found = dict.fromkeys(_directories(targets, root))
    own = _directory(os.getpid(), root) if root == Path("/") else None
    for path in found:
        if path is None or not (path / "cgroup.freeze").exists():
            raise RefusedError("a cgroup cannot be frozen: it is the topmost one, or of version 1")
        if own is not None and own.is_relative_to(path):
            raise RefusedError(f"cgroup {path} cannot be frozen: this process is in it")
    return [path for path in found if path is not None]


@contextlib.contextmanager
def freeze_cgroups(
    paths: Sequence[Path], rollback: Rollback, *, seconds: float = _SETTLE_SECONDS
) -> Iterator[None]:
    """Freeze the cgroups for the block, except those that are frozen already.

    For `seconds` wait until all tasks have stopped. The cgroups are thawed at the block's end, or
    by `rollback` if this process is killed; one that another process has frozen or thawed meanwhile
    stays as it is. Raise RefusedError if one cannot be frozen.
    """
    files = [path / "cgroup.freeze" for path in paths]
    try:
        files = [file for file in files if file.read_text().strip() == "0"]
    except OSError as error:
        raise RefusedError(f"{error.filename}: not readable: {error.strerror}") from error
    for file in files:
        rollback.record_file(file, "0")
    try:
        _freeze(files, rollback, seconds)
        yield
    finally:
        for file in files:
            if not rollback.is_overwritten(file):
                with contextlib.suppress(OSError):  # removed with the job
                    file.write_text("0")


def _freeze(files: Sequence[Path], rollback: Rollback, seconds: float) -> None:
    end = time.monotonic() + seconds
    try:
        for file in files:
            file.write_text("1")
            rollback.watch(file)
        waiting = [file.with_name("cgroup.events") for file in files]
        while waiting and time.monotonic() < end:
            time.sleep(0.002)
            waiting = [file for file in waiting if "frozen 1" not in file.read_text()]
    except FileNotFoundError:
        return  # the cgroup has ended, and its processes with it
    except OSError as error:
        raise RefusedError(f"{error.filename}: cannot freeze: {error.strerror}") from error


def _directories(targets: Iterable[Target], root: Path) -> Iterator[Path | None]:
    for target in targets:
        with contextlib.suppress(ProcessGoneError):
            directory = _directory(target.pid, root)
            if target.alive():  # else another process may have its number
                yield directory


def _directory(pid: int, root: Path) -> Path | None:
    """Return the directory of the process's cgroup of version 2, None if it has none."""
    from schedhook.host.cgroups import memberships  # noqa: PLC0415 - only needed to freeze

    name = dict(memberships(pid, root)).get("")
    mount = _mount(root)
    return mount / name.lstrip("/") if name is not None and mount else None


def _named(text: str, root: Path) -> Path | None:
    from schedhook.host.cgroups import resolve_cgroup  # noqa: PLC0415 - only needed to freeze

    cgroup = resolve_cgroup(text, root)
    return cgroup.path if cgroup.version == 2 else None


def _mount(root: Path) -> Path | None:
    from schedhook.host.cgroups import hierarchies  # noqa: PLC0415 - only needed to freeze

    return next((each.mount for each in hierarchies(root) if each.version == 2), None)
