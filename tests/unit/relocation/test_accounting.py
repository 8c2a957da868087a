"""Every byte is moved or has a reason, whatever the map, and whatever stays."""

from __future__ import annotations

import errno
import sys

from hypothesis import given
from hypothesis import strategies as st

from schedhook.backends.simulated import PAGE, SimulatedArea, SimulatedBackend
from schedhook.values.model import Outcome, Report
from tests.unit.relocation.simulation import AT, STRATEGIES, host, run

NODES = st.integers(0, 3)
PAGES = st.lists(NODES, min_size=1, max_size=12)
MAPS = st.dictionaries(NODES, NODES, min_size=1).filter(
    lambda pairs: any(old != new for old, new in pairs.items())
)
OBSTACLES = st.dictionaries(
    st.integers(0, 11),
    st.sampled_from(["hidden", "hidden at first", "busy", "busy at first", "shared"]),
    max_size=6,
)
STAYS = {"hidden": "hidden", "busy": "EBUSY", "shared": "shared"}


def put_in_the_way(backend: SimulatedBackend, page: int, obstacle: str) -> None:
    address = AT + page * PAGE
    match obstacle:
        case "hidden" | "hidden at first":
            backend.hide(100, address, 1 if obstacle.endswith("first") else sys.maxsize)
        case "busy":
            backend.fail(100, address, always=errno.EBUSY)
        case "busy at first":
            backend.fail(100, address, [errno.EBUSY])
        case "shared":
            backend.fail(100, address, always=errno.EACCES)


def places(backend: SimulatedBackend, pages: int) -> list[int]:
    """Return the node of each page, from the simulated memory itself."""
    with backend.attach(100) as target:
        (area,) = target.areas()
        runs = target.locate(area, area.start, area.end)
        return [
            next(run.node for run in runs if run.start <= AT + page * PAGE < run.end)
            for page in range(pages)
        ]


@given(PAGES, MAPS, OBSTACLES, st.sampled_from(STRATEGIES), st.booleans(), st.booleans())
def test_every_page_moves_or_has_a_reason(
    pages: list[int],
    pairs: dict[int, int],
    obstacles: dict[int, str],
    strategy: str,
    gentle: bool,
    common: bool,
) -> None:
    """Also if a second process maps the same memory."""
    backend = host(pages, name="common" if common else "")
    if common:
        backend.add_process(101, areas=[SimulatedArea(start=AT, nodes=pages, name="common")])
    obstacles = {page: what for page, what in obstacles.items() if page < len(pages)}
    for page, obstacle in obstacles.items():
        put_in_the_way(backend, page, obstacle)
    text = ",".join(f"{old}:{new}" for old, new in pairs.items())
    pids = (100, 101) if common else (100,)
    report = run(backend, pids=pids, node_map=text, strategy=strategy, gentle=gentle)
    stayed = dict[str, int]()
    for page, (before, after) in enumerate(zip(pages, places(backend, len(pages)), strict=True)):
        wanted = pairs.get(before, before)
        assert after in (before, wanted)
        if after != wanted:
            reason = STAYS[obstacles[page]]
            stayed[reason] = stayed.get(reason, 0) + PAGE
    assert report.left_by_reason == stayed
    assert report.bytes_moved == PAGE * sum(pairs.get(node, node) != node for node in pages) - sum(
        stayed.values()
    )
    assert_has_reasons(report)


def assert_has_reasons(report: Report) -> None:
    """No report is partial without saying what stayed, in JSON and in its line for people."""
    assert report.bytes_left == sum(report.left_by_reason.values())
    if report.outcome is Outcome.PARTIAL:
        assert report.left_by_reason
        assert all(reason in report.summary() for reason in report.left_by_reason)
