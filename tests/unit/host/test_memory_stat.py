"""What cgroups are charged for, by node."""

from __future__ import annotations

import mmap

import pytest

from schedhook.host.memory_stat import parse_process_memory

V2 = """anon N0=4096 N1=8192
file N0=1000000 N1=0
shmem N0=0 N1=4096
file_mapped N0=12288 N1=0
"""
V1 = """total=30 N0=20 N1=10
anon=5 N0=5 N1=0
hierarchical_total=90 N0=50 N1=40
hierarchical_anon=7 N0=5 N1=2
"""


def test_mapped_shared_memory_counts_once() -> None:
    assert parse_process_memory(V2) == {0: 4096 + 12288, 1: 8192 + 4096}


def test_version_1_counts_pages_of_all_below() -> None:
    assert parse_process_memory(V1) == {0: 5 * mmap.PAGESIZE, 1: 2 * mmap.PAGESIZE}


@pytest.mark.parametrize("text", ["", "\n", "anon", "anon N0", "anon N0=x", "anon 0=5", "anon N=5"])
def test_what_is_no_figure_is_left_out(text: str) -> None:
    assert parse_process_memory(text) == {}
