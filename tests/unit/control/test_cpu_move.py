"""Move a tree of cpusets on a simulated kernel, which can fail at any call."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from schedhook.control import cpu_move
from schedhook.control.cpu_map import relative
from schedhook.control.cpu_move import CpuMoveResult, CpusetChange, move_processors
from schedhook.control.threads import Thread
from schedhook.host.cgroups import Cgroup
from schedhook.values.errors import RefusedError
from schedhook.values.sets import CpuSet

OLD, NEW = CpuSet({0, 1}), CpuSet({2, 3})
JOB, STEP, TASK = Path("/job"), Path("/job/step/user"), Path("/job/step/user/task")
TREE = {JOB: OLD, STEP: OLD, TASK: CpuSet({1})}
"""Parents come before their children."""


class Kernel:
    """Cpusets of version 1: a child's is inside its parent's, and a change binds every thread in it
    to all its processors. Kernels since 6.2 keep bindings (`keeps`).
    """

    def __init__(self, *, keeps: bool = False, fails_at: int | None = None) -> None:
        self.cpus = dict(TREE)
        self.threads = {10: (10, STEP), 11: (10, STEP), 20: (20, TASK), 30: (30, STEP)}
        self.bound = {10: CpuSet({0}), 11: CpuSet({0, 1}), 20: CpuSet({1}), 30: CpuSet({0, 1})}
        self.keeps = keeps
        self.fails_at = fails_at
        self.calls = 0
        self.after_each: Callable[[], None] = lambda: None
        self.parents: dict[int, int] = {}

    def _call(self) -> None:
        self.calls += 1
        if self.calls == self.fails_at:
            raise RefusedError("the kernel refuses")
        self.after_each()

    def configured(self, cgroup: Cgroup) -> CpuSet:
        return self.cpus[cgroup.path]

    def effective(self, cgroup: Cgroup, _root: Path) -> CpuSet:
        return self.cpus[cgroup.path]

    def write(self, cgroup: Cgroup, cpus: CpuSet) -> None:
        if self.cpus[cgroup.path] == cpus:
            return
        self._call()
        above = [path for path in cgroup.path.parents if path in self.cpus]
        below = [path for path in self.cpus if cgroup.path in path.parents]
        assert all(cpus <= self.cpus[path] for path in above), "a child outside its parent"
        assert all(self.cpus[path] <= cpus for path in below), "a parent without its child"
        self.cpus[cgroup.path] = cpus
        for tid, (_, path) in self.threads.items():
            if path == cgroup.path:
                kept = self.bound[tid] & cpus
                self.bound[tid] = kept if self.keeps and kept else cpus

    def member_threads(self, pids: Callable[[], list[int]], _root: Path) -> list[Thread]:
        members = pids()
        return [Thread(pid, tid, 0) for tid, (pid, _) in self.threads.items() if pid in members]

    def affinity(self, thread: Thread, _root: Path) -> CpuSet:
        return self.bound.get(thread.tid, CpuSet())

    def bind(self, thread: Thread, cpus: CpuSet, _root: Path) -> bool:
        if not cpus or thread.tid not in self.threads:
            return False
        self._call()
        allowed = self.cpus[self.threads[thread.tid][1]] & cpus
        if not allowed:
            raise RefusedError("not in its cpuset")
        self.bound[thread.tid] = allowed
        return True

    def pids(self) -> list[int]:
        return sorted({pid for pid, _ in self.threads.values()})

    def parent(self, pid: int, _root: Path) -> int:
        if pid not in self.parents:
            raise RefusedError(f"no process {pid}")
        return self.parents[pid]

    def fork(self, tid: int, parent: int) -> None:
        self.parents[tid] = parent
        self.threads[tid] = (tid, self.threads[parent][1])
        self.bound[tid] = self.bound[parent]


@pytest.fixture
def boot(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Kernel]:
    def start(**options: object) -> Kernel:
        kernel = Kernel(**options)  # type: ignore[arg-type]
        for name, stand_in in {
            "configured_cpus": kernel.configured,
            "effective_cpus": kernel.effective,
            "write_cpus": kernel.write,
            "member_threads": kernel.member_threads,
            "affinity": kernel.affinity,
            "bind": kernel.bind,
            "read_parent": kernel.parent,
        }.items():
            monkeypatch.setattr(cpu_move, name, stand_in)
        return kernel

    return start


def changes() -> list[CpusetChange]:
    return [
        CpusetChange(
            cgroup=Cgroup(path=path, version=1, mount=Path("/")), cpus=relative(cpus, OLD, NEW)
        )
        for path, cpus in TREE.items()
    ]


def move(kernel: Kernel, memory: Callable[[], None] = lambda: None) -> CpuMoveResult:
    def bind(_pid: int, had: CpuSet) -> CpuSet:
        return relative(had, OLD, NEW)

    return move_processors(changes(), kernel.pids, bind, memory)


MOVED = {10: CpuSet({2}), 11: CpuSet({2, 3}), 20: CpuSet({3}), 30: CpuSet({2, 3})}


@pytest.mark.parametrize("keeps", [False, True])
def test_the_whole_tree_moves(boot: Callable[..., Kernel], keeps: bool) -> None:
    kernel = boot(keeps=keeps)
    seen = []
    done = move(kernel, lambda: seen.append((dict(kernel.cpus), dict(kernel.bound))))
    assert done == CpuMoveResult()
    assert kernel.cpus == {JOB: NEW, STEP: NEW, TASK: CpuSet({3})}
    assert kernel.bound == MOVED
    # While the memory moves, the tasks run on the new processors and the cpusets have both.
    assert seen == [({JOB: OLD | NEW, STEP: OLD | NEW, TASK: CpuSet({1, 3})}, MOVED)]


@pytest.mark.parametrize("keeps", [False, True])
def test_a_failure_at_any_call_restores_everything(
    boot: Callable[..., Kernel], keeps: bool
) -> None:
    kernel = boot(keeps=keeps)
    move(kernel)
    calls = kernel.calls
    assert calls > 10
    for fails_at in range(1, calls + 1):
        kernel = boot(keeps=keeps, fails_at=fails_at)
        before = dict(kernel.bound)
        done = move(kernel)
        # Narrowing is retried, so one refusal there does not stop the move.
        if done.done:
            assert kernel.bound == MOVED
            continue
        assert done.failure == "the kernel refuses"
        assert (kernel.cpus, kernel.bound, done.not_restored) == (TREE, before, ())


def test_memory_that_cannot_move_stops_the_move(boot: Callable[..., Kernel]) -> None:
    kernel = boot()
    before = dict(kernel.bound)

    def no_room() -> None:
        raise RefusedError("node 2 has no room")

    done = move(kernel, no_room)
    assert done.failure == "node 2 has no room"
    assert (kernel.cpus, kernel.bound) == (TREE, before)


def test_an_interruption_restores_everything_and_is_raised(boot: Callable[..., Kernel]) -> None:
    kernel = boot()
    before = dict(kernel.bound)

    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        move(kernel, interrupted)
    assert (kernel.cpus, kernel.bound) == (TREE, before)


@pytest.mark.parametrize("passes", range(3))
def test_a_check_that_fails_restores_everything(boot: Callable[..., Kernel], passes: int) -> None:
    """Before the memory moves, before the cpusets are narrowed, and after it."""
    kernel = boot()
    before, seen = dict(kernel.bound), list[CpuSet]()

    def check() -> None:
        seen.append(kernel.cpus[JOB])
        if len(seen) > passes:
            raise RefusedError("another step")

    done = move_processors(
        changes(), kernel.pids, lambda _, had: relative(had, OLD, NEW), lambda: None, check=check
    )
    assert seen == [OLD | NEW, OLD | NEW, NEW][: passes + 1]
    assert (done.failure, kernel.cpus, kernel.bound) == ("another step", TREE, before)


def test_threads_that_appear_or_end_during_the_move(boot: Callable[..., Kernel]) -> None:
    kernel = boot()

    def fork_and_end() -> None:
        if kernel.calls == 5:
            kernel.fork(40, 10)
            del kernel.threads[30], kernel.bound[30]

    kernel.after_each = fork_and_end
    done = move(kernel)
    assert done.done
    # Its parent was bound to processor 0, so the child goes to that processor's successor.
    assert kernel.bound == {key: value for key, value in MOVED.items() if key != 30} | {
        40: CpuSet({2})
    }


@pytest.mark.parametrize("parents", [{}, {40: 1}])
def test_a_new_process_whose_parent_is_unknown_is_not_bound(
    boot: Callable[..., Kernel], parents: dict[int, int]
) -> None:
    kernel = boot(keeps=True)

    def fork() -> None:
        if kernel.calls == 5:
            kernel.fork(40, 10)
            kernel.parents = parents
            kernel.bound[40] = OLD | NEW

    kernel.after_each = fork
    assert move(kernel).done
    assert kernel.bound == MOVED | {40: NEW}, "by its cpuset alone"


def test_cpusets_that_cannot_be_read_stay_as_they_are(boot: Callable[..., Kernel]) -> None:
    kernel = boot()
    before = dict(kernel.bound)

    def gone() -> list[int]:
        raise RefusedError("no cgroup")

    done = move_processors(changes(), gone, lambda _, had: relative(had, OLD, NEW), lambda: None)
    assert (done.failure, kernel.calls) == ("no cgroup", 0)
    assert (kernel.cpus, kernel.bound) == (TREE, before)


def test_another_process_writes_once(boot: Callable[..., Kernel]) -> None:
    kernel = boot()
    again = [True]

    def interfere() -> None:
        if kernel.cpus[JOB] == NEW and again:
            again.clear()
            kernel.cpus = dict.fromkeys(TREE, OLD | NEW)

    kernel.after_each = interfere
    assert move(kernel).done
    assert kernel.cpus[JOB] == NEW
    assert kernel.bound == MOVED


def test_another_process_writes_the_old_ones_until_the_last_try(
    boot: Callable[..., Kernel],
) -> None:
    """As Slurm does when a step starts: they must be widened again before they can be narrowed."""
    kernel = boot()
    left = [None] * (cpu_move._TRIES - 1)

    def interfere() -> None:
        if kernel.cpus[JOB] == NEW and left:
            left.pop()
            kernel.cpus = dict(TREE)
            kernel.bound = {tid: TREE[path] for tid, (_, path) in kernel.threads.items()}

    kernel.after_each = interfere
    assert move(kernel).done
    assert kernel.cpus == {JOB: NEW, STEP: NEW, TASK: CpuSet({3})}
    assert (kernel.bound, left) == (MOVED, [])


def test_another_process_keeps_writing(boot: Callable[..., Kernel]) -> None:
    kernel = boot()
    before = dict(kernel.bound)
    narrowed = [0]

    def interfere() -> None:
        if kernel.cpus[JOB] == NEW:
            narrowed[0] += 1
            kernel.cpus = dict.fromkeys(TREE, OLD | NEW)

    kernel.after_each = interfere
    done = move(kernel)
    assert done.failure
    assert "do not stay" in done.failure
    assert narrowed[0] >= 3
    assert (kernel.cpus, kernel.bound) == (TREE, before)


def test_errors_of_the_restoration_are_reported(boot: Callable[..., Kernel]) -> None:
    kernel = boot()

    def broken() -> None:
        kernel.after_each = stay_broken
        raise RefusedError("no")

    def stay_broken() -> None:
        raise RefusedError("read-only")

    done = move(kernel, broken)
    assert done.failure == "no"
    assert "read-only" in done.not_restored


def test_a_cpuset_that_other_jobs_use_stays_wide(boot: Callable[..., Kernel]) -> None:
    kernel = boot()
    first, *rest = changes()
    user = CpusetChange(cgroup=first.cgroup, cpus=NEW, stays_wide=True)
    done = move_processors(
        [user, *rest], kernel.pids, lambda _, had: relative(had, OLD, NEW), print
    )
    assert done.done
    assert kernel.cpus[JOB] == OLD | NEW


@pytest.fixture
def freezable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the directory of a cgroup that can be frozen, the job's."""
    (tmp_path / "cgroup.freeze").write_text("0\n")
    (tmp_path / "cgroup.events").write_text("populated 1\nfrozen 1\n")
    found = {str(JOB): [tmp_path]}
    monkeypatch.setattr(cpu_move, "cgroups_to_freeze", lambda _, path, __: found.get(path, []))
    return tmp_path


@pytest.mark.parametrize("fails", [False, True])
def test_the_job_stands_still_while_its_threads_are_not_bound(
    boot: Callable[..., Kernel], freezable: Path, fails: bool
) -> None:
    kernel = boot()
    file = freezable / "cgroup.freeze"
    seen = {"change": set[str](), "memory": set[str]()}

    def memory() -> None:
        seen["memory"] = {file.read_text()}
        if fails:
            raise RefusedError("no room")

    kernel.after_each = lambda: seen["change"].add(file.read_text())
    assert move(kernel, memory).done is not fails
    assert seen == {"change": {"1"}, "memory": {"0"}}
    assert file.read_text() == "0"


@pytest.mark.usefixtures("freezable")
def test_all_threads_are_bound_when_the_job_goes_on(
    boot: Callable[..., Kernel], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if the kernel refuses to narrow a cpuset, which is tried again."""
    kernel = boot()
    freeze, seen, refused = cpu_move.freeze_cgroups, list[object](), list[CpuSet]()

    @contextmanager
    def freeze_and_look(*arguments: Any, **options: Any) -> Iterator[None]:
        with freeze(*arguments, **options):
            try:
                yield
            finally:
                seen.append(dict(kernel.bound))

    def write(cgroup: Cgroup, cpus: CpuSet) -> None:
        if cgroup.path == JOB and cpus == NEW and not refused:
            refused.append(cpus)
            raise RefusedError("busy")
        kernel.write(cgroup, cpus)

    monkeypatch.setattr(cpu_move, "freeze_cgroups", freeze_and_look)
    monkeypatch.setattr(cpu_move, "write_cpus", write)
    assert move(kernel).done
    assert (seen, refused) == ([MOVED] * 3, [NEW])


def test_an_interruption_before_the_job_stands_still_restores_everything(
    boot: Callable[..., Kernel], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C, and again while it is waited for the tasks to stop."""
    kernel = boot()
    before = dict(kernel.bound)

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    def no_room() -> None:
        monkeypatch.setattr(cpu_move, "freeze_cgroups", interrupted)
        raise RefusedError("no room")

    with pytest.raises(KeyboardInterrupt):
        move(kernel, no_room)
    assert (kernel.cpus, kernel.bound) == (TREE, before)


def test_what_is_frozen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The top of each tree of the job; nothing that others use, and never this process."""

    def found(_: object, path: str, __: Path) -> list[Path]:
        if path == "/v1":
            raise RefusedError("of version 1")
        return [Path(path)]

    monkeypatch.setattr(cpu_move, "cgroups_to_freeze", found)
    paths = {"/user": True, "/user/job": False, "/user/job/step": False, "/other": False, "/v1": 0}
    its = [
        CpusetChange(
            cgroup=Cgroup(path=Path(path), version=2, mount=Path("/")),
            cpus=NEW,
            stays_wide=bool(wide),
        )
        for path, wide in paths.items()
    ]
    assert cpu_move._to_freeze(its, lambda: [1], Path("/")) == [Path("/user/job"), Path("/other")]
    assert cpu_move._to_freeze(its, lambda: [1, os.getpid()], Path("/")) == []


def test_a_job_that_cannot_be_frozen_moves_all_the_same(
    boot: Callable[..., Kernel], freezable: Path
) -> None:
    kernel = boot()
    (freezable / "cgroup.freeze").unlink()
    assert move(kernel).done
    assert kernel.bound == MOVED
