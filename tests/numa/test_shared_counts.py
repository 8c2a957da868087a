"""Each physical page counts once, however often processes map it.

The independent reading is the kernel's: what it charges to the job's cgroup on each node
(memory.numa_stat), where a page counts once, and for pools of huge pages their free pages.
"""

from __future__ import annotations

import mmap
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from schedhook.backends.native.backend import NativeBackend
from schedhook.testing.processes import huge_page_pool
from tests.balancing import setting
from tests.numa.dirt import taken
from tests.numa.jobs import (
    MIB,
    cgroup,
    drop_caches,
    khugepaged_at_rest,
    mounted_disk,
    numa_stat,
    until,
)
from tests.numa.programs import program

pytestmark = pytest.mark.nodes(4)

STRATEGIES = ["move-pages", "migrate-process"]
OLD, NEW, BINARY = 0, 2, 1
CLOSE = 0.01
"""The share by which our numbers may differ from the kernel's."""


class Family:
    """A running family.c in a cgroup."""

    def __init__(
        self, path: Path, kind: str, mib: int, children: int, file: Path | None = None
    ) -> None:
        words = [program("family", BINARY), kind, mib, OLD, children, *([file] if file else [])]
        join = f'echo $$ > {path}/cgroup.procs && exec "$@"'
        self.process = subprocess.Popen(
            ["/bin/sh", "-c", join, "sh", *map(str, words)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        assert self._line().startswith("ready")

    def say(self, line: str) -> None:
        """Send a command, which must be answered by `ok`."""
        assert self.process.stdin
        self.process.stdin.write(line + "\n")
        assert self._line() == "ok"

    def _line(self) -> str:
        assert self.process.stdout
        line = self.process.stdout.readline()
        assert line, f"the family ended with {self.process.wait()}"
        return line.strip()

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream:
                stream.close()


@contextmanager
def family(path: Path, *arguments: Any) -> Iterator[Family]:
    its = Family(path, *arguments)
    try:
        yield its
    finally:
        its.stop()


def charged(path: Path, *kinds: str) -> dict[int, int]:
    """Return what the kernel charges to the cgroup, in bytes by node.

    `kinds` are rows of memory.numa_stat; without them, all memory that processes can map.
    """
    return numa_stat(path, *(kinds or ("anon", "file")))


def steady(read: Callable[[], dict[int, int]]) -> dict[int, int]:
    """Return what is read twice in a row: the kernel's sums can be two seconds old."""
    last, found = None, read()
    while found != last:
        time.sleep(2.5)
        last, found = found, read()
    return found


def agree(ours: int, kernels: int, of: int) -> bool:
    """Return whether our number differs from the kernel's by one in a hundred of `of` at most."""
    return abs(ours - kernels) <= CLOSE * of


def moves_once(
    run: Any, path: Path, families: Sequence[Family], strategy: str, *, parted: bool = False
) -> dict[str, Any]:
    """Relocate the cgroup; assert that plan, report and show agree with the kernel's numbers.

    `parted`: some huge pages are mapped whole by one process and in parts by another one. When it
    has moved one, Linux 6.1 charges these parts twice, page_add_anon_rmap() in mm/rmap.c; so the
    charge on the new node says nothing, but that on the old one does.
    """
    before = charged(path)
    there = before[OLD]
    _, shown = run("show", "--cgroup", path)
    assert agree(shown["residency"][str(OLD)], there, there), (shown["residency"], before)
    words = ("--cgroup", path, "--from", OLD, "--to", NEW, "--strategy", strategy)
    _, plan = run("plan", *words)
    assert agree(plan["bytes_planned"], there, there), (plan["bytes_planned"], before)
    assert plan["bytes_kept"] == {}
    status, report = run("relocate", *words)
    after = charged(path)
    assert (status, report["outcome"]) == (0, "complete"), report
    assert agree(report["bytes_moved"], there, there), (report["bytes_moved"], before)
    arrived = there if parted else after[NEW] - before.get(NEW, 0)
    assert agree(report["bytes_moved"], arrived, there), after
    assert agree(report["bytes_left"], after.get(OLD, 0), there), after
    _, shown = run("show", "--cgroup", path)
    there_now = shown["residency"][str(NEW)]
    assert agree(there_now, before.get(NEW, 0) + arrived, there), (shown["residency"], after)
    for its in families:
        its.say("check")
    return report  # type: ignore[no-any-return]


@pytest.mark.short(7)
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize(
    ("kind", "mib", "children", "broken"),
    [
        ("anon", 200, 1, 0),
        ("anon", 200, 5, 0),
        ("anon", 64, 32, 0),
        ("anon", 60, 5, 50),
        ("anon", 16, 32, 50),
        ("thp", 100, 5, 0),
        ("thp", 40, 5, 40),  # khugepaged makes huge pages of areas of which less is shared
        ("views", 100, 0, 0),
        ("views", 60, 3, 0),
        ("memfd", 60, 15, 0),
        ("sysv", 60, 15, 0),
    ],
)
def test_a_family(run: Any, kind: str, mib: int, children: int, broken: int, strategy: str) -> None:
    drop_caches()
    with cgroup("family") as path, family(path, kind, mib, children) as its:
        if broken:
            its.say(f"break {broken}")
        copies = mib * children * broken // 100 if kind in ("anon", "thp") else 0
        parted = kind == "thp" and broken > 0
        report = moves_once(run, path, [its], strategy, parted=parted)
        stacks = (children + 1) * 2 * (mmap.PAGESIZE - 4096)  # `agree` allows for those of 4 KiB
        whole = (mib + copies) * MIB + stacks
        assert agree(report["bytes_moved"], whole, whole + 10 * MIB)


@pytest.mark.short(2)
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize(("kind", "broken"), [("file", 0), ("private", 30), ("copied", 30)])
def test_a_family_with_a_file(
    run: Any, tmp_path: Path, kind: str, broken: int, strategy: str
) -> None:
    """Copies of a file's pages that fork shares are the job's own, as relocation sections are."""
    drop_caches()
    with (
        # On Linux 7.3 khugepaged collapses files' pages and unmaps them until their next use.
        setting("/sys/kernel/mm/transparent_hugepage/enabled", "never"),
        mounted_disk(tmp_path, 64) as disk,
        cgroup("family") as path,
        family(path, kind, 32, 5, disk / "file") as its,
    ):
        if broken:
            its.say(f"break {broken}")
        subprocess.run(["sync"], check=True)
        drop_caches()  # pages of the file that no process maps any more
        moves_once(run, path, [its], strategy)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_copies_of_a_file_that_others_map_too_move_and_its_pages_stay(
    run: Any, tmp_path: Path, strategy: str
) -> None:
    """As of a library's data: a process that does not belong to the job maps it, too."""
    drop_caches()
    with (
        setting("/sys/kernel/mm/transparent_hugepage/enabled", "never"),  # khugepaged, as above
        mounted_disk(tmp_path, 64) as disk,
        cgroup("other") as theirs,
        cgroup("family") as path,
        family(theirs, "private", 32, 0, disk / "file") as other,
        family(path, "private", 32, 5, disk / "file") as its,
    ):
        its.say("break 50")
        subprocess.run(["sync"], check=True)
        before = charged(path)
        words = ("--cgroup", path, "--from", OLD, "--to", NEW, "--strategy", strategy)
        status, report = run("relocate", *words)
        after = charged(path)
        assert (status, report["outcome"]) == (0, "complete"), report
        assert agree(report["bytes_moved"], 5 * 16 * MIB, 80 * MIB), report
        assert agree(report["bytes_kept"]["shared-file"], 32 * MIB, 32 * MIB), report
        assert agree(report["bytes_moved"], before[OLD] - after.get(OLD, 0), before[OLD])
        for each in (its, other):
            each.say("check")


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_an_interpreter_that_forks(run: Any, strategy: str) -> None:
    """Its libraries' relocation sections and data are its own, and shared since fork(2).

    khugepaged would give each process a huge page of its own for memory that they share.
    """
    drop_caches()
    script = "import os, time\nb = b'x' * (20 << 20)\n" + "os.fork() or time.sleep(600)\n" * 4
    join = f'echo $$ > {{}}/cgroup.procs && exec numactl --membind={OLD} "$@"'
    with khugepaged_at_rest(), cgroup("family") as path:
        words = [sys.executable, "-I", "-S", "-c", script + "time.sleep(600)"]
        parent = subprocess.Popen(["/bin/sh", "-c", join.format(path), "sh", *words])
        until(lambda: len((path / "cgroup.procs").read_text().split()) == 5)
        before = steady(lambda: charged(path, "anon"))[OLD]
        words = ["--cgroup", path, "--from", OLD, "--to", NEW, "--strategy", strategy]
        _, report = run("relocate", *words)
        moved = charged(path, "anon")[NEW]
        parent.kill()
        parent.wait()
        assert report["outcome"] == "complete"
        assert agree(moved, before, before)
        # Of its libraries, some pages are mapped by no other process.
        assert 0 <= report["bytes_moved"] - moved < 2 * MIB, (report, moved)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_what_fits_once_is_not_refused(run: Any, strategy: str) -> None:
    """150 MiB that a process maps three times, and about 330 MiB free."""
    drop_caches()
    with (
        cgroup("family") as path,
        family(path, "views", 150, 0) as its,
        taken(NEW, leave=330),
    ):
        moves_once(run, path, [its], strategy)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_without_frames_objects_are_exact_and_the_rest_is_an_upper_bound(
    run: Any, strategy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for a caller without CAP_SYS_ADMIN."""
    monkeypatch.setattr(NativeBackend, "page_set", lambda _: None)
    drop_caches()
    with cgroup("family") as path:
        words = ("--cgroup", path, "--from", OLD, "--to", NEW, "--strategy", strategy)
        with family(path, "views", 30, 3):
            _, plan = run("plan", *words)
            assert agree(plan["bytes_planned"], charged(path)[OLD], 60 * MIB)
        with family(path, "anon", 30, 3) as its:
            _, shown = run("show", "--cgroup", path)
            assert not shown["exact"]
            status, report = run("relocate", *words)
            assert (status, report["outcome"]) == (0, "complete")
            assert any("upper bounds" in note for note in report["notes"])
            assert charged(path)[NEW] >= 30 * MIB
            its.say("check")


@pytest.fixture
def huge_pools() -> Iterator[Path]:
    """Give nodes 0 and 2 pools of 2 MiB pages; return a pattern of their free pages."""
    drop_caches()
    Path("/proc/sys/vm/compact_memory").write_text("1")
    with huge_page_pool(OLD, 2 * MIB, 60), huge_page_pool(NEW, 2 * MIB, 60):
        yield Path("/sys/devices/system/node/node{}/hugepages/hugepages-2048kB/{}_hugepages")


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_family_with_huge_pages(run: Any, huge_pools: Path, strategy: str) -> None:
    """20 pages that the parent has, of which five children have half copied."""
    if mmap.PAGESIZE != 4096:
        pytest.skip("children of fork(2) misread pages of 2 MiB here, where nothing has moved")

    def used(node: int) -> int:
        return 60 - int(Path(str(huge_pools).format(node, "free")).read_text())

    with cgroup("family") as path, family(path, "huge", 20, 4) as its:
        its.say("break 50")
        there = used(OLD) << 21
        assert there == 5 * 20 * MIB
        words = ("--cgroup", path, "--from", OLD, "--to", NEW, "--strategy", strategy)
        _, shown = run("show", "--cgroup", path)
        assert shown["kinds"]["huge"] == {str(OLD): there}
        status, report = run("relocate", *words, "--kinds", "huge")
        assert (status, report["bytes_moved"], report["bytes_left"]) == (0, there, 0)
        assert (used(OLD), used(NEW) << 21) == (0, there)
        its.say("check")


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_families_of_all_kinds_together(run: Any, tmp_path: Path, strategy: str) -> None:
    drop_caches()
    with (
        mounted_disk(tmp_path, 64) as disk,
        cgroup("family") as path,
        family(path, "anon", 40, 3) as anon,
        family(path, "thp", 20, 3) as thp,
        family(path, "views", 30, 2) as views,
        family(path, "sysv", 30, 3) as sysv,
        family(path, "copied", 16, 3, disk / "file") as copied,
    ):
        anon.say("break 40")
        thp.say("break 10")
        subprocess.run(["sync"], check=True)
        drop_caches()
        families = [anon, thp, views, sysv, copied]
        moves_once(run, path, families, strategy, parted=True)
