"""Policies that a relocation leaves: by default, in a plan, and where they cannot be rewritten."""

from __future__ import annotations

import os

import pytest

from schedhook.values.policy import PolicyMode
from tests.numa.bound import THREADS, Run, bound, nodes_of

pytestmark = pytest.mark.nodes(4)


def test_policies_are_left_by_default(run: Run) -> None:
    with bound(PolicyMode.BIND, {0}) as program:
        run("relocate", "--pid", program.pid, "--map", "0:2")
        assert nodes_of(program.ask("threads")) == {0}


def test_a_plan_rebinds_nothing(run: Run) -> None:
    with bound(PolicyMode.BIND, {0}) as program:
        run("plan", "--pid", program.pid, "--map", "0:2", "--policies", "rebind")
        assert nodes_of(program.ask("threads")) == {0}


@pytest.mark.skipif(os.uname().machine == "x86_64", reason="policies are rewritten on x86-64")
def test_where_policies_cannot_be_rewritten_the_report_says_so(run: Run) -> None:
    with bound(PolicyMode.BIND, {0}) as program:
        words = ("--pid", program.pid, "--map", "0:2", "--policies", "rebind")
        status, report = run("relocate", *words)
        assert (status, report["outcome"]) == (0, "complete"), report
        assert report["policies_left"]["threads"] >= THREADS
        assert report["policies_left"]["bytes"] >= report["bytes_moved"]
        assert any("only x86-64 is supported" in note for note in report["notes"]), report
        assert nodes_of(program.ask("threads")) == {0}
