"""Plans, and what refuses them."""

from __future__ import annotations

from schedhook.backends.simulated import PAGE
from schedhook.values.model import Outcome
from schedhook.values.report_json import report_to_dict
from tests.unit.relocation.simulation import host, residency, run


def test_a_plan_that_does_not_fit_is_refused_with_the_numbers() -> None:
    backend = host([0] * 100)
    report = run(backend, reserve=(1 << 30) - 50 * PAGE)
    assert report.outcome is Outcome.REFUSED
    assert "node 2 has no room: 0.4 MiB would arrive, 1024.0 MiB are free" in report.notes[0]
    assert residency(backend) == {0: 100}


def test_a_swap_of_full_nodes_fits() -> None:
    backend = host([0] * 100 + [1] * 100)
    report = run(backend, node_map="0:1,1:0", reserve=(1 << 30) - 150 * PAGE)
    assert report.outcome is Outcome.COMPLETE


def test_a_dry_run_plans_and_moves_nothing() -> None:
    backend = host([0] * 10)
    report = run(backend, dry_run=True)
    assert report.outcome is Outcome.PLANNED
    assert report.plan is not None
    assert report.plan.moves == {(0, 2): 10 * PAGE}
    assert report_to_dict(report)["plan"]["moves"] == [{"from": 0, "to": 2, "bytes": 10 * PAGE}]
    assert residency(backend) == {0: 10}
