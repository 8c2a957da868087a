"""Where the moving threads run, and what tells nodes from frames."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from schedhook.host.frames import node_spans
from schedhook.migration.throttle import MOST_THREADS, choose_threads
from schedhook.values.sets import CpuSet


def cpus(text: str) -> CpuSet:
    return CpuSet.parse(text)


@pytest.mark.parametrize(
    ("wanted", "new", "old", "threads", "where"),
    [
        (0, "4-7", "0-3", 4, "4-7"),
        (2, "4-7", "0-3", 2, "4-7"),
        (6, "4-7", "0-3", 6, "0-7"),
        (20, "4-7", "0-3", 20, ""),
        (0, "0-63", "", MOST_THREADS, "0-63"),
        (0, "100-103", "0-3", 4, "0-3"),
    ],
)
def test_threads_stay_on_the_jobs_processors(
    monkeypatch: pytest.MonkeyPatch, wanted: int, new: str, old: str, threads: int, where: str
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    assert choose_threads(wanted, cpus(new), cpus(old)) == (threads, cpus(where))


def zone(node: int, name: str, spanned: int, start: int) -> str:
    return (
        f"Node {node}, zone {name:>8}\n  pages free     5\n        spanned  {spanned}\n"
        f"        present  {spanned}\n  node_unreclaimable:  0\n  start_pfn:           {start}\n"
    )


def host(root: Path, *zones: str) -> Path:
    (root / "proc").mkdir()
    (root / "proc/zoneinfo").write_text("".join(zones))
    return root


def test_zones_tell_the_nodes_of_frames(tmp_path: Path) -> None:
    root = host(
        tmp_path, zone(0, "DMA", 4095, 1), zone(0, "DMA32", 1000, 4096), zone(0, "Movable", 0, 0),
        zone(1, "Normal", 5000, 8192),
    )  # fmt: skip
    assert node_spans(root) == [(1, 4096, 0), (4096, 5096, 0), (8192, 13192, 1)]


def test_a_zone_within_another_of_its_node(tmp_path: Path) -> None:
    root = host(
        tmp_path, zone(0, "Normal", 4096, 0), zone(1, "Normal", 8192, 4096),
        zone(1, "Movable", 1024, 6144), zone(2, "Normal", 100, 12288),
    )  # fmt: skip
    assert node_spans(root) == [(0, 4096, 0), (4096, 12288, 1), (12288, 12388, 2)]


def test_interleaved_nodes_are_not_told(tmp_path: Path) -> None:
    assert node_spans(host(tmp_path, zone(0, "Normal", 100, 1), zone(1, "Normal", 100, 50))) == []


def test_no_zoneinfo(tmp_path: Path) -> None:
    assert node_spans(tmp_path) == []
