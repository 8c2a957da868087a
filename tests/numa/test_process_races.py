"""What processes do while they are moved: each race occurs many times, during and around a move."""

from __future__ import annotations

import mmap
import os
import re
import struct
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from schedhook.backends.native.target import NativeTarget
from schedhook.values.model import Area
from tests.numa.jobs import Job, cgroup, until
from tests.numa.programs import program

pytestmark = pytest.mark.nodes(4)

PAGE = mmap.PAGESIZE

# -- programs that are replaced, exit and fork ---------------------------------------------------

PLACE = 0x100000000000
PAGES = 48
MEMBERS = 16
ROUNDS = 12
ENOUGH = 8
"""Actions during the move, and as many at other times, after which a race counts as covered."""
MIDDLE, BESIDE = "in the middle", "before or after"
PASSING = {"EBUSY", "appeared", "hidden"}
"""Reasons that a busy process causes; `hidden`: without access at the moment, on Linux 6.1."""


class Crowd:
    """A running crowd.c in a cgroup."""

    def __init__(self, path: Path, action: str, seconds: float) -> None:
        words = [MEMBERS, PAGES, 0, action, int(seconds * 1e6)]
        self._path = path
        self._process = subprocess.Popen(
            [
                *("/bin/sh", "-c", f'echo $$ > {path}/cgroup.procs && exec "$@"', "sh"),
                *(program("crowd"), *map(str, words)),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.pid = self._process.pid
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n"

    def begin(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(b"go\n")
        self._process.stdin.flush()

    def members(self) -> list[Member]:
        """Return the living members, once each has finished its action."""
        found: list[Member] = []

        def at_rest() -> bool:
            with suppress(OSError):  # a new program that has no memory there yet
                found[:] = self._members()
                return all(member.image for member in found)
            return False

        until(at_rest)
        return found

    def _members(self) -> Iterator[Member]:
        for pid in map(int, (self._path / "cgroup.procs").read_text().split()):
            if pid != self.pid:
                with suppress(FileNotFoundError, ProcessLookupError):  # it has just exited
                    yield Member.read(pid)

    def __enter__(self) -> Crowd:
        return self

    def __exit__(self, *_: object) -> None:
        (self._path / "cgroup.kill").write_text("1")
        self._process.communicate()


@dataclass
class Member:
    pid: int
    image: int
    filled: int
    """Time of filling, in ns of the monotonic clock."""
    residency: dict[int, int]
    is_whole: bool

    @classmethod
    def read(cls, pid: int) -> Member:
        memory = os.open(f"/proc/{pid}/mem", os.O_RDONLY)
        try:
            raw = os.pread(memory, PAGES * PAGE, PLACE)
        finally:
            os.close(memory)
        image, filled = struct.unpack_from("QQ", raw)
        wanted = (((PLACE + n * PAGE) * image) % (1 << 64) for n in range(1, PAGES))
        found = (struct.unpack_from("Q", raw, n * PAGE)[0] for n in range(1, PAGES))
        return cls(pid, image, filled, residency_at(pid, PLACE), list(wanted) == list(found))


def residency_at(pid: int, place: int) -> dict[int, int]:
    for line in Path(f"/proc/{pid}/numa_maps").read_text().splitlines():
        if line.startswith(f"{place:x} "):
            return {int(node): int(n) * PAGE for node, n in re.findall(r" N(\d+)=(\d+)", line)}
    raise LookupError(place)


@dataclass
class Looks:
    """When the relocation first and last read where a process's memory lies."""

    first: dict[int, int] = field(default_factory=dict)
    last: dict[int, int] = field(default_factory=dict)

    def clear(self) -> None:
        self.first.clear()
        self.last.clear()

    def met(self, member: Member) -> str:
        """Return when its second image appeared: during the move (MIDDLE) or not (BESIDE).

        The move lasts from the first reading of any process to the last reading of this one.
        """
        last = self.last.get(member.pid, 0)
        return MIDDLE if min(self.first.values()) < member.filled < last else BESIDE


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Looks:
    found = Looks()
    real = NativeTarget.areas

    def areas(target: NativeTarget) -> tuple[Area, ...]:
        now = time.monotonic_ns()
        result = real(target)
        found.first.setdefault(target.pid, now)
        found.last[target.pid] = now
        return result

    monkeypatch.setattr(NativeTarget, "areas", areas)
    return found


@pytest.mark.short(3)
@pytest.mark.parametrize(
    ("action", "strategy"),
    [
        ("exec", "move-pages"),
        ("exec", "migrate-process"),
        ("exit", "move-pages"),
        ("fork", "move-pages"),
    ],
)
def test_a_crowd(run: Any, looks: Looks, action: str, strategy: str) -> None:
    met: Counter[str] = Counter()
    seconds = 4.0
    with cgroup("crowd") as path:
        for rounds in range(1, ROUNDS + 1):
            with Crowd(path, action, seconds) as crowd:
                looks.clear()
                crowd.begin()
                began, span = time.monotonic(), seconds
                status, report = run(
                    "relocate", "--cgroup", path, "--from", 0, "--to", 2, "--strategy", strategy
                )
                took = time.monotonic() - began
                seconds = 1.3 * took
                assert status in (0, 3), report
                assert report["left_by_reason"].keys() <= PASSING, report
                time.sleep(max(span - took, 0))
                met += check(report, crowd, looks)
            print(rounds, met, seconds, report["outcome"], report["left_by_reason"])
            if min(met[MIDDLE], met[BESIDE]) >= ENOUGH:
                return
    pytest.fail(f"too few on one side: {met}")


def check(report: dict[str, Any], crowd: Crowd, looks: Looks) -> Counter[str]:
    """Assert that what was filled before the last reading has moved, or is counted as left."""
    met: Counter[str] = Counter()
    reported = {each["pid"]: each for each in report["processes"]}
    members = crowd.members()
    for member in members:
        assert member.is_whole
        if member.filled < looks.last.get(member.pid, 0):
            assert member.residency.get(0, 0) <= reported[member.pid]["bytes_left"], member
        if member.image == 2:
            met[looks.met(member)] += 1
    known = {crowd.pid, *(member.pid for member in members)}
    for pid in reported.keys() - known:  # these have exited
        met[MIDDLE if reported[pid]["error"] else BESIDE] += 1
    return met


# -- memory that changes -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind", ["unmap", "dontneed", "remap", "protect", "truncate", "fork", "threads"]
)
def test_memory_that_changes_all_the_time(run: Any, kind: str) -> None:
    with Job("anon", 4, 0) as job:
        contents = job.checksum()
        job.say(f"churn {kind} 4")
        done = [int(job.say("churned"))]
        for here, there in ((0, 2), (2, 0)):
            status, report = run("relocate", "--pid", job.pid, "--from", here, "--cpus", there)
            done.append(int(job.say("churned")))
            print(kind, done, report["seconds"], report["attempts"])
            assert status in (0, 3), report
            assert report["left_by_reason"].keys() <= PASSING, report
            assert job.share_on(there) == 1
        assert all(before + 10 < after for before, after in pairwise(done))
        assert job.checksum() == contents
