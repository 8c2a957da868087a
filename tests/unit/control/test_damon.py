"""What DAMON is told, how its answer is read, and that it ends. The kernel's files are made up."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from schedhook.control import damon
from schedhook.control.damon import NoDamonError, count_accesses
from schedhook.testing.hosts import write_file

DIRECTORY = "sys/kernel/mm/damon/admin/kdamonds"
CONTEXT = f"{DIRECTORY}/0/contexts/0"
REGIONS = f"{CONTEXT}/schemes/0/tried_regions"
MIB = 1 << 20
Found = Sequence[tuple[int, int, int]]


def write_damon(root: Path, found: Found, operations: str = "vaddr\nfvaddr\npaddr\n") -> None:
    """Write the files of DAMON with one monitor, two processes of two ranges, and this result."""
    names = [f"{DIRECTORY}/0/{name}" for name in ("state", "contexts/nr_contexts")]
    names += [f"{CONTEXT}/operations", f"{CONTEXT}/schemes/nr_schemes"]
    attributes = f"{CONTEXT}/monitoring_attrs"
    names += [f"{attributes}/intervals/{name}_us" for name in ("sample", "aggr", "update")]
    names += [f"{attributes}/nr_regions/{name}" for name in ("min", "max")]
    names += [f"{CONTEXT}/targets/nr_targets", f"{CONTEXT}/schemes/0/action"]
    for name in ("sz", "nr_accesses", "age"):
        names += [f"{CONTEXT}/schemes/0/access_pattern/{name}/{end}" for end in ("min", "max")]
    for target in (f"{CONTEXT}/targets/{number}" for number in range(2)):
        names += [f"{target}/pid_target", f"{target}/regions/nr_regions"]
        names += [f"{target}/regions/{n}/{end}" for n in range(2) for end in ("start", "end")]
    for name in names:
        write_file(root, name, "0\n")
    write_file(root, f"{DIRECTORY}/nr_kdamonds", "0\n")
    write_file(root, f"{CONTEXT}/avail_operations", operations)
    write_file(root, f"{REGIONS}/total_bytes", "0\n")
    for number, values in enumerate(found):
        for name, value in zip(("start", "end", "nr_accesses"), values, strict=True):
            write_file(root, f"{REGIONS}/{number}/{name}", f"{value}\n")


def read(root: Path, name: str) -> str:
    return (root / CONTEXT / name).read_text().strip()


def test_regions_belong_to_the_processes_in_their_order(tmp_path: Path) -> None:
    """Both processes have the same addresses; one of the ranges was split, two were joined."""
    found = [(0, MIB, 25), (MIB, 2 * MIB, 3), (4 * MIB, 5 * MIB, 0), (0, 2 * MIB, 7)]
    write_damon(tmp_path, found)
    ranges = {70: [(0, 2 * MIB), (4 * MIB, 5 * MIB)], 60: [(0, MIB), (MIB, 2 * MIB)]}
    # In each pass the kernel's files say the same: so many of 25 intervals, of 50, and of 50.
    assert count_accesses(ranges, tmp_path) == {
        70: [(0, 2 * MIB, 1000 + 500 + 500), (4 * MIB, 5 * MIB, 0)],
        60: [(0, MIB, 280 + 140 + 140), (MIB, 2 * MIB, 280 + 140 + 140)],
    }
    assert read(tmp_path, "operations") == "fvaddr"
    assert read(tmp_path, "monitoring_attrs/intervals/sample_us") == "100"
    assert read(tmp_path, "monitoring_attrs/intervals/aggr_us") == "5000"
    assert read(tmp_path, "schemes/0/action") == "stat"
    assert [read(tmp_path, f"targets/{n}/pid_target") for n in range(2)] == ["70", "60"]
    assert read(tmp_path, "targets/0/regions/1/start") == str(4 * MIB)


@pytest.mark.parametrize(
    ("found", "problem"),
    [
        ([(0, MIB, 1)], ""),
        ([(0, MIB // 2, 1)], "DAMON has lost a process"),
        ([], "DAMON has found nothing in time"),
    ],
    ids=["found", "lost", "late"],
)
def test_damon_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, found: Found, problem: str
) -> None:
    monkeypatch.setattr(damon, "_PATIENCE", 0.1)
    write_damon(tmp_path, found)
    with pytest.raises(NoDamonError, match=problem) if problem else nullcontext():
        count_accesses({70: [(0, MIB)]}, tmp_path)
    assert (tmp_path / DIRECTORY / "nr_kdamonds").read_text() == "0\n"
    assert (tmp_path / DIRECTORY / "0/state").read_text() == "off\n"


def test_why_damon_cannot_be_used(tmp_path: Path) -> None:
    def refused() -> str:
        with pytest.raises(NoDamonError) as error:
            count_accesses({70: [(0, MIB)]}, tmp_path)
        return str(error.value)

    assert refused() == "this kernel has no DAMON"
    write_damon(tmp_path, [(0, MIB, 1)], operations="paddr\n")
    assert refused() == "this kernel's DAMON cannot monitor processes"
    number = tmp_path / DIRECTORY / "nr_kdamonds"
    assert number.read_text() == "0\n"
    number.write_text("1\n")
    assert refused() == "another program uses DAMON"
    assert number.read_text() == "1\n"
    number.write_text("0\n")
    with number.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert refused() == "another program uses DAMON"
    write_damon(tmp_path, [(0, MIB, 1)])
    (tmp_path / CONTEXT / "schemes/0/action").unlink()
    (tmp_path / CONTEXT / "schemes/0/action").mkdir()
    assert refused() == "DAMON: Is a directory"
    assert number.read_text() == "0\n"


def test_an_older_damon_does_not_tell_what_it_finds(tmp_path: Path) -> None:
    write_damon(tmp_path, [])
    (tmp_path / REGIONS / "total_bytes").unlink()
    (tmp_path / REGIONS).rmdir()
    with pytest.raises(NoDamonError, match="does not tell"):
        count_accesses({70: [(0, MIB)]}, tmp_path)


@pytest.mark.parametrize(
    ("cpuinfo", "expected"),
    [("flags\t: fpu sse2", True), ("flags\t: fpu pcid sse2", False), ("Features\t: fp", False)],
    ids=["x86", "PCID", "Arm"],
)
def test_processes_are_interrupted_where_that_empties_the_tlb(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cpuinfo: str, expected: bool
) -> None:
    write_damon(tmp_path, [(0, MIB, 1)])
    write_file(tmp_path, "proc/cpuinfo", f"processor\t: 0\n{cpuinfo}\n")
    before, visited = os.sched_getaffinity(0), set[int]()
    monkeypatch.setattr(os, "sched_setaffinity", lambda _pid, cpus: visited.update(cpus))
    count_accesses({os.getpid(): [(0, MIB)]}, tmp_path)
    assert bool(visited & before) is expected
    assert not [each for each in threading.enumerate() if each.name == "schedhook-switch"]


def test_a_busy_damon_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel refuses a command while it carries out another one."""
    write_damon(tmp_path, [(0, MIB, 1)])
    write, refusals = damon._write, dict.fromkeys(("on", "off"), 2)

    def busy(directory: Path, name: str, value: int | str, *more: Any) -> None:
        if refusals.get(str(value), 0):
            refusals[str(value)] -= 1
            raise OSError(errno.EBUSY, "Device or resource busy")
        write(directory, name, value, *more)

    monkeypatch.setattr(damon, "_write", busy)
    count_accesses({70: [(0, MIB)]}, tmp_path)
    assert refusals == {"on": 0, "off": 0}
    assert (tmp_path / DIRECTORY / "0/state").read_text() == "off\n"


def test_the_kernel_may_use_it_itself(tmp_path: Path) -> None:
    write_damon(tmp_path, [(0, MIB, 1)])
    write_file(tmp_path, "sys/module/damon_stat/parameters/enabled", "Y\n")
    with pytest.raises(NoDamonError, match=r"write N to .*/damon_stat/parameters/enabled"):
        count_accesses({70: [(0, MIB)]}, tmp_path)
    assert (tmp_path / DIRECTORY / "nr_kdamonds").read_text() == "0\n"
