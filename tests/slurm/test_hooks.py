"""contrib/slurm's hooks deliver events under a real slurmd. test_faults.py tests their failures."""

from __future__ import annotations

from pathlib import Path

import pytest

from schedhook.agent.events import read_event
from schedhook.hook import delivery
from schedhook.hook.message import parse_message
from schedhook.hook.spool import read_spool
from schedhook.values.model import Event
from schedhook_plugins.schedulers.slurm.scheduler import Slurm
from tests.slurm.cluster import USER_ID, Cluster, wait_until

SPOOL = Path(delivery.SPOOL)


def spooled() -> list[Event]:
    messages = (parse_message(raw) for _, raw in read_spool(SPOOL))
    return [read_event(message, Slurm()) for message in messages]


@pytest.mark.usefixtures("hooks")
def test_a_jobs_start_and_end_become_events(cluster: Cluster) -> None:
    """No agent runs, so root's hooks write to the spool, which a user's hook cannot do."""
    assert cluster.run("srun echo $((6 * 7))", "-n2", "-w", "n2").split() == ["42", "42"]
    wait_until(lambda: len(spooled()) >= 2, 30, "the epilog", cluster.diagnosis)
    events = [(event.point, event.job, event.user, event.host) for event in spooled()]
    job = events[0][1]
    assert events == [("prolog", job, USER_ID, "n2"), ("epilog", job, USER_ID, "n2")]


def test_a_prolog_that_fails_would_drain_the_host(cluster: Cluster) -> None:
    """Without this the tests that expect no drained host would prove nothing."""
    cluster.reconfigure(Prolog="/bin/false")
    try:
        cluster.submit("true", "-n1", "-w", "n1")
        wait_until(lambda: cluster.is_drained("n1"), 60, "the host to be drained")
    finally:
        cluster.reconfigure()
        cluster.cancel_all()
        cluster.undrain("n1")
        wait_until(lambda: not cluster.is_drained("n1"), 30, "the host to come back")
