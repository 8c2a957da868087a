"""Give the processes of a tree of cpusets other processors, all of it or nothing.

A child's cpuset has to stay inside its parent's, so the tree is widened from the top, and narrowed
from the bottom once the memory has followed. A kernel may take a thread's own binding away each
time its cpuset changes (version 1 always does), so bindings are read before and set after. See
cpuset(7), sched_setaffinity(2). Of cpuset.mems there is only a writer here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from schedhook.control.threads import Thread, affinity, bind, members_threads
from schedhook.host.cgroups import (
    Cgroup,
    configured_cpus,
    configured_nodes,
    effective_cpus,
)
from schedhook.values.errors import NoPermissionError, RefusedError, SchedhookError
from schedhook.values.sets import CpuSet, NodeSet

_ROUNDS = 5
"""Looks for threads that appeared while others were bound."""
_TRIES = 3
"""Somebody else may write the same cpusets at the same time: a scheduler that starts a step."""


def successors(old: CpuSet, new: CpuSet) -> dict[int, int]:
    """The n-th old processor → the n-th new one, counted round where there are fewer new ones.
    Empty where there is no new one."""
    places = list(new)
    return {cpu: places[n % len(places)] for n, cpu in enumerate(old)} if places else {}


def relative(cpus: Iterable[int], old: CpuSet, new: CpuSet) -> CpuSet:
    """What `cpus`, some of `old`, become in `new`: those that stand in their place.

    All of the old ones become all of the new ones, and so do processors that are none of the old.
    """
    inside = old & cpus
    if not inside or inside == old:
        return new
    then = successors(old, new)
    return CpuSet(then[cpu] for cpu in inside)


@dataclass(frozen=True, slots=True, kw_only=True)
class CpusetChange:
    """A cgroup with a cpuset of its own, and what it is to be."""

    cgroup: Cgroup
    cpus: CpuSet
    stays_wide: bool = False
    """It serves others too: widened, never narrowed."""


Bind = Callable[[int, CpuSet], CpuSet]
"""From a process and what one of its threads may use now, to what the thread is to use."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuMove:
    """How it ended."""

    failure: str | None = None
    """Why it was not done; None where it was."""
    not_restored: tuple[str, ...] = ()
    """After a failure: what could not be put back."""
    threads: int = 0
    """Threads that were bound anew."""

    @property
    def done(self) -> bool:
        return self.failure is None


def move_processors(
    levels: Sequence[CpusetChange],
    pids: Callable[[], Iterable[int]],
    bind: Bind,
    move: Callable[[], None],
    root: Path = Path("/"),
) -> CpuMove:
    """Widen, bind, `move` the memory, narrow, bind again, and look whether it is so.

    `levels` come from the top down. `pids` tells the processes in them, as often as it is asked.
    `move` raises SchedhookError where the processors shall not change after all. A failure puts
    every cpuset and binding back and is told in the result; so does any other exception, which
    goes on to the caller.
    """
    return _Move(levels, pids, bind, root).run(move)


@dataclass(slots=True)
class _Bindings:
    """What threads may use."""

    before: dict[Thread, CpuSet] = field(default_factory=dict)
    after: dict[Thread, CpuSet] = field(default_factory=dict)


class _Move:
    def __init__(
        self,
        levels: Sequence[CpusetChange],
        pids: Callable[[], Iterable[int]],
        bind: Bind,
        root: Path,
    ) -> None:
        self._levels = list(levels)
        self._pids = pids
        self._bind = bind
        self._root = root
        self._before: dict[Path, CpuSet] = {}
        self._threads = _Bindings()

    def run(self, move: Callable[[], None]) -> CpuMove:
        try:
            for level in self._levels:
                self._before[level.cgroup.path] = configured_cpus(level.cgroup)
            for thread in self._all_threads():
                self._threads.before[thread] = affinity(thread, self._root)
        except SchedhookError as error:
            return CpuMove(failure=str(error))
        try:
            for level in self._levels:
                write_cpus(level.cgroup, self._before[level.cgroup.path] | level.cpus)
            self._bind_all()
            move()
            self._settle()
        except SchedhookError as error:
            return CpuMove(failure=str(error), not_restored=self._restore())
        except BaseException:
            self._restore()
            raise
        return CpuMove(threads=len(self._threads.after))

    # -- forth -----------------------------------------------------------------------------------

    def _settle(self) -> None:
        for attempt in range(_TRIES):
            try:
                for level in reversed(self._levels):
                    if not level.stays_wide:
                        write_cpus(level.cgroup, level.cpus)
                self._bind_all()
                wrong = self._look()
            except RefusedError as refusal:
                wrong = str(refusal)
            if not wrong:
                return
            if attempt + 1 < _TRIES:
                for level in self._levels:
                    write_cpus(level.cgroup, configured_cpus(level.cgroup) | level.cpus)
        raise RefusedError(f"the processors do not stay as they were written: {wrong}")

    def _look(self) -> str:
        for level in self._levels:
            if not level.stays_wide:
                found = effective_cpus(level.cgroup, self._root)
                if found != level.cpus:
                    return f"{level.cgroup} has processors {found}, not {level.cpus}"
        return ""

    def _bind_all(self) -> None:
        """Bind every thread, also those that appear meanwhile."""
        for thread, cpus in self._threads.after.items():
            bind(thread, cpus, self._root)
        for _ in range(_ROUNDS):
            new = [each for each in self._all_threads() if each not in self._threads.after]
            if not new:
                return
            for thread in new:
                cpus = self._bind(thread.pid, self._had(thread))
                bind(thread, cpus, self._root)
                self._threads.after[thread] = cpus

    def _had(self, thread: Thread) -> CpuSet:
        """What the thread could use before; for one that is new, what its process could, or the
        process that it comes from."""
        before = self._threads.before
        if thread in before:
            return before[thread]
        by_tid = {each.tid: cpus for each, cpus in before.items()}
        for tid in (thread.pid, _parent(thread.pid, self._root)):
            if tid in by_tid:
                return by_tid[tid]
        return CpuSet()

    def _all_threads(self) -> list[Thread]:
        return members_threads(self._pids, self._root)

    # -- back ------------------------------------------------------------------------------------

    def _restore(self) -> tuple[str, ...]:
        """Never raises SchedhookError: it goes as far as it can, and says what it could not do."""
        failed: list[str] = []
        for level in self._levels:
            wide = self._before[level.cgroup.path] | level.cpus
            _try(failed, write_cpus, level.cgroup, wide)
        for level in reversed(self._levels):
            _try(failed, write_cpus, level.cgroup, self._before[level.cgroup.path])
        for thread in self._all_threads():
            _try(failed, bind, thread, self._had(thread), self._root)
        return tuple(failed)


def _try(failed: list[str], step: Callable[..., object], *arguments: object) -> None:
    try:
        step(*arguments)
    except SchedhookError as error:
        failed.append(str(error))


def write_cpus(cgroup: Cgroup, cpus: CpuSet) -> None:
    """Write cpuset.cpus where it says something else. An empty set is the parent's (version 2).

    RefusedError where the kernel does not take it, NoPermissionError; a cgroup that is gone needs
    nothing.
    """
    if configured_cpus(cgroup) != cpus:
        _write(cgroup, "cpuset.cpus", str(cpus))


def write_nodes(cgroup: Cgroup, nodes: NodeSet) -> None:
    """Write cpuset.mems, as `write_cpus` does.

    On version 2 the kernel moves what lies outside of a narrower set itself, and kills the job
    where there is no room: so widen, move, look, and only then narrow.
    """
    if configured_nodes(cgroup) != nodes:
        _write(cgroup, "cpuset.mems", str(nodes))


def _write(cgroup: Cgroup, name: str, text: str) -> None:
    path = cgroup.path / name
    try:
        with path.open("wb", buffering=0) as file:
            # One write; a blank line clears the set, and no bytes at all would not be a write.
            file.write(f"{text}\n".encode())
    except FileNotFoundError:
        return
    except PermissionError:
        raise NoPermissionError(f"{path}: not permitted to write; run as root") from None
    except OSError as error:
        if not cgroup.path.exists():
            return
        raise RefusedError(f"{path}: the kernel refuses {text!r}: {error.strerror}") from None


def _parent(pid: int, root: Path) -> int:
    try:
        stat = (root / "proc" / str(pid) / "stat").read_bytes()
    except OSError:
        return 0
    fields = stat.rpartition(b")")[2].split()
    return int(fields[1]) if len(fields) > 1 else 0
