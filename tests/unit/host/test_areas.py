"""A process's memory: numa_maps and maps, joined."""

from __future__ import annotations

import dataclasses
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schedhook.host import areas
from schedhook.host.processes import read_areas, residency
from schedhook.host.smaps import read_pss
from schedhook.testing.hosts import PAGE, FakeArea, write_file, write_process
from schedhook.values.errors import NoPermissionError, ProcessGoneError
from schedhook.values.extents import Extents
from schedhook.values.model import Area, MemoryKind
from schedhook.values.objects import ObjectId, ObjectKind

MIB = 1 << 20
HUGE = 2 * MIB


def only(root: Path, *areas: FakeArea) -> Area:
    write_process(root, 5, areas=areas)
    (found,) = read_areas(5, root)
    return found


def test_anonymous_memory(tmp_path: Path) -> None:
    area = only(
        tmp_path,
        FakeArea(start=0x7F0000000000, size=8 * PAGE, pages={0: 2, 3: 5}, policy="bind:0-3"),
    )
    assert (area.start, area.end) == (0x7F0000000000, 0x7F0000000000 + 8 * PAGE)
    assert area.kind is MemoryKind.ANON
    assert area.residency == {0: 2 * PAGE, 3: 5 * PAGE}
    assert area.resident == 7 * PAGE
    assert area.policy == "bind:0-3"
    assert (area.path, area.object_id, area.is_shared) == ("", None, False)


@pytest.mark.parametrize(
    "policy",
    [
        "default",
        "local",
        "prefer:1",
        "interleave:0-1",
        "bind=static:0-1",
        "bind=relative:0,2",
        "interleave=balancing|static:0",
        "prefer (many):0-1",
        "prefer (many)=static:0-1",
        "weighted interleave:0-3",
        "unknown",
    ],
)
@pytest.mark.parametrize("path", ["", "/lib/libc.so"])
def test_policies_with_blanks_and_flags(tmp_path: Path, policy: str, path: str) -> None:
    area = only(tmp_path, FakeArea(start=PAGE, size=PAGE, pages={1: 1}, policy=policy, path=path))
    assert area.policy == policy
    assert area.path == path
    assert area.residency == {1: PAGE}


@pytest.mark.parametrize(
    ("area", "kind"),
    [
        (FakeArea(start=PAGE, size=PAGE, path="/lib/libc.so"), MemoryKind.FILE),
        (FakeArea(start=PAGE, size=PAGE, path="/dev/shm/x", device="0:23"), MemoryKind.SHMEM),
        (FakeArea(start=PAGE, size=PAGE, path="/run/x", device="0:23"), MemoryKind.SHMEM),
        # A mount of another namespace: no mount table lists the device.
        (FakeArea(start=PAGE, size=PAGE, path="/dev/shm/x", device="0:99"), MemoryKind.SHMEM),
        (
            FakeArea(
                start=PAGE,
                size=PAGE,
                path="/SYSV00000000 (deleted)",
                device="0:1",
                inode=0,
                is_shared=True,
            ),
            MemoryKind.SHMEM,
        ),
        (
            FakeArea(
                start=PAGE, size=PAGE, path="/memfd:a\nb (deleted)", device="0:1", is_shared=True
            ),
            MemoryKind.SHMEM,
        ),
        (
            FakeArea(
                start=PAGE, size=PAGE, path="/dev/zero (deleted)", device="0:1", is_shared=True
            ),
            MemoryKind.SHMEM,
        ),
        (FakeArea(start=PAGE, size=PAGE, path="/dev/zero", device="0:6", anon=1), MemoryKind.ANON),
        (FakeArea(start=PAGE, size=PAGE, path="/memfd:kept"), MemoryKind.FILE),
        (FakeArea(start=PAGE, size=PAGE, path="/lib/libc.so", anon=1), MemoryKind.FILE),
        (
            FakeArea(
                start=HUGE,
                size=HUGE,
                page_size=HUGE,
                is_huge=True,
                device="0:15",
                path="/anon_hugepage (deleted)",
            ),
            MemoryKind.HUGE,
        ),
        (FakeArea(start=PAGE, size=PAGE, path="/dev/hugepages/x", device="0:24"), MemoryKind.HUGE),
    ],
)
def test_kinds(tmp_path: Path, area: FakeArea, kind: MemoryKind) -> None:
    assert only(tmp_path, dataclasses.replace(area, pages={0: 1})).kind is kind


def test_counts_of_huge_pages_are_in_huge_pages(tmp_path: Path) -> None:
    area = only(
        tmp_path,
        FakeArea(
            start=HUGE,
            size=4 * HUGE,
            page_size=HUGE,
            pages={0: 3, 1: 1},
            is_huge=True,
            path="/dev/hugepages/x",
            device="0:24",
            is_shared=True,
        ),
    )
    assert area.page_size == HUGE
    assert area.residency == {0: 3 * HUGE, 1: HUGE}


def test_the_same_memory_in_two_processes_has_one_key(tmp_path: Path) -> None:
    shared = FakeArea(
        start=16 * PAGE,
        size=4 * PAGE,
        pages={0: 4},
        path="/dev/shm/x",
        device="0:23",
        inode=77,
        offset=2 * PAGE,
        is_shared=True,
        mappers=2,
    )
    write_process(tmp_path, 5, areas=[shared])
    write_process(tmp_path, 6, areas=[dataclasses.replace(shared, start=99 * PAGE)])
    (first,), (second,) = read_areas(5, tmp_path), read_areas(6, tmp_path)
    assert first.object_id == second.object_id == ObjectId("0:23", 77)
    assert first.offset == second.offset == 2 * PAGE
    assert first.most_mappers == 2
    assert first.is_shared


def test_a_private_file_mapping_has_an_object_until_every_page_is_a_copy(tmp_path: Path) -> None:
    area = FakeArea(start=PAGE, size=2 * PAGE, pages={0: 2}, path="/lib/x", inode=9, anon=1)
    found = only(tmp_path, area)
    assert (found.object_id, found.copied) == (ObjectId("254:0", 9), PAGE)
    found = only(tmp_path, dataclasses.replace(area, anon=2))
    assert (found.object_id, found.copied) == (None, 2 * PAGE)


def test_a_system_v_segments_id_may_be_zero(tmp_path: Path) -> None:
    area = FakeArea(
        start=PAGE,
        size=PAGE,
        pages={0: 1},
        path="/SYSV00000000 (deleted)",
        device="0:1",
        inode=0,
        is_shared=True,
    )
    assert only(tmp_path, area).object_id == ObjectId("0:1", 0, ObjectKind.SYSV)


def test_areas_without_pages_are_left_out_unless_asked_for(tmp_path: Path) -> None:
    empty = FakeArea(start=PAGE, size=PAGE)
    full = FakeArea(start=2 * PAGE, size=PAGE, pages={0: 1})
    write_process(tmp_path, 5, areas=[empty, full])
    assert [area.start for area in read_areas(5, tmp_path)] == [2 * PAGE]
    everything = read_areas(5, tmp_path, resident_only=False)
    assert [(area.start, area.residency) for area in everything] == [
        (PAGE, {}),
        (2 * PAGE, {0: PAGE}),
    ]


names = st.text(
    st.characters(blacklist_characters="\0/", blacklist_categories=["Cs"]), min_size=1, max_size=30
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(names)
def test_any_file_name_is_read_and_hides_no_count(tmp_path: Path, name: str) -> None:
    path = f"/data/{name} N0=9 huge"
    area = only(tmp_path, FakeArea(start=PAGE, size=4 * PAGE, pages={0: 1, 1: 3}, path=path))
    assert area.residency == {0: PAGE, 1: 3 * PAGE}
    assert area.kind is MemoryKind.FILE
    if "\\012" not in path:  # maps writes this like a newline
        assert area.path == path


def test_a_name_that_looks_escaped_is_not_changed(tmp_path: Path) -> None:
    area = only(tmp_path, FakeArea(start=PAGE, size=PAGE, pages={0: 1}, path="/data/a\\040b"))
    assert area.path == "/data/a\\040b"


def test_fields_that_later_kernels_may_add_are_ignored(tmp_path: Path) -> None:
    write_process(tmp_path, 5, areas=[FakeArea(start=PAGE, size=PAGE, pages={0: 1})])
    path = tmp_path / "proc/5/numa_maps"
    path.write_bytes(path.read_bytes().replace(b" N0=1", b" Nice=4 new=3 newer N0=1 N1=2"))
    (area,) = read_areas(5, tmp_path)
    assert area.policy == "default"
    assert area.residency == {0: PAGE, 1: 2 * PAGE}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.dictionaries(st.integers(0, 9), st.integers(1, 50), max_size=4), min_size=1, max_size=20
    )
)
def test_residency_adds_up(tmp_path: Path, counts: list[dict[int, int]]) -> None:
    areas = [
        FakeArea(start=(index + 1) << 20, size=256 * PAGE, pages=pages)
        for index, pages in enumerate(counts)
    ]
    write_process(tmp_path, 5, areas=areas)
    expected: dict[int, int] = {}
    for pages in counts:
        for node, count in pages.items():
            expected[node] = expected.get(node, 0) + count * PAGE
    assert residency(read_areas(5, tmp_path)) == expected


class TestChangesBetweenTheTwoReads:
    """numa_maps is from before a change, maps from after it."""

    def read(self, root: Path, before: list[FakeArea], after: list[FakeArea]) -> list[Area]:
        write_process(root, 5, areas=before)
        numa_maps = (root / "proc/5/numa_maps").read_bytes()
        write_process(root, 5, areas=after)
        write_file(root, "proc/5/numa_maps", numa_maps)
        return list(read_areas(5, root))

    def test_unmapped(self, tmp_path: Path) -> None:
        kept = FakeArea(start=PAGE, size=PAGE, pages={0: 1})
        lost = FakeArea(start=9 * PAGE, size=PAGE, pages={0: 1})
        areas = self.read(tmp_path, [kept, lost], [kept])
        assert [area.start for area in areas] == [PAGE]

    def test_everything_unmapped_below(self, tmp_path: Path) -> None:
        lost = FakeArea(start=PAGE, size=PAGE, pages={0: 1})
        kept = FakeArea(start=9 * PAGE, size=PAGE, pages={0: 1})
        assert [area.start for area in self.read(tmp_path, [lost, kept], [kept])] == [9 * PAGE]

    def test_grown_upwards(self, tmp_path: Path) -> None:
        (area,) = self.read(
            tmp_path,
            [FakeArea(start=PAGE, size=PAGE, pages={0: 1})],
            [FakeArea(start=PAGE, size=5 * PAGE)],
        )
        assert (area.start, area.end) == (PAGE, 6 * PAGE)

    def test_grown_downwards(self, tmp_path: Path) -> None:
        (area,) = self.read(
            tmp_path,
            [FakeArea(start=4 * PAGE, size=2 * PAGE, pages={0: 2})],
            [FakeArea(start=2 * PAGE, size=4 * PAGE)],
        )
        assert (area.start, area.end, area.residency) == (4 * PAGE, 6 * PAGE, {0: 2 * PAGE})

    def test_grown_downwards_in_a_file(self, tmp_path: Path) -> None:
        file = FakeArea(start=4 * PAGE, size=PAGE, pages={0: 1}, path="/x", offset=7 * PAGE)
        (area,) = self.read(
            tmp_path,
            [file],
            [dataclasses.replace(file, start=2 * PAGE, size=3 * PAGE, offset=5 * PAGE)],
        )
        assert (area.object_id, area.offset) == (ObjectId("254:0", 1), 7 * PAGE)

    def test_merged(self, tmp_path: Path) -> None:
        areas = self.read(
            tmp_path,
            [
                FakeArea(start=PAGE, size=PAGE, pages={0: 1}),
                FakeArea(start=2 * PAGE, size=3 * PAGE, pages={1: 3}),
            ],
            [FakeArea(start=PAGE, size=4 * PAGE)],
        )
        assert [(area.start, area.end) for area in areas] == [
            (PAGE, 2 * PAGE),
            (2 * PAGE, 5 * PAGE),
        ]

    def test_split(self, tmp_path: Path) -> None:
        (area,) = self.read(
            tmp_path,
            [FakeArea(start=PAGE, size=4 * PAGE, pages={0: 4})],
            [FakeArea(start=PAGE, size=2 * PAGE), FakeArea(start=3 * PAGE, size=2 * PAGE)],
        )
        assert (area.start, area.end, area.resident) == (PAGE, 5 * PAGE, 4 * PAGE)

    ranges = st.lists(st.integers(1, 40), max_size=12, unique=True).map(
        lambda cuts: [
            FakeArea(start=a * PAGE, size=(b - a) * PAGE, pages={0: b - a})
            for a, b in zip(*[iter(sorted(cuts))] * 2, strict=False)
        ]
    )

    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(ranges, ranges)
    def test_areas_never_overlap_whatever_changed(
        self, tmp_path: Path, before: list[FakeArea], after: list[FakeArea]
    ) -> None:
        try:
            areas = self.read(tmp_path, before, after)
        except ProcessGoneError:
            assert not before
            return
        assert all(area.start < area.end for area in areas)
        assert all(one.end <= two.start for one, two in pairwise(areas))

    def test_a_truncated_line(self, tmp_path: Path) -> None:
        area = FakeArea(start=PAGE, size=PAGE, pages={0: 1})
        write_process(tmp_path, 5, areas=[area])
        path = tmp_path / "proc/5/numa_maps"
        path.write_bytes(path.read_bytes() + b"00002000 default N0=")
        assert [found.start for found in read_areas(5, tmp_path)] == [PAGE]


class TestProcessesWithoutMemory:
    def test_no_process_with_the_number(self, tmp_path: Path) -> None:
        write_process(tmp_path, 5)
        with pytest.raises(ProcessGoneError, match="6"):
            read_areas(6, tmp_path)

    def test_a_zombie_is_gone(self, tmp_path: Path) -> None:
        write_process(tmp_path, 5, state="Z")
        with pytest.raises(ProcessGoneError, match="5"):
            read_areas(5, tmp_path)

    def test_one_that_is_just_exiting_is_gone(self, tmp_path: Path) -> None:
        write_process(tmp_path, 5, state="R")
        with pytest.raises(ProcessGoneError, match="5"):
            read_areas(5, tmp_path)

    def test_newer_kernels_fail_with_esrch(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write_process(tmp_path, 5, state="Z")
        write_process(tmp_path, 6, kernel_thread=True)
        read = Path.read_bytes

        def without_memory(path: Path) -> bytes:
            if path.name in ("numa_maps", "maps"):
                raise ProcessLookupError(3, "No such process", str(path))
            return read(path)

        monkeypatch.setattr(Path, "read_bytes", without_memory)
        with pytest.raises(ProcessGoneError, match="5"):
            read_areas(5, tmp_path)
        assert read_areas(6, tmp_path) == ()

    def test_a_kernel_thread_has_none(self, tmp_path: Path) -> None:
        write_process(tmp_path, 5, kernel_thread=True)
        assert read_areas(5, tmp_path) == ()

    def test_the_first_thread_has_exited_and_others_run_on(self, tmp_path: Path) -> None:
        area = FakeArea(start=PAGE, size=PAGE, pages={1: 1})
        write_process(tmp_path, 5, state="Z", threads={5: "Z", 6: "Z", 7: "S"}, areas=[area])
        assert residency(read_areas(5, tmp_path)) == {1: PAGE}
        with pytest.raises(ProcessGoneError):
            read_areas(5, tmp_path, task=6)


def test_no_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_process(tmp_path, 5, areas=[FakeArea(start=PAGE, size=PAGE, pages={0: 1})])

    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(NoPermissionError, match="proc/5/numa_maps") as caught:
        read_areas(5, tmp_path)
    assert len(str(caught.value).splitlines()) == 1


KERNELS = ["[vdso]", "[vvar]", "[vvar_vclock]", "[uprobes]", "[uprobes-trampoline]"]
"""Labels of mappings of the kernel's own pages."""


@pytest.mark.parametrize("many", [1000, 0])
@pytest.mark.parametrize("label", KERNELS)
def test_pages_of_the_kernel_are_none_of_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, label: str, many: int
) -> None:
    monkeypatch.setattr(areas, "_MANY", many)
    own = FakeArea(start=PAGE, size=PAGE, pages={0: 1})
    kernels = FakeArea(start=3 * PAGE, size=PAGE, pages={0: 1}, label=label)
    write_process(tmp_path, 5, areas=[own, kernels])
    for resident_only in (True, False):
        (found,) = read_areas(5, tmp_path, resident_only=resident_only)
        assert [*found.ranges] == [(PAGE, 2 * PAGE)]


def test_other_labels_hide_nothing(tmp_path: Path) -> None:
    for label in ("[heap]", "[stack]", "[anon:vvar]", "[shadow stack]"):
        assert residency(
            [only(tmp_path, FakeArea(start=PAGE, size=PAGE, pages={0: 1}, label=label))]
        )


def test_a_kernel_without_numa_has_everything_on_node_0(tmp_path: Path) -> None:
    areas = [
        FakeArea(start=PAGE, size=4 * PAGE, pages={0: 3}),
        FakeArea(start=9 * PAGE, size=PAGE, pages={0: 1}, path="/lib/x", mappers=2),
        FakeArea(start=11 * PAGE, size=PAGE),
    ]
    write_process(tmp_path, 5, areas=areas)
    (tmp_path / "proc/5/numa_maps").unlink()
    anon, file = read_areas(5, tmp_path)
    assert (anon.kind, anon.residency) == (MemoryKind.ANON, {0: 3 * PAGE})
    assert (file.kind, file.residency, file.path) == (MemoryKind.FILE, {0: PAGE}, "/lib/x")
    assert file.most_mappers > 1


def test_the_share_of_memory_that_other_processes_map(tmp_path: Path) -> None:
    areas = [
        FakeArea(start=PAGE, size=8 * PAGE, pages={0: 8}, path="/Rss: 1 kB", mappers=4),
        FakeArea(start=HUGE, size=HUGE, pages={0: 1}, page_size=HUGE, is_huge=True),
        FakeArea(start=0x7F0000000000, size=PAGE),
    ]
    write_process(tmp_path, 5, areas=areas)
    assert read_pss(5, tmp_path) == {
        PAGE: (8 * PAGE, 2 * PAGE),
        HUGE: (HUGE, HUGE),
        0x7F0000000000: (0, 0),
    }


class TestManyMappings:
    """A program with very many mappings; those of a few pages are joined."""

    @pytest.fixture(autouse=True)
    def few_are_many(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(areas, "_MANY", 0)

    def test_small_mappings_that_are_alike_are_one_area(self, tmp_path: Path) -> None:
        at = 0x7F0000000000
        starts = [at, at + PAGE, at + 2 * PAGE, at + 9 * PAGE, at + MIB + 9 * PAGE]
        pages = [{0: 1}, {1: 1}, {0: 1}, {}, {0: 1}]
        found = only(
            tmp_path,
            *(
                FakeArea(start=start, size=PAGE, pages=pages, policy="bind:0-1")
                for start, pages in zip(starts, pages, strict=True)
            ),
        )
        assert (found.start, found.end) == (at, starts[-1] + PAGE)
        assert found.residency == {0: 3 * PAGE, 1: PAGE}
        assert (found.kind, found.policy) == (MemoryKind.ANON, "bind:0-1")
        assert [*found.ranges] == [
            (at, at + 3 * PAGE),
            (at + 9 * PAGE, at + 10 * PAGE),
            (starts[-1], starts[-1] + PAGE),
        ]
        assert found.mapped == 5 * PAGE

    def test_without_gaps_there_are_no_parts(self, tmp_path: Path) -> None:
        small = [FakeArea(start=at * PAGE, size=PAGE, pages={0: 1}) for at in (1, 2, 3)]
        found = only(tmp_path, *small)
        assert (found.parts, found.mapped) == (None, 3 * PAGE)

    @pytest.mark.parametrize(
        "other",
        [
            FakeArea(start=2 * PAGE, size=PAGE, pages={0: 1}, policy="bind:0"),
            FakeArea(start=2 * PAGE, size=PAGE, pages={0: 1}, mappers=2),
            FakeArea(start=2 * PAGE, size=PAGE, pages={0: 1}, path="/lib/x"),
            FakeArea(start=2 * PAGE, size=PAGE, pages={0: 1}, path="/lib/x", anon=1),
            FakeArea(start=2 * PAGE, size=PAGE, pages={0: 1}, path="/dev/zero", is_shared=True),
            FakeArea(start=2 * PAGE, size=2 * MIB, pages={0: 1}),
            FakeArea(start=HUGE, size=HUGE, pages={0: 1}, page_size=HUGE, is_huge=True),
            FakeArea(start=2 * MIB, size=PAGE, pages={0: 1}),
        ],
    )
    def test_others_stay_apart(self, tmp_path: Path, other: FakeArea) -> None:
        small = FakeArea(start=PAGE, size=PAGE, pages={0: 1})
        after = dataclasses.replace(small, start=8 * MIB)
        write_process(tmp_path, 5, areas=[small, other, after])
        assert [area.start for area in read_areas(5, tmp_path)] == [PAGE, other.start, 8 * MIB]
        assert [area.parts for area in read_areas(5, tmp_path)] == [None] * 3

    def test_the_caller_can_ask_for_each(self, tmp_path: Path) -> None:
        small = [FakeArea(start=at * PAGE, size=PAGE, pages={0: 1}) for at in (1, 2, 4)]
        write_process(tmp_path, 5, areas=small)
        assert len(read_areas(5, tmp_path)) == 1
        assert [area.start // PAGE for area in read_areas(5, tmp_path, join=False)] == [1, 2, 4]

    mappings = st.lists(
        st.tuples(
            st.sampled_from([0, 1, 1, 7, 300]),
            st.sampled_from([1, 1, 2, 9, 300]),
            st.dictionaries(st.integers(0, 2), st.integers(1, 3), max_size=2),
            st.sampled_from(["default", "default", "bind:0"]),
            st.sampled_from(["", "", "", "/lib/x"]),
            st.sampled_from([1, 1, 2]),
        ),
        max_size=40,
    )

    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(mappings, st.booleans())
    def test_joined_or_not_the_memory_is_the_same(
        self, tmp_path: Path, mappings: list[tuple[Any, ...]], resident_only: bool
    ) -> None:
        made, at = [], 1
        for gap, size, pages, policy, path, mappers in mappings:
            start = at + gap
            at = start + size
            made.append(
                FakeArea(
                    start=start * PAGE,
                    size=size * PAGE,
                    pages={
                        node: min(count, size // 2) for node, count in pages.items() if size > 1
                    },
                    policy=policy,
                    path=path,
                    mappers=mappers,
                )
            )
        write_process(tmp_path, 5, areas=made or [FakeArea(start=PAGE, size=PAGE)])
        how: dict[str, bool] = {"resident_only": resident_only}
        joined = read_areas(5, tmp_path, **how)
        each = read_areas(5, tmp_path, join=False, **how)
        assert all(one.end <= two.start for one, two in pairwise(joined))
        for policy in ("default", "bind:0"):
            for kind in (MemoryKind.ANON, MemoryKind.FILE):
                assert residency(
                    area for area in joined if (area.policy, area.kind) == (policy, kind)
                ) == residency(area for area in each if (area.policy, area.kind) == (policy, kind))
        apart = [bounds for area in each for bounds in area.ranges]
        together = [bounds for area in joined for bounds in area.ranges]
        assert [*Extents(together)] == [*Extents(apart)]
