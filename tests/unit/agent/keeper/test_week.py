"""A week of a thousand jobs on eight nodes, decided by the agent's own code."""

from __future__ import annotations

from benchmarks.local_week import GIB, MOST_MOVED, MOST_OFF_NODE, simulate


def test_a_week_of_a_thousand_jobs() -> None:
    without, kept = simulate()
    assert without.off_node > 1000 * GIB * 3600.0, "there is something to gain"
    assert kept.off_node <= MOST_OFF_NODE * without.off_node
    assert kept.moved <= MOST_MOVED * kept.arrived
    assert 0 < kept.avoided <= without.off_node
    assert kept.bound > 0, "what policies bind stays"
