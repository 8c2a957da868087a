"""The memory policies of threads, read from the beginning of their numa_maps."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import pytest

from schedhook.host import policies
from schedhook.host.areas import read_areas
from schedhook.host.policies import read_thread_policies
from schedhook.testing.hosts import PAGE, FakeArea, write_file, write_process

TEXT = FakeArea(start=16 * PAGE, size=PAGE, path="/bin/app", pages={0: 1})
HEAP = FakeArea(start=32 * PAGE, size=PAGE, pages={0: 1})


def read(root: Path) -> dict[int, str]:
    found = read_thread_policies(5, read_areas(5, root), root)
    return {thread: str(policy) for thread, policy in found.items()}


def write_threads(root: Path, texts: dict[int, str], areas: list[FakeArea]) -> None:
    write_process(root, 5, areas=areas, threads=dict.fromkeys(texts, "S"))
    for thread, text in texts.items():
        write_file(root, f"proc/5/task/{thread}/numa_maps", text)


def numa_maps(policy: str, *own: str) -> str:
    areas = "".join(f"{(at + 1) * PAGE:08x} {text} anon=1 N0=1\n" for at, text in enumerate(own))
    return areas + f"{TEXT.start:08x} {policy} file=/bin/app N0=1\n{HEAP.start:08x} {policy}\n"


def test_each_thread_has_its_own(tmp_path: Path) -> None:
    texts = {
        5: numa_maps("default"),
        6: numa_maps("bind:0"),
        7: numa_maps("weighted interleave:0-1"),
        8: numa_maps("unknown"),
    }
    write_threads(tmp_path, texts, [TEXT, HEAP])
    assert read(tmp_path) == {
        5: "default",
        6: "bind:0",
        7: "weighted interleave:0-1",
        8: "None",
    }


def test_an_area_with_a_policy_of_its_own_below_the_program_does_not_count(tmp_path: Path) -> None:
    own = [FakeArea(start=(at + 1) * PAGE, size=PAGE, policy="bind:3") for at in range(10)]
    texts = {
        5: numa_maps("default", *["bind:3"] * 10),
        6: numa_maps("prefer:1", *["bind:3"] * 10),
    }
    write_threads(tmp_path, texts, [*own, TEXT, HEAP])
    assert read(tmp_path) == {5: "default", 6: "prefer:1"}


def test_a_thread_that_has_exited_has_none(tmp_path: Path) -> None:
    write_threads(tmp_path, {5: numa_maps("bind:0"), 6: ""}, [TEXT])
    (tmp_path / "proc/5/task/7").mkdir()
    assert read(tmp_path) == {5: "bind:0"}


def test_one_thread_costs_no_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_process(tmp_path, 5, areas=[FakeArea(start=PAGE, size=PAGE, policy="bind:2")])
    monkeypatch.setattr(os, "open", None)
    assert read(tmp_path) == {5: "bind:2"}


def test_little_is_read_of_each_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    far = "".join(f"{HEAP.start + at * PAGE:08x} default anon=1 N0=1\n" for at in range(1, 5000))
    texts = {5: numa_maps("default") + far, 6: numa_maps("bind:0") + far}
    write_threads(tmp_path, texts, [TEXT, HEAP])
    real, total = os.read, 0

    def count(file: int, size: int) -> bytes:
        nonlocal total
        data = real(file, size)
        total += len(data)
        return data

    monkeypatch.setattr(os, "read", count)
    assert read(tmp_path) == {5: "default", 6: "bind:0"}
    assert total <= 2 * 256


def test_what_takes_too_long_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_threads(tmp_path, dict.fromkeys(range(5, 9), numa_maps("bind:0")), [TEXT])
    step = (policies._SECONDS + 4 * policies._SECONDS_EACH) / 2.5
    monkeypatch.setattr(policies.time, "monotonic", itertools.count(0.0, step).__next__)
    assert read(tmp_path) == {5: "bind:0", 6: "bind:0", 7: "None", 8: "None"}


def test_a_mapping_without_pages_is_an_area_if_it_has_a_policy(tmp_path: Path) -> None:
    bound = FakeArea(start=64 * PAGE, size=4 * PAGE, policy="bind:1")
    empty = FakeArea(start=96 * PAGE, size=PAGE)
    write_process(tmp_path, 5, areas=[TEXT, bound, empty])
    assert [area.start for area in read_areas(5, tmp_path)] == [TEXT.start, bound.start]
