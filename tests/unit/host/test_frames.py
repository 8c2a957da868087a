"""Nodes of page frames, read from /proc/zoneinfo."""

from __future__ import annotations

from pathlib import Path

from schedhook.host.frames import node_spans


def zone(node: int, name: str, spanned: int, start: int) -> str:
    return (
        f"Node {node}, zone {name:>8}\n  pages free     5\n        spanned  {spanned}\n"
        f"        present  {spanned}\n  node_unreclaimable:  0\n  start_pfn:           {start}\n"
    )


def host(root: Path, *zones: str) -> Path:
    (root / "proc").mkdir()
    (root / "proc/zoneinfo").write_text("".join(zones))
    return root


def test_zones_give_the_nodes_of_frames(tmp_path: Path) -> None:
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


def test_interleaved_nodes_give_no_spans(tmp_path: Path) -> None:
    assert node_spans(host(tmp_path, zone(0, "Normal", 100, 1), zone(1, "Normal", 100, 50))) == []


def test_no_zoneinfo(tmp_path: Path) -> None:
    assert node_spans(tmp_path) == []
