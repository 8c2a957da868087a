"""Logs of accesses: what is read of each format, and how the rest is counted."""

from __future__ import annotations

import io
import json
import tracemalloc
from collections.abc import Iterable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from schedhook.host.topology import Node, Topology
from schedhook.migration.profiling.hints import Format
from schedhook.migration.profiling.reading import detect, read_profile
from schedhook.migration.profiling.samples import Tally
from schedhook.roles.profile import Profile
from schedhook.values.errors import UsageError
from schedhook.values.sets import CpuSet

TWO = Topology(
    nodes={
        0: Node(number=0, cpus=CpuSet({0, 2}), memory_total=1 << 30),
        1: Node(number=1, cpus=CpuSet({1, 3}), memory_total=1 << 30),
    }
)
PAGE = 0x7F0925122000
EVERYWHERE = (0, 1 << 62)

Found = dict[int, list[tuple[int, int, int]]]


def read(text: str | bytes, **more: object) -> tuple[Found, Tally]:
    """Return (page, node, accesses) by process."""
    raw = text.encode() if isinstance(text, str) else text
    profile, tally = read_profile(io.BytesIO(raw), TWO, **more)  # type: ignore[arg-type]
    found = {
        number: list(profile.accesses([number]).between(*EVERYWHERE)) for number in profile.numbers
    }
    accounted = sum(count for rows in found.values() for *_, count in rows)
    accounted += tally.no_address + tally.kernel + tally.unknown_node + tally.cache_hits
    assert tally.samples == accounted + tally.dropped
    return found, tally


@pytest.mark.parametrize(
    ("line", "process"),
    [
        (" 5469/5469  [001]     7f0925122e64", 5469),
        ("python3  5469 [003] 13634.647074:          1 page-faults:      7f0925122e64", 5469),
        (" x 3/3 [001] 1.5: 1 page-faults:u:  7f0925122e64     55d0aa12 main+0x2 (/bin/a b)", 3),
        ("  my prog 3  5469/5470  [001] 1.5:     7f0925122e64", 5469),
        (
            "         python3  5236 [001] 13614.259736: exceptions:page_fault_user:"
            " address=0x7f0925122e64 ip=0x7f54ee413b70 error_code=0x14",
            5236,
        ),
        (" 5236 [001] address=0x7f0925122b70 ip=0x7f54ee413b70 error_code=0x14", 5236),
        (
            "a 7/8  [001] 9.1:       1000 cpu/mem-loads,ldlat=30/P:     7f0925122b70"
            "      10668100842 |OP LOAD|LVL Remote RAM (1 hop) hit|SNP None|TLB L1 hit|LCK No  214",
            7,
        ),
        (
            "x 52 [001] 544966.882384:      10000 \tcpu_core/MEM_UOPS.LOAD/: 7f0925122b70"
            " 10268100142 |OP LOAD|LVL L3 miss|SNP None",
            52,
        ),
        (" 5469/5469  [001] 709251226640 55d0aa12 main", None),
    ],
)
def test_what_perf_script_prints(line: str, process: int | None) -> None:
    found, tally = read(line)
    if process is None:  # an address that could be a decimal number
        assert found == {5469: [(0x709251226000, 1, 1)]}
    else:
        assert found == {process: [(PAGE, 1, 1)]}
    assert (tally.lines, tally.samples, tally.bad_lines) == (1, 1, 0)


def test_lines_that_are_not_samples_are_counted() -> None:
    log = f"""# captured on: today

 1/1  [000]     {PAGE:x}
 1/1  [000]                0
 1/1  [001]     ffffffff8175336a
 1/1  [009]     {PAGE:x}
\tffffffff8175336a elf_load+0x28a ([kernel.kallsyms])
Samples for 'page-faults' event do not have CPU attribute set.
 1/1  [000]     88000182 |OP LOAD|LVL L1 miss|SNP N/A
 99999999/1  [000]     {PAGE:x}
"""
    found, tally = read(log)
    assert found == {1: [(PAGE, 0, 1)]}
    assert tally == Tally(lines=8, bad_lines=4, samples=4, no_address=1, kernel=1, unknown_node=1)


@pytest.mark.parametrize(
    "code",
    ["7f0925122e64 [unknown] (/lib/libz.so)", "7f0925122e64 std::f<a, b>(int)+0x5b (/x (deleted))"],
)
def test_the_address_of_code_is_not_an_access(code: str) -> None:
    """Lines that `perf script` prints for events by default."""
    with pytest.raises(UsageError, match="-F comm,pid,tid,cpu,time,event,addr"):
        read(f"  app   210 [000]    68.052951:          1 page-faults:      {code}\n")


def test_accesses_that_a_cache_answered_do_not_count() -> None:
    levels = ["L1 hit", "LFB/MAB or LFB/MAB hit", "L3 or L3 hit", "L3 miss", "Local RAM hit", "N/A"]
    log = "".join(f"1/1 [000] {PAGE:x} 1 |OP LOAD|LVL {level}|SNP N/A\n" for level in levels)
    found, tally = read(log)
    assert (found, tally.cache_hits) == ({1: [(PAGE, 0, 3)]}, 3)
    found, tally = read(log, count_cache_hits=True)
    assert (found, tally.cache_hits) == ({1: [(PAGE, 0, 6)]}, 0)


SPE = ("l1d-miss", "l1d-access", "llc-miss", "llc-access", "tlb-access", "memory")
"""The events of which perf makes samples of one SPE record of an Arm processor."""


def spe(time: str, address: int, events: Iterable[str] = SPE) -> str:
    source = "8688000842 |OP LOAD|LVL RAM hit|SNP N/A|TLB Walker hit|LCK No|BLK  N/A"
    return "".join(
        f"  memstress  7/7  [001] {time} 1 {event:>18}:     {address:x}       {source}\n"
        for event in events
    )


@pytest.mark.parametrize("time", ["122.463754:", ""], ids=["time", "no-time"])
def test_samples_of_one_access_count_once(time: str) -> None:
    found, tally = read(spe(time, PAGE + 16))
    assert found == {7: [(PAGE, 1, 1)]}
    assert (tally.lines, tally.samples, tally.bad_lines) == (6, 1, 0)


def test_as_many_accesses_as_samples_of_one_event_are_counted() -> None:
    """Two at another time, two more of the same event, and one of another address."""
    log = spe("1.5:", PAGE) + spe("1.6:", PAGE, SPE[:4]) + spe("1.7:", PAGE, ["memory"] * 2)
    log += spe("1.7:", PAGE + 8, ["memory"])
    assert read(log)[0] == {7: [(PAGE, 1, 5)]}
    assert read(spe("", PAGE) * 3 + spe("", PAGE + 4096) + spe("", PAGE))[0] == {
        7: [(PAGE, 1, 4), (PAGE + 4096, 1, 1)]
    }


def test_samples_of_one_access_are_found_across_blocks_and_between_others() -> None:
    records = 3 * (1 << 20) // len(spe("1.000000:", PAGE))
    assert read("".join(spe(f"1.{each:06}:", PAGE) for each in range(records)))[0] == {
        7: [(PAGE, 1, records)]
    }
    pairs = zip(spe("1.5:", PAGE).splitlines(), spe("1.5:", PAGE + 4096).splitlines(), strict=True)
    mixed = "".join(f"{one}\n{other}\n" for one, other in pairs)
    assert read(mixed)[0] == {7: [(PAGE, 1, 1), (PAGE + 4096, 1, 1)]}


def test_csv() -> None:
    log = f"""# by some tool
time, Address,CPU,pid,weight
1,{PAGE + 5:#x},1,7,3
2,"{PAGE}",3,7,"2"

3,{PAGE:#x},0,7,1
4,x{PAGE:x},0,7,1
5,{PAGE:#x},0
6,{PAGE:#x},0,7,-1
7,{PAGE:#x},0,7,99999999999999999999
"open,{PAGE:#x},0,7,1
"""
    found, tally = read(log)
    assert found == {7: [(PAGE, 0, 1), (PAGE, 1, 5)]}
    assert (tally.lines, tally.bad_lines, tally.samples) == (8, 5, 6)


def test_json_lines() -> None:
    lines = [
        {"pid": 7, "tid": 9, "addr": PAGE, "node": 1},
        {"thread": "8", "address": hex(PAGE + 8), "cpu": 2, "samples": 4.0, "more": [1]},
        {"pid": True, "addr": PAGE, "node": 1},
        {"pid": 7, "addr": PAGE},
        {"pid": 7, "addr": PAGE, "node": 0.5},
    ]
    log = "\n".join([*map(json.dumps, lines), "[1]", "{", "[" * 50_000, "nul\0l"])
    found, tally = read(log)
    assert found == {7: [(PAGE, 1, 1)], 8: [(PAGE, 0, 4)]}
    assert (tally.lines, tally.bad_lines) == (9, 7)


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("\n# x\n{}", Format.JSONL),
        ("pid,cpu,addr", Format.CSV),
        ("tid, node ,Address,when", Format.CSV),
        ("pid,cpu", Format.CSV),
        ("1,2,3", Format.CSV),
        ("[", Format.JSONL),
        ("a 1/1 [000] 1234", Format.PERF),
        ("", Format.PERF),
    ],
)
def test_formats_are_recognised(line: str, kind: Format) -> None:
    assert detect(line.encode()) is kind


@pytest.mark.parametrize(
    ("log", "words"),
    [
        ("", "empty"),
        ("\n# nothing\n", "empty"),
        ("hello\nworld\n", "2 are not samples"),
        ("1/1 [000] 0\n", "perf record -d"),
        ("1/1 [077] 7f0000000000\n", "not online"),
        ("pid,cpu,addr\n", "empty"),
        ("1/1 [000] 7f0000000000 1 |OP LOAD|LVL L1 hit|SNP\n", "--cache-hits"),
    ],
)
def test_a_log_without_a_usable_sample_is_an_error_of_one_line(log: str, words: str) -> None:
    with pytest.raises(UsageError) as error:
        read(log)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_a_csv_log_names_its_fields() -> None:
    with pytest.raises(UsageError, match="pid,cpu,address"):
        read("1,2,3\n", kind=Format.CSV)


class Endless(io.RawIOBase):
    """Some lines, 64 MiB without a newline, and some more lines."""

    def __init__(self, lines: bytes) -> None:
        self.parts = [lines, *[b""] * 64, b"\n" + lines, None]

    def read(self, size: int = -1) -> bytes:
        part = self.parts.pop(0) if self.parts else None
        return b"" if part is None else part or b"x" * size


def test_an_endless_line_does_not_fill_the_memory() -> None:
    log = Endless(f"1/1 [000] {PAGE:x}\n".encode() * 3)
    tracemalloc.start()
    profile, tally = read_profile(log, TWO)  # type: ignore[arg-type]
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert profile.total(1) == 6
    assert (tally.lines, tally.bad_lines) == (7, 1)
    assert most < 16 << 20


def test_lines_are_whole_across_blocks() -> None:
    line = f"  some command  4711/4712  [001] 13614.4: 1 page-faults: {PAGE:x}\n"
    count = (3 << 20) // len(line)
    found, tally = read(line * count)
    assert found == {4711: [(PAGE, 1, count)]}
    assert (tally.lines, tally.bad_lines) == (count, 0)


_PIECES = st.sampled_from(
    ["1/1 ", "[000] ", f"{PAGE:x}", "|OP ", "|LVL L1 hit", "\n", " ", "\t", ",", '"', "{", "}",
     "pid,cpu,addr\n", '{"pid":1,"cpu":0,"addr":4096}\n', "1.5:", "address=0x", "-", "\0", "é"]
)  # fmt: skip


@settings(deadline=None)
@given(
    st.one_of(
        st.binary(), st.text().map(str.encode), st.lists(_PIECES).map("".join).map(str.encode)
    ),
    st.sampled_from(Format),
)
@example(b"pid,cpu,addr\n" + b"9" * 5000 + b",0,1\n", Format.CSV)
@example(b"\r\x00", Format.CSV)
@example(b'pid,cpu,addr\n"\r\x00",1,1', Format.CSV)
@example(b'{"pid":1,"cpu":0,"addr":1e400}\n{"pid":1,"cpu":0,"addr":NaN}', Format.JSONL)
def test_any_input_is_read_or_refused(log: bytes, kind: Format) -> None:
    """A log has a usable sample or is refused; each line is counted."""
    try:
        _, tally = read(log, kind=kind)
    except UsageError as error:
        assert "\n" not in str(error)
        return
    assert tally.samples > 0
    assert 0 <= tally.bad_lines <= tally.lines


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 3), st.integers(1, 2**47 - 1), st.integers(0, 1), st.integers(1, 9)
        ),
        min_size=1,
    )
)
def test_each_access_is_counted_once(samples: list[tuple[int, int, int, int]]) -> None:
    log = "pid,address,node,weight\n" + "".join(f"{','.join(map(str, each))}\n" for each in samples)
    expected: dict[tuple[int, int, int], int] = {}
    for process, address, node, weight in samples:
        if address >= 4096:
            key = (process, address // 4096 * 4096, node)
            expected[key] = expected.get(key, 0) + weight
    if not expected:
        return
    found, _ = read(log)
    assert {(p, page, node): n for p, rows in found.items() for page, node, n in rows} == expected


def test_memory_is_bounded_and_the_least_used_pages_are_dropped() -> None:
    profile = Profile(capacity=10_000)
    tracemalloc.start()
    for index in range(1_000_000):
        profile.add(1, 4096 * (index + 1), 0)
        if not index % 1000:
            profile.add(1, 0x7F0000000000, 1, 100)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    hot = profile.accesses([1]).count(0x7F0000000000, 0x7F0000001000)
    assert hot == 1000 * 100
    assert profile.dropped + profile.total(1) == 1_000_000 + 1000 * 100
    assert profile.dropped > 900_000
    assert most < 20 << 20


def test_threads_are_added_up() -> None:
    profile = Profile()
    for thread, node in ((10, 0), (11, 1), (11, 0)):
        profile.add(thread, PAGE, node)
    profile.add(12, PAGE, 0)
    assert list(profile.accesses([10, 11]).between(*EVERYWHERE)) == [(PAGE, 0, 2), (PAGE, 1, 1)]


def test_accesses_from_a_node_without_memory_count_for_the_nearest_that_has() -> None:
    nodes = {**TWO.nodes, 2: Node(number=2, cpus=CpuSet({4}), distances={0: 30, 1: 20})}
    log = f"p 5/5 [004] 1.5: 1 page-faults: {PAGE:x}\np 5/5 [000] 1.5: 1 page-faults: {PAGE:x}\n"
    profile, _ = read_profile(io.BytesIO(log.encode()), Topology(nodes=nodes))
    assert list(profile.accesses([5]).between(*EVERYWHERE)) == [(PAGE, 0, 1), (PAGE, 1, 1)]
