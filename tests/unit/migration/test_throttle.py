"""How many threads move memory, and on which processors."""

from __future__ import annotations

import os
import threading
import time
from itertools import pairwise

import pytest

from schedhook.migration.throttle import MOST_THREADS, Throttle, choose_threads
from schedhook.values.extents import Extents
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


def test_the_slowest_rate_waits_as_long_as_a_clock_can(monkeypatch: pytest.MonkeyPatch) -> None:
    slept = list[float]()
    monkeypatch.setattr(time, "sleep", slept.append)
    Throttle(1e-300).spend(2 << 20)
    assert slept == [threading.TIMEOUT_MAX]


def test_a_throttle_keeps_to_its_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    now, slept = 100.0, list[float]()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    monkeypatch.setattr(time, "sleep", slept.append)
    throttle = Throttle(8 << 20)
    for _ in range(3):
        throttle.spend(4 << 20)
    assert slept == [0.5, 1.0, 1.5]


def test_a_throttle_cuts_where_it_may() -> None:
    folio = 512 << 20

    def boundary(address: int) -> int:
        return -(-address // folio) * folio

    pieces = list(Throttle(20e6).pieces(folio // 2, 3 * folio, boundary, folio))
    assert pieces == [(folio // 2, folio), (folio, 2 * folio), (2 * folio, 3 * folio)]
    pieces = list(Throttle(4 << 20).pieces(0, (2 << 20) + 5, anywhere, 1))
    assert pieces == [(0, 1 << 20), (1 << 20, 2 << 20), (2 << 20, (2 << 20) + 5)]
    assert list(Throttle(0).pieces(0, 6 * folio, boundary, folio)) == [(0, 6 * folio)]


def test_a_throttle_counts_only_what_is_to_move() -> None:
    huge = 2 << 20
    far = 1 << 46
    only = Extents([(huge, 2 * huge), (far, far + huge), (far + 3 * huge, far + 6 * huge)])
    pieces = list(Throttle(8 * huge).pieces(huge, far + 6 * huge, anywhere, 1, only))
    assert pieces == [
        (huge, far + 3 * huge),
        (far + 3 * huge, far + 5 * huge),
        (far + 5 * huge, far + 6 * huge),
    ]
    for rate in (huge, 9 * huge, 400 * huge):
        pieces = list(Throttle(rate).pieces(huge, far + 6 * huge, anywhere, 1, only))
        assert (pieces[0][0], pieces[-1][1]) == (huge, far + 6 * huge)
        assert all(one[1] == two[0] for one, two in pairwise(pieces))
        most = max(only.overlap(*piece) for piece in pieces)
        assert most <= max(huge, rate / 4)


@pytest.mark.parametrize("sees_folios", [True, False])
def test_a_throttle_cuts_no_folio_that_has_a_hole(sees_folios: bool) -> None:
    """Folios of 16 pages; of the second, pages in the middle are unmapped."""
    page, folio = 4096, 16 * 4096
    counted = Extents([(0, folio + page), (folio + 9 * page, 2 * folio), (3 * folio, 4 * folio)])

    def boundary(address: int) -> int:
        beside = counted.overlap(address - page, address + page)
        return -(-address // folio) * folio if beside or not sees_folios else address

    pieces = list(Throttle(4 * 18 * page).pieces(0, 4 * folio, boundary, folio, counted))
    assert pieces == [(0, 3 * folio), (3 * folio, 4 * folio)]


@pytest.mark.parametrize("first", [0, 1])
def test_scattered_pages_are_cut_at_least_where_the_largest_pages_end(first: int) -> None:
    """Each second page: without the right to see folios, two neighbours can be of one."""
    page, folio = 4096, 16 * 4096
    counted = Extents((at * page, (at + 1) * page) for at in range(first, 16 * 100, 2))

    def boundary(address: int) -> int:
        return -(-address // folio) * folio

    pieces = list(Throttle(4 * 4 * page).pieces(0, 100 * folio, boundary, folio, counted))
    assert len(pieces) == 100
    assert {counted.overlap(*piece) for piece in pieces} == {8 * page}


def anywhere(address: int) -> int:
    return address
