"""A process that handles PBS's events, killed before each of its writes in turn, on a made-up host.

The next process makes the job whole: the event is handled again, or only exechost_periodic comes.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from schedhook.agent.parking import ParkedTask
from schedhook.journal.database import Database
from schedhook.journal.journal import Journal
from schedhook.roles.request import Request
from schedhook.values.actions import AnyNode, OnSharedProcessors
from schedhook.values.model import Report
from schedhook.values.sets import NodeSet
from schedhook_plugins.schedulers.pbs.notes import Fence
from tests.unit.schedhook_plugins.schedulers.pbs.host import (
    JOB,
    MIB,
    Host,
    exec_vnode,
    put_parked,
)

KILLED = 9


class Kept(dict[str, dict[int, int]]):
    """Residency by job, in a file: as in a kernel, it outlives the process that moves memory."""

    def __init__(self, path: Path) -> None:
        told = json.loads(path.read_text()) if path.exists() else {}
        super().__init__(
            {job: {int(n): size for n, size in its.items()} for job, its in told.items()}
        )
        self._path = path

    def __setitem__(self, job: str, its: dict[int, int]) -> None:
        super().__setitem__(job, its)
        new = self._path.with_suffix(".new")
        new.write_text(json.dumps(self))
        new.replace(self._path)


class Lasting(Host):
    """Memory moves by halves, and stays where it is when the mover is killed."""

    @property
    def residency(self) -> Kept:  # type: ignore[override]
        return Kept(self.root / "residency.json")

    @residency.setter
    def residency(self, _: object) -> None:
        """The base class begins with none."""

    def open_journal(self) -> Journal:
        return Journal.open(self.root / "journal.db")

    def reopen(self) -> None:
        """Open the journal anew, in a child: SQLite's connections do not survive a fork."""
        self.journal = self.open_journal()
        self.pbs = self.open_adapter()

    def relocate(self, request: Request) -> Report:
        if not request.dry_run:
            assert request.job
            was = self.residency[request.job]
            its = dict(was)
            for old, new in self.map_of(request).moves.items():
                half = was.get(old, 0) // 2
                its[old] = its.get(old, 0) - half
                its[new] = its.get(new, 0) + half
            self.residency[request.job] = its
            self.residency[request.job] = was  # the base class moves all of it at once
        return super().relocate(request)


def killed_before(write: int, host: Lasting, work: Callable[[], object]) -> bool:
    """Return whether `work`, in a child, was killed before its `write`-th write.

    Writes are transactions of the journal, and files below the host's root that are opened for
    writing, renamed or removed.
    """
    child = os.fork()
    if child:
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert status in (0, KILLED)
        return status == KILLED
    count = 0
    status = 1

    def count_write() -> None:
        nonlocal count
        count += 1
        if count == write:
            os._exit(KILLED)

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        writes = event in ("os.rename", "os.remove") or (
            event == "open" and isinstance(arguments[2], int) and arguments[2] & 3 != os.O_RDONLY
        )
        path = str(arguments[0])
        if writes and path.startswith(str(host.root)) and "journal.db" not in path:
            count_write()

    def begin(database: Database) -> None:
        count_write()
        begin_transaction(database)

    begin_transaction = Database._begin
    try:
        host.reopen()
        Database._begin = begin  # type: ignore[method-assign]
        sys.addaudithook(watch)
        work()
        status = 0
    finally:
        os._exit(status)


def resize(host: Host) -> None:
    host.job(JOB, "0-3", "0-1", n0=64, n1=32)
    host.event("begin", vnodes="0-1")
    host.place(JOB, "4-7", "2-3")


def to_park(host: Host) -> None:
    host.actions = {"park": AnyNode.ANY}
    host.job(JOB, "0-1", "0", n0=64)
    host.event("begin", vnodes="0")
    host.stop(JOB)


def parked(host: Host) -> None:
    to_park(host)
    host.event("postsuspend")


def shared(host: Host) -> None:
    host.job(JOB, "0-1", "0", n0=64)
    host.event("begin", about=WHOLE_HOST)
    host.job("13.n1", "0-1", "0")
    host.job("14.n1", "2", "1")
    host.stop(JOB)
    host.event("postsuspend")
    host.actions = {"on_shared_processors": OnSharedProcessors.REPLACE}


def shared_and_parked(host: Host) -> None:
    shared(host)
    put_parked(host, {"job": ParkedTask(home=NodeSet({0}), nodes={0: 3})}, widened=True)
    host.notes.set_fence(JOB, Fence(before="0", wide="0,3"))
    host.residency[JOB] = {3: 64 * MIB}
    host.place(JOB, "0-1", "0,3")


def astray(host: Host) -> None:
    host.job(JOB, "0-1", "0", n0=8, n1=64)
    host.event("begin", vnodes="0")


MOVED = {2: 64 * MIB, 3: 32 * MIB}
HOME, THERE = {0: 64 * MIB}, {2: 64 * MIB}

CASES = {
    "resize": (resize, "resize", [(("4-7", "2-3"), MOVED)]),
    "back from where it was parked": (parked, "preresume", [(("0-1", "0"), HOME)]),
    "another place": (shared, "preresume", [(("4-5", "2"), THERE), (("0-1", "0"), HOME)]),
    "another place, parked": (
        shared_and_parked,
        "preresume",
        [(("4-5", "2"), THERE), (("0-1", "0"), HOME)],
    ),
    "strays": (astray, "periodic", [(("0-1", "0"), {0: 72 * MIB})]),
}
"""What there is, what happens, and how it may end: (cpuset.cpus, cpuset.mems) and the memory."""


WHOLE_HOST = {"exec_vnode": "(n1:ncpus=2)"}


def told(host: Host) -> dict[str, str]:
    """Return what PBS tells of the job's vnodes."""
    if host.notes.told(JOB).exec_vnode == WHOLE_HOST["exec_vnode"]:
        return WHOLE_HOST
    return {"exec_vnode": exec_vnode("2-3" if host.cpuset()[0] == "4-7" else "0")}


@pytest.mark.parametrize("again", [True, False], ids=["again", "periodic"])
@pytest.mark.parametrize("name", CASES)
def test_a_killed_worker_is_made_up_for(tmp_path: Path, name: str, again: bool) -> None:
    begin, point, ends = CASES[name]
    write = 0
    while True:
        write += 1
        host = Lasting(tmp_path / str(write))
        begin(host)
        if not killed_before(write, host, lambda h=host: h.event(point, about=told(h))):
            break
        if again:
            host.event(point, about=told(host))
        else:
            host.event("periodic", about=told(host))
        found = (host.cpuset(), {n: size for n, size in host.residency[JOB].items() if size})
        if not again and host.pbs.suspended(JOB):
            assert write <= 2, "it was killed before it had recorded that the job goes on"
            continue
        assert found in ends, f"killed before write {write}"
        assert (host.notes.replacing(JOB), host.notes.fence(JOB)) == (None, None)
        assert host.parked() is None
        known = host.journal.placements.known_tasks("pbs", JOB)["job"]
        assert not known.visited
    print(f"{name}: killed before each of {write - 1} writes")
    assert write > 3


def test_a_killed_parking_can_be_taken_back(tmp_path: Path) -> None:
    write = 0
    while True:
        write += 1
        host = Lasting(tmp_path / str(write))
        to_park(host)
        if not killed_before(write, host, lambda h=host: h.event("postsuspend")):
            break
        host.event("preresume", vnodes="0")
        assert host.cpuset() == ("0-1", "0")
        assert host.residency[JOB].get(0) == 64 * MIB
    print(f"killed before each of {write - 1} writes")
    assert write > 3


@pytest.mark.parametrize(("cpus", "mems"), [("2-3", "1"), ("2-5", "1-2")])
def test_a_job_that_goes_elsewhere_after_a_kill(tmp_path: Path, cpus: str, mems: str) -> None:
    """Its memory may be where it was to go first, too."""
    write = 0
    while True:
        write += 1
        host = Lasting(tmp_path / str(write))
        resize(host)
        if not killed_before(write, host, lambda h=host: h.event("resize", vnodes="2-3")):
            break
        host.place(JOB, cpus, mems)
        host.event("resize", vnodes=mems)
        lies = NodeSet(node for node, size in host.residency[JOB].items() if size)
        assert lies <= NodeSet.parse(mems), f"killed before write {write}"
    assert write > 3


def test_what_may_have_arrived_is_not_moved_on(tmp_path: Path) -> None:
    """{0,1} → {1,2}: what comes from node 0 belongs on node 1."""
    write = 0
    while True:
        write += 1
        host = Lasting(tmp_path / str(write))
        host.job(JOB, "0-3", "0-1", n0=64, n1=32)
        host.event("begin", vnodes="0-1")
        host.place(JOB, "2-5", "1-2")
        if not killed_before(write, host, lambda h=host: h.event("resize", vnodes="1-2")):
            break
        host.event("resize", vnodes="1-2")
        its = host.residency[JOB]
        assert not its.get(0)
        assert its.get(2, 0) <= 32 * MIB, f"killed before write {write}"
    assert write > 3
