"""Whether off-node memory comes home now, and why not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from schedhook.agent.keeper.decision import Limits, Situation, Verdict, decide
from schedhook.values.sizes import GIB, MIB

HOUR = 3600.0
FULL = Situation(off_node=GIB, resident=2 * GIB, fitting=GIB, remaining=HOUR)
FREE = Limits(rate=500e6)


def test_memory_comes_home_if_there_is_room_and_time() -> None:
    decision = decide(FULL, FREE)
    assert decision.verdict is Verdict.MOVE
    assert "1024.0 MiB off-node (50%)" in decision.why
    assert "2.1 s at 500 MB/s against a gain of 360.0 s (3600 s left)" in decision.why


@pytest.mark.parametrize(
    ("change", "verdict", "said"),
    [
        ({"off_node": 0}, Verdict.AT_HOME, "no memory that is worth a move"),
        ({"off_node": 0, "bound": GIB, "details": "bind:1"}, Verdict.POLICY, "bind:1"),
        ({"remaining": 30.0}, Verdict.ENDING, "the job ends in 30 s"),
        ({"remaining": None, "age": 20.0}, Verdict.YOUNG, "has run for 20 s only"),
        ({"fitting": 0, "details": "node 0 is full"}, Verdict.NO_ROOM, "node 0 is full"),
        ({"resident": 400 * GIB}, Verdict.COST, "does not pay"),
        ({"resident": 400 * GIB, "remaining": None, "age": HOUR}, Verdict.COST, "its age"),
    ],
)
def test_memory_is_left_alone(change: dict[str, object], verdict: Verdict, said: str) -> None:
    decision = decide(replace(FULL, **change), FREE)  # type: ignore[arg-type]
    assert (decision.verdict, said in decision.why) == (verdict, True), decision.why
    assert decision.again > 0


@pytest.mark.parametrize(
    ("change", "verdict", "said"),
    [
        ({"wait": 300.0, "failures": 2}, Verdict.LEAVES, "2 times in a row; left alone for 300 s"),
        ({"job_left": 100 * MIB}, Verdict.JOB_BUDGET, "100.0 MiB may still move today"),
        ({"host_left": -5}, Verdict.HOST_BUDGET, "0.0 MiB may still move today for this host"),
        ({"rate": 1e5}, Verdict.COST, "10737.4 s at 0 MB/s"),
    ],
)
def test_limits_hold(change: dict[str, object], verdict: Verdict, said: str) -> None:
    decision = decide(FULL, replace(FREE, **change))  # type: ignore[arg-type]
    assert (decision.verdict, said in decision.why) == (verdict, True), decision.why


def test_a_part_that_fits_comes_home() -> None:
    decision = decide(replace(FULL, fitting=100 * MIB), replace(FREE, job_left=100 * MIB))
    assert decision.verdict is Verdict.MOVE
    assert "100.0 MiB come home" in decision.why
