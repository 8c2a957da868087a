"""Folios of every size: nodes that change places, one way, at a rate, and by a profile."""

from __future__ import annotations

import json
import mmap
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from schedhook.backends.native.backend import NativeBackend
from schedhook.backends.native.target import NativeTarget
from schedhook.cli.main import main
from schedhook.host.page_sizes import read_page_sizes
from schedhook.migration.headroom import Headroom
from schedhook.testing.native import HUGE
from schedhook.testing.processes import huge_page_pool
from schedhook.values.model import Area
from tests.balancing import setting
from tests.numa.jobs import drop_caches, is_at_least, khugepaged_at_rest, mounted_disk, repeating
from tests.numa.puppet import HOME, PAGE, Advice, Call, Memory, Puppet

pytestmark = [pytest.mark.nodes(4), pytest.mark.balancing("off")]

SETTINGS = Path("/sys/kernel/mm/transparent_hugepage")
SIZES = [16, 64, 256, 1024, HUGE >> 10]
"""KiB."""
SIZE = 6 * HUGE
AT_FIRST = {0: SIZE // 3, 1: SIZE // 3 * 2}
CHUNK = 2 * HUGE
RATE = SIZE // 12_000_000 * 1_000_000
"""Bytes a second. Moving SIZE at this rate takes more than two windows."""
WINDOW = 5.0


@contextmanager
def folios_of(kilobytes: int) -> Iterator[None]:
    """Let anonymous memory consist of folios of one size."""
    own = SETTINGS / f"hugepages-{kilobytes}kB/enabled"
    if not own.exists() and kilobytes << 10 != HUGE:
        pytest.skip(f"this kernel has no folios of {kilobytes} KiB")
    with ExitStack() as stack:
        # khugepaged would make other folios of memory that begins beside a boundary.
        stack.enter_context(khugepaged_at_rest())
        stack.enter_context(setting(SETTINGS / "enabled", "madvise"))
        for path in SETTINGS.glob("hugepages-*kB/enabled"):
            stack.enter_context(setting(path, "madvise" if path == own else "never"))
        yield


def largest_folio(puppet: Puppet, memory: Memory) -> int:
    """Return the most pages of one folio that follow one another, by the frames' flags."""
    most = length = 0
    with Path(f"/proc/{puppet.pid}/pagemap").open("rb") as pagemap:
        pagemap.seek(memory.start // PAGE * 8)
        raw = pagemap.read(memory.size // PAGE * 8)
    frames = [
        int.from_bytes(raw[i : i + 7], "little") & (1 << 55) - 1 for i in range(0, len(raw), 8)
    ]
    flags = os.open("/proc/kpageflags", os.O_RDONLY)
    for frame in frames:
        word = int.from_bytes(os.pread(flags, 8, frame * 8), "little")
        length = length + 1 if word & 1 << 16 else 1
        most = max(most, length)
    os.close(flags)
    return most * PAGE


@pytest.fixture
def puppet() -> Iterator[Puppet]:
    with Puppet() as puppet:
        yield puppet


def lay_out(puppet: Puppet, kilobytes: int, beside: int) -> Memory:
    """Fill memory in folios, a third of it on node 0 and the rest on node 1, in turn."""
    memory = puppet.map(SIZE, huge=True)
    for offset in range(0, SIZE, CHUNK):
        node = 0 if offset // CHUNK % 3 == 0 else 1
        puppet.fill(Memory(memory.start + offset, CHUNK), node)
    assert puppet.residency(memory) == AT_FIRST
    assert largest_folio(puppet, memory) == kilobytes << 10
    return puppet.shift(memory, beside) if beside else memory


def is_right(report: dict[str, Any], moved: int) -> bool:
    """Return whether the sums are right within 1 %."""
    return report["outcome"] == "complete" and abs(report["bytes_moved"] - moved) <= moved // 100


@pytest.mark.short(4)
@pytest.mark.parametrize("beside", [0, 3 * PAGE])
@pytest.mark.parametrize("options", [[], ["--gentle"], ["--threads", 4], ["--bandwidth", 40]])
@pytest.mark.parametrize("kilobytes", SIZES)
def test_nodes_change_places(
    run: Any, puppet: Puppet, kilobytes: int, options: list[object], beside: int
) -> None:
    with folios_of(kilobytes):
        memory = lay_out(puppet, kilobytes, beside)
        _, report = run("relocate", "--pid", puppet.pid, "--map", "0:1,1:0", *options)
        assert puppet.residency(memory) == {0: AT_FIRST[1], 1: AT_FIRST[0]}
        assert is_right(report, SIZE)
        assert puppet.is_intact(memory, CHUNK // PAGE)


@pytest.mark.short(2)
@pytest.mark.parametrize("beside", [0, 3 * PAGE])
def test_no_cut_goes_through_a_folio_with_a_hole(puppet: Puppet, beside: int) -> None:
    """Behind the hole, the page at which a part could begin tells to which folio it belongs."""
    with folios_of(HUGE >> 10):
        memory = puppet.map(2 * HUGE, huge=True)
        puppet.fill(memory, 0)
        assert largest_folio(puppet, memory) == HUGE
        count = HUGE // PAGE
        first, last = count // 2, count // 2 + 16
        puppet.advise(memory.part(first, last), Advice.DONTNEED)
        memory = puppet.shift(memory, beside) if beside else memory
        with NativeBackend().attach(puppet.pid) as target:
            (area,) = (each for each in target.areas() if each.start <= memory.start < each.end)

            def boundary(page: int) -> int:
                return (target.boundary(area, memory.start + page * PAGE) - memory.start) // PAGE

            assert {boundary(page) for page in range(1, first)} == {first}
            assert [boundary(page) for page in range(first + 1, last)] == [*range(first + 1, last)]
            assert {boundary(page) for page in range(last, count + 1)} == {count}


@pytest.mark.short(2)
@pytest.mark.parametrize("beside", [0, 3 * PAGE])
@pytest.mark.parametrize("options", [["--gentle"], ["--strategy", "migrate-process"]])
@pytest.mark.parametrize("kilobytes", SIZES)
def test_one_way(
    run: Any, puppet: Puppet, kilobytes: int, options: list[object], beside: int
) -> None:
    with folios_of(kilobytes):
        memory = lay_out(puppet, kilobytes, beside)
        _, report = run("relocate", "--pid", puppet.pid, "--from", "0-1", "--to", 2, *options)
        assert puppet.residency(memory) == {2: SIZE}
        assert is_right(report, SIZE)


@pytest.mark.short(2)
@pytest.mark.parametrize("beside", [0, 3 * PAGE])
@pytest.mark.parametrize("kilobytes", SIZES[::-1])
def test_little_room(
    run: Any, puppet: Puppet, kilobytes: int, beside: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For two huge pages and a half at a time: each call ends where a folio does."""
    folio, take, sweep = kilobytes << 10, Headroom.take, NativeTarget.sweep
    ends = list[int]()

    def little(self: Headroom, moves: Any, wanted: int, least: int) -> int:
        return take(self, moves, min(wanted, HUGE * 5 // 2), least)

    def watched(self: NativeTarget, area: Area, start: int, end: int, *rest: Any, **more: Any):
        ends.append(end)
        return sweep(self, area, start, end, *rest, **more)

    monkeypatch.setattr(Headroom, "take", little)
    monkeypatch.setattr(NativeTarget, "sweep", watched)
    with folios_of(kilobytes):
        memory = lay_out(puppet, kilobytes, beside)
        options = ["--strategy", "move-pages"]
        _, report = run("relocate", "--pid", puppet.pid, "--from", "0-1", "--to", 2, *options)
    within = [end - memory.start for end in ends if memory.start < end < memory.start + SIZE]
    assert len(within) >= 2
    assert {end % folio for end in within} == {0}
    assert puppet.residency(memory) == {2: SIZE}
    assert is_right(report, SIZE)


@pytest.mark.short(1)
@pytest.mark.parametrize("kilobytes", SIZES)
def test_a_rate_is_kept(run: Any, puppet: Puppet, kilobytes: int) -> None:
    """In each five seconds: no more than a tenth, and one folio, above what the rate allows."""
    with folios_of(kilobytes):
        memory = lay_out(puppet, kilobytes, 3 * PAGE)
        options = ["--from", "0-1", "--to", 2, "--bandwidth", RATE // 10**6]
        with arrivals(puppet, memory, 2) as seen:
            _, report = run("relocate", "--pid", puppet.pid, *options)
        assert is_right(report, SIZE)
        assert SIZE / report["seconds"] <= 1.1 * RATE
        assert puppet.residency(memory) == {2: SIZE}
    assert len(seen) > 5 * SIZE / RATE, "too few looks"
    for number, (began, before) in enumerate(seen):
        within = [there for now, there in seen[number:] if now - began <= WINDOW]
        assert within[-1] - before <= 1.1 * RATE * WINDOW + (kilobytes << 10)


@contextmanager
def arrivals(puppet: Puppet, memory: Memory, node: int) -> Iterator[list[tuple[float, int]]]:
    """Look again and again, for the block, how many bytes of the memory are on the node.

    A look's time is that at its end: what it counts has arrived by then.
    """
    seen: list[tuple[float, int]] = []

    def look() -> None:
        there = puppet.residency(memory).get(node, 0)
        seen.append((time.monotonic(), there))

    with repeating(look, 0.05):
        yield seen


@pytest.mark.parametrize("beside", [0, 3])
def test_folios_of_a_file(run: Any, puppet: Puppet, tmp_path: Path, beside: int) -> None:
    """They are mapped from `beside` pages behind the file's beginning on."""
    point = tmp_path / "mnt"
    point.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "huge=always", "none", point], check=True)
    try:
        file = puppet.open(point / "file", os.O_RDWR | os.O_CREAT)
        puppet.call(Call.FTRUNCATE, file, SIZE)
        memory = puppet.map(SIZE, flags=mmap.MAP_SHARED, file=file)
        for offset in range(0, SIZE, CHUNK):
            node = 0 if offset // CHUNK % 3 == 0 else 1
            puppet.fill(Memory(memory.start + offset, CHUNK), node)
        assert puppet.residency(memory) == AT_FIRST
        assert largest_folio(puppet, memory) == HUGE
        if beside:
            puppet.call(Call.MUNMAP, memory.start, beside * PAGE)
            memory = puppet.shift(memory.part(beside, SIZE // PAGE), 0)
            puppet.read(memory)  # mremap(2) has unmapped them
        _, report = run("relocate", "--pid", puppet.pid, "--map", "0:1,1:0", "--gentle")
        assert is_right(report, SIZE)
        puppet.read(memory)
        assert puppet.residency(memory) == {0: AT_FIRST[1], 1: AT_FIRST[0] - beside * PAGE}
    finally:
        puppet.process.kill()
        puppet.process.wait()
        subprocess.run(["umount", point], check=True)


@pytest.mark.parametrize("kilobytes", [64, 1024])
def test_folios_of_xfs(run: Any, tmp_path: Path, kilobytes: int) -> None:
    """Linux 6.1 writes to XFS in single pages, newer kernels in folios as large as each write.

    khugepaged of 7.3 would make larger ones, which no process maps until their next use.
    """
    chunk = kilobytes << 10
    with khugepaged_at_rest(), mounted_disk(tmp_path, 512, "xfs") as point, Puppet() as puppet:
        source = puppet.map(chunk)
        puppet.fill(source, HOME)
        file = puppet.open(point / "file", os.O_RDWR | os.O_CREAT)
        for offset in range(0, SIZE, chunk):
            puppet.bind(0 if offset // CHUNK % 3 == 0 else 1)
            assert puppet.call(Call.PWRITE, file, source.start, chunk, offset) == chunk
        puppet.bind(HOME)
        puppet.call(Call.FSYNC, file)
        memory = puppet.map(SIZE, flags=mmap.MAP_SHARED, file=file)
        puppet.read(memory)
        assert puppet.residency(memory) == AT_FIRST
        assert largest_folio(puppet, memory) == (chunk if is_at_least(6, 6) else PAGE)
        _, report = run("relocate", "--pid", puppet.pid, "--map", "0:1,1:0", "--gentle")
        assert is_right(report, SIZE)
        puppet.read(memory)
        assert puppet.residency(memory) == {0: AT_FIRST[1], 1: AT_FIRST[0]}
        assert puppet.is_intact(memory, chunk // PAGE)


@pytest.mark.parametrize("options", [[], ["--gentle"], ["--threads", 4]])
@pytest.mark.parametrize("size", read_page_sizes().pools)
def test_huge_pages_of_a_pool_change_places(
    run: Any, puppet: Puppet, size: int, options: list[object]
) -> None:
    """One page of node 0 and two of node 1, with room for as many on either."""
    with ExitStack() as stack:
        for node in (0, 1):
            drop_caches()
            try:
                stack.enter_context(huge_page_pool(node, size, 3))
            except (RuntimeError, FileNotFoundError):
                pytest.skip(f"no room for huge pages of {size >> 20} MiB")
        memory = puppet.map_huge_pages(3 * size, size)
        for number, node in enumerate((1, 0, 1)):
            puppet.fill(Memory(memory.start + number * size, size), node)
        assert puppet.residency(memory) == {0: size, 1: 2 * size}
        _, report = run("relocate", "--pid", puppet.pid, "--map", "0:1,1:0", *options)
        assert puppet.residency(memory) == {0: 2 * size, 1: size}
        assert is_right(report, 3 * size)
        for number in range(3):
            assert puppet.is_intact(Memory(memory.start + number * size, size))
        puppet.process.kill()
        puppet.process.wait()


def test_one_folio_of_two_areas(run: Any, puppet: Puppet) -> None:
    """Each folio lies in two areas, of different protection, and moves once."""
    with folios_of(HUGE >> 10):
        memory = lay_out(puppet, HUGE >> 10, 0)
        for offset in range(HUGE // 2, SIZE, 2 * HUGE):
            puppet.protect(Memory(memory.start + offset, HUGE), mmap.PROT_READ)
        _, report = run("relocate", "--pid", puppet.pid, "--map", "0:1,1:0", "--threads", 4)
        assert puppet.residency(memory) == {0: AT_FIRST[1], 1: AT_FIRST[0]}
        assert is_right(report, SIZE)


@pytest.mark.parametrize("kilobytes", [64, HUGE >> 10])
@pytest.mark.parametrize("beside", [0, 3 * PAGE])
def test_a_folio_follows_all_of_its_accesses(
    capsys: pytest.CaptureFixture[str], puppet: Puppet, tmp_path: Path, kilobytes: int, beside: int
) -> None:
    """A quarter of the first folio is used from node 1, and the rest of it from node 0."""
    with folios_of(kilobytes):
        memory = puppet.map(2 * HUGE, huge=True)
        puppet.fill(memory, 0)
        folio = kilobytes << 10
        assert largest_folio(puppet, memory) == folio
        memory = puppet.shift(memory, beside) if beside else memory
        os.sched_setaffinity(puppet.pid, {0, 1})
        pages = memory.pages[: folio // PAGE]
        few = len(pages) // 4
        rows = [(1, page, 10) for page in pages[:few]] + [(0, page, 10) for page in pages[few:]]
        rows += [(1, page + folio, 10) for page in pages]
        log = tmp_path / "log.csv"
        lines = [f"{puppet.pid},{node},{page},{count}" for node, page, count in rows]
        log.write_text("\n".join(["pid,node,address,weight", *lines]) + "\n")
        arguments = ["profile", str(log), "--pid", str(puppet.pid), "--move", "--json"]
        capsys.readouterr()
        main(arguments, standalone_mode=False)
        report = json.loads(capsys.readouterr().out)
        assert (report["outcome"], report["bytes_moved"]) == ("complete", folio)
        assert set(puppet.status(pages)) == {0}
        assert set(puppet.status([page + folio for page in pages])) == {1}
