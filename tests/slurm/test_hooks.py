"""contrib/slurm's hooks under a real slurmd: they deliver. test_faults.py has what may be wrong."""

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
def test_a_job_is_told_of_from_its_start_to_its_end(cluster: Cluster) -> None:
    """No agent runs, so what root's hooks say waits in the spool; a user's cannot go there."""
    assert cluster.run("srun echo $((6 * 7))", "-n2", "-w", "n2").split() == ["42", "42"]
    wait_until(lambda: len(spooled()) >= 2, 30, "the epilog", cluster.diagnosis)
    told = [(event.point, event.job, event.user, event.host) for event in spooled()]
    job = told[0][1]
    assert told == [("prolog", job, USER_ID, "n2"), ("epilog", job, USER_ID, "n2")]


def test_a_prolog_that_fails_would_drain_the_host(cluster: Cluster) -> None:
    """What the others guard against does happen on this Slurm."""
    cluster.reconfigure(Prolog="/bin/false")
    try:
        cluster.submit("true", "-n1", "-w", "n1")
        wait_until(lambda: cluster.is_drained("n1"), 60, "the host to be drained")
    finally:
        cluster.reconfigure()
        cluster.cancel_all()
        cluster.undrain("n1")
        wait_until(lambda: not cluster.is_drained("n1"), 30, "the host to come back")
