"""contrib/slurm's hooks under a real slurmd: they deliver, and never drain a host."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from schedhook import delivery
from schedhook.events import parse_message, read_event, read_spool
from schedhook.model import Event
from schedhook_plugins.schedulers.slurm import Slurm
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


def remove_schedhook(hooks: Path) -> None:
    for path in hooks.iterdir():
        path.write_text(path.read_text().replace("/hook.py", "/nowhere.py"))


def remove_python(hooks: Path) -> None:
    for path in hooks.iterdir():
        path.write_text(path.read_text().replace(sys.executable, "/nowhere/python3"))


def hang(hooks: Path) -> None:
    """A Python that never gets anywhere, and does not listen."""
    deaf = hooks.parent / "deaf"
    deaf.write_text("#!/bin/sh\ntrap '' TERM\nwhile :; do sleep 1; done\n")
    deaf.chmod(0o755)
    for path in hooks.iterdir():
        path.write_text(path.read_text().replace(sys.executable, str(deaf)))


def fill_the_spool(_hooks: Path) -> None:
    SPOOL.mkdir(mode=0o700, parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8k,mode=700", "none", SPOOL], check=True)
    with pytest.raises(OSError, match="No space"), (SPOOL / "full").open("wb", 0) as file:
        while True:
            file.write(b"x" * 4096)


def give_the_spool_away(_hooks: Path) -> None:
    SPOOL.mkdir(mode=0o777, parents=True)
    shutil.chown(SPOOL, USER_ID, USER_ID)


@pytest.mark.parametrize(
    "break_it", [remove_schedhook, remove_python, hang, fill_the_spool, give_the_spool_away]
)
def test_whatever_breaks_the_job_runs_and_no_host_is_drained(
    cluster: Cluster, hooks: Path, break_it: Callable[[Path], None]
) -> None:
    try:
        break_it(hooks)
        assert cluster.run("srun echo $((6 * 7))", "-n1", "-w", "n1").split() == ["42"]
        wait_until(lambda: cluster.host_state("n1") == "IDLE", 60, "the epilog", cluster.diagnosis)
    finally:
        subprocess.run(["umount", "-q", SPOOL], check=False)


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
