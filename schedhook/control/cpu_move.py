"""Move the processes of a tree of cpusets to other processors, all of it or nothing.

A child's cpuset must stay inside its parent's, so the tree is widened from the top, and narrowed
from the bottom once the memory has followed. Linux before 6.2 resets a thread's own affinity each
time its cpuset changes, so affinities are read before and set after each change. Meanwhile the
processes stand still, where version 2 can freeze them: for that moment a thread could run on
another's processors, and the kernel's NUMA balancing would take its pages there.
See cpuset(7), sched_setaffinity(2).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from schedhook.control.cpusets import write_cpus
from schedhook.control.freezer import cgroups_to_freeze, freeze_cgroups
from schedhook.control.rollback import Rollback
from schedhook.control.threads import Thread, affinity, bind, member_threads
from schedhook.host.cgroups import Cgroup, configured_cpus, effective_cpus
from schedhook.host.processes import read_parent
from schedhook.values.errors import RefusedError, SchedhookError
from schedhook.values.sets import CpuSet

_ROUNDS = 5
"""Looks for threads that appeared while others were bound."""
_FREEZE_SECONDS = 0.2
"""How long to wait until all threads stand still: one that waits for a disk would keep the others
of its job."""
_STILL_SECONDS = 10.0
"""The longest that a job stands still, should this process be stopped in the meantime."""
_TRIES = 3
"""Another process may write the same cpusets at the same time: a scheduler that starts a step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CpusetChange:
    """A cgroup that has a cpuset of its own, and its new processors."""

    cgroup: Cgroup
    cpus: CpuSet
    stays_wide: bool = False
    """Other jobs use it too, so it is widened but never narrowed."""


ChooseBinding = Callable[[int, CpuSet], CpuSet]
"""Return the new processors of a thread. Arguments: its process, and its old processors."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuMoveResult:
    """The result of `move_processors`."""

    failure: str | None = None
    """Why it failed; None if it succeeded."""
    not_restored: tuple[str, ...] = ()
    """After a failure: errors met while cpusets and affinities were restored."""

    @property
    def done(self) -> bool:
        """Return whether it succeeded."""
        return self.failure is None


def move_processors(
    changes: Sequence[CpusetChange],
    pids: Callable[[], Iterable[int]],
    choose_binding: ChooseBinding,
    move_memory: Callable[[], None],
    root: Path = Path("/"),
    check: Callable[[], None] = lambda: None,
) -> CpuMoveResult:
    """Widen the cpusets, bind the threads, move the memory, narrow the cpusets, and check them.

    `changes` must come from the top of the tree down. `pids` returns the processes in it, and is
    called again each time they are needed. `move_memory` raises SchedhookError if the processors
    must stay as they were, and so does `check`, which is called before the memory moves, and before
    and after the cpusets are narrowed. After a failure every cpuset and affinity is restored, and
    the result says why. Any other exception restores them too, and goes on to the caller.
    """
    try:
        cpusets = _Cpusets(changes, root)
        threads = _Threads(pids, choose_binding, root)
        still = partial(_standing_still, _to_freeze(changes, pids, root))
    except SchedhookError as error:
        return CpuMoveResult(failure=str(error))
    try:
        _change(still, cpusets.widen, threads)
        check()
        move_memory()
        _settle(cpusets, threads, check, still)
    except SchedhookError as error:
        return CpuMoveResult(failure=str(error), not_restored=_restore(cpusets, threads, still))
    except BaseException:
        _restore(cpusets, threads, still)
        raise
    return CpuMoveResult()


_Still = Callable[[], AbstractContextManager[None]]
"""Returns a context manager for whose block the job stands still."""


def _settle(cpusets: _Cpusets, threads: _Threads, check: Callable[[], None], still: _Still) -> None:
    """Narrow the cpusets, and again if another process has written them since."""

    def narrow_again() -> None:
        cpusets.widen()
        cpusets.narrow()

    for attempt in range(_TRIES):
        check()
        try:
            _change(still, narrow_again if attempt else cpusets.narrow, threads)
            mismatch = cpusets.find_mismatch()
        except RefusedError as refusal:
            mismatch = str(refusal)
        check()
        if not mismatch:
            return
    raise RefusedError(f"the processors do not stay as they were written: {mismatch}")


def _change(still: _Still, write: Callable[[], None], threads: _Threads) -> None:
    """Write the cpusets, and bind the threads, also if some cpuset could not be written."""
    with still():
        try:
            write()
        except SchedhookError:
            with suppress(SchedhookError):
                threads.bind_all()
            raise
        threads.bind_all()


def _restore(cpusets: _Cpusets, threads: _Threads, still: _Still) -> tuple[str, ...]:
    """Restore as much as possible, and return the errors."""
    errors: list[str] = []
    with ExitStack() as stack:
        try:
            stack.enter_context(still())
        finally:  # a second Ctrl-C may come while the job is being stopped
            for steps in (cpusets.restore_steps(), threads.restore_steps()):
                for step in steps:
                    try:
                        step()
                    except SchedhookError as error:
                        errors.append(str(error))
    return tuple(errors)


@contextmanager
def _standing_still(cgroups: Sequence[Path]) -> Iterator[None]:
    """Freeze the cgroups for the block; go on without that if the kernel or a limit forbids it."""
    with Rollback(seconds=_STILL_SECONDS) as rollback, ExitStack() as stack:
        with suppress(RefusedError, OSError):
            stack.enter_context(freeze_cgroups(cgroups, rollback, seconds=_FREEZE_SECONDS))
        yield


def _to_freeze(
    changes: Iterable[CpusetChange], pids: Callable[[], Iterable[int]], root: Path
) -> list[Path]:
    """Return the topmost cgroups of which all processes are moved, as far as they can be frozen."""
    found: list[Path] = []
    if os.getpid() in pids():
        return found
    for change in changes:
        path = change.cgroup.path
        if not change.stays_wide and not any(path.is_relative_to(each) for each in found):
            with suppress(SchedhookError):
                found += cgroups_to_freeze((), str(path), root)
    return found


class _Cpusets:
    """The cpusets of the tree: what each had before, and the steps that change them."""

    def __init__(self, changes: Sequence[CpusetChange], root: Path) -> None:
        self._changes = changes
        self._root = root
        self._before = [configured_cpus(change.cgroup) for change in changes]

    def widen(self) -> None:
        for change in self._changes:
            write_cpus(change.cgroup, configured_cpus(change.cgroup) | change.cpus)

    def narrow(self) -> None:
        for change in reversed(self._changes):
            if not change.stays_wide:
                write_cpus(change.cgroup, change.cpus)

    def find_mismatch(self) -> str:
        """Return which cpuset has other processors than its new ones, empty if none has."""
        for change in self._changes:
            if not change.stays_wide:
                found = effective_cpus(change.cgroup, self._root)
                if found != change.cpus:
                    return f"{change.cgroup} has processors {found}, not {change.cpus}"
        return ""

    def restore_steps(self) -> Iterator[Callable[[], object]]:
        pairs = list(zip(self._changes, self._before, strict=True))
        for change, before in pairs:
            yield partial(write_cpus, change.cgroup, before | change.cpus)
        for change, before in reversed(pairs):
            yield partial(write_cpus, change.cgroup, before)


class _Threads:
    """The threads in the tree: what each could use before, and what it is bound to now."""

    def __init__(
        self,
        pids: Callable[[], Iterable[int]],
        choose_binding: ChooseBinding,
        root: Path,
    ) -> None:
        self._pids = pids
        self._choose_binding = choose_binding
        self._root = root
        self._before = {thread: affinity(thread, root) for thread in self._read()}
        self._bound: dict[Thread, CpuSet] = {}

    def bind_all(self) -> None:
        """Bind every thread, also those that appear in the course of it."""
        for thread, cpus in self._bound.items():
            bind(thread, cpus, self._root)
        for _ in range(_ROUNDS):
            new = [each for each in self._read() if each not in self._bound]
            if not new:
                return
            for thread in new:
                cpus = self._choose_binding(thread.pid, self._old_cpus(thread))
                bind(thread, cpus, self._root)
                self._bound[thread] = cpus

    def restore_steps(self) -> Iterator[Callable[[], object]]:
        for thread in self._read():
            yield partial(bind, thread, self._old_cpus(thread), self._root)

    def _old_cpus(self, thread: Thread) -> CpuSet:
        """Return what the thread could use before.

        For a new thread, that is what its process could use; for a new process, its parent.
        """
        if thread in self._before:
            return self._before[thread]
        by_tid = {each.tid: cpus for each, cpus in self._before.items()}
        for tid in (thread.pid, _parent(thread.pid, self._root)):
            if tid in by_tid:
                return by_tid[tid]
        return CpuSet()

    def _read(self) -> list[Thread]:
        return member_threads(self._pids, self._root)


def _parent(pid: int, root: Path) -> int:
    try:
        return read_parent(pid, root)
    except SchedhookError:
        return 0
