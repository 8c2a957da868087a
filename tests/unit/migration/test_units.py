"""Node maps whose old and new nodes overlap, and any others."""

from __future__ import annotations

import errno

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schedhook.backends.simulated import PAGE, SimulatedArea, SimulatedBackend
from schedhook.values.model import Outcome
from tests.unit.relocation.simulation import AT, QUICK, STRATEGIES, host, residency, run


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_swap_is_a_swap(strategy: str) -> None:
    backend = host([0] * 30 + [1] * 10, [1, 0] * 6)
    report = run(backend, strategy=strategy, node_map="0:1,1:0")
    assert report.outcome is Outcome.COMPLETE
    assert residency(backend) == {1: 36, 0: 16}
    assert bool(report.notes) == (strategy == "migrate-process")


def test_a_swap_of_shared_memory_happens_once() -> None:
    backend = SimulatedBackend()
    for pid in (100, 101):
        backend.add_process(
            pid, areas=[SimulatedArea(start=AT, nodes=[0] * 9 + [1] * 4, name="segment")]
        )
    report = run(backend, pids=(100, 101), node_map="0:1,1:0")
    assert report.outcome is Outcome.COMPLETE
    assert residency(backend) == {1: 9, 0: 4}


@given(
    pages=st.lists(st.sampled_from([None, 0, 1, 2, 3]), min_size=1, max_size=60),
    targets=st.lists(st.integers(0, 3), min_size=4, max_size=4),
    failing=st.dictionaries(st.integers(0, 59), st.lists(st.just(errno.EBUSY), max_size=4)),
    strategy=st.sampled_from(STRATEGIES),
)
@settings(max_examples=150)
def test_any_map_moves_every_page_as_it_says(
    pages: list[int | None], targets: list[int], failing: dict[int, list[int]], strategy: str
) -> None:
    backend = host(pages)
    stubborn = 0
    for index, errnos in failing.items():
        if index < len(pages) and pages[index] is not None:
            backend.fail(100, AT + index * PAGE, errnos)
            stubborn += (
                len(errnos) >= QUICK.retry.attempts and targets[pages[index]] != pages[index]
            )
    report = run(
        backend, strategy=strategy, node_map=",".join(f"{o}:{n}" for o, n in enumerate(targets))
    )
    with backend.attach(100) as target:
        (area,) = target.areas() or (None,)
        where = {
            run.start + offset: run.node
            for run in (target.locate(area, area.start, area.end) if area else ())
            for offset in range(0, run.end - run.start, PAGE)
        }
    wrong = [
        index
        for index, node in enumerate(pages)
        if node is not None and where[AT + index * PAGE] != targets[node]
    ]
    assert len(wrong) * PAGE == report.bytes_left
    if strategy == "move-pages":
        assert len(wrong) == stubborn
    assert (report.outcome is Outcome.PARTIAL) == bool(wrong)
