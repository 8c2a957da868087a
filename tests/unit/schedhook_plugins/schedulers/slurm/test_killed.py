"""job-migrate's records in the journal are complete, although it is killed at random moments."""

from __future__ import annotations

import os
import random
import signal
import time
from dataclasses import replace
from pathlib import Path

from schedhook.journal.journal import Journal
from schedhook.roles.scheduler import Task
from schedhook.values.model import PlacementOverride
from schedhook_plugins.schedulers.slurm.adapter import HostJobs
from schedhook_plugins.schedulers.slurm.migrate import JobMove
from schedhook_plugins.schedulers.slurm.override import OverrideRecorder
from tests.unit.agentkit import homes
from tests.unit.schedhook_plugins.schedulers.slurm.job_host import place

KILLS = int(os.environ.get("SCHEDHOOK_KILLS", "100"))


def record_moves(path: Path, started: int) -> None:
    """Record, without end, moves from 0 to 2 and back, each after one that is refused.

    Write a byte to the descriptor `started` before the first one.
    """
    with Journal.open(path) as journal:
        override = journal.overrides.get("slurm", "7")
        assert override is not None
        # An interrupted move is finished first, at the placement that it was going to.
        with journal.transaction():
            journal.overrides.set("slurm", "7", replace(override, leaving=None))
            journal.placements.record("slurm", "7", {"0.0": override.placement})
        new = str(override.placement.cpus)
        os.write(started, b"x")
        while True:
            old, new = new, "2" if new == "0" else "0"
            before, after = (
                (Task(name="0.0", pids=(1,), placement=place(each)),) for each in (old, new)
            )
            move = JobMove(job="7", old=place(old), new=place(new), before=before, after=after)
            refused = replace(move, new=place("3"), after=before, failure="no room")
            for each in (refused, move):
                recorder = OverrideRecorder(journal, HostJobs(path.parent), "7")
                recorder.begin(each)
                recorder.end(each)


def test_a_kill_leaves_the_old_override_or_the_new_one_with_its_homes(tmp_path: Path) -> None:
    chance = random.Random(os.environ.get("SCHEDHOOK_SEED", "1"))
    path = tmp_path / "state" / "journal.db"
    under_way = 0
    with Journal.open(path) as journal:
        override = PlacementOverride(was=place("0"), placement=place("2"))
        journal.overrides.set("slurm", "7", override)
        journal.placements.record("slurm", "7", {"0.0": place("2")})
    begun, started = os.pipe()
    for _ in range(KILLS):
        process = os.fork()
        if not process:
            try:
                record_moves(path, started)
            finally:
                os._exit(1)
        os.read(begun, 1)
        time.sleep(chance.uniform(0, 0.04))
        os.kill(process, signal.SIGKILL)
        assert os.WIFSIGNALED(os.waitpid(process, 0)[1])
        with Journal.open(path) as journal:
            found, home = journal.overrides.get("slurm", "7"), homes(journal, "slurm", "7")["0.0"]
        assert found is not None
        assert found.was == place("0")
        under_way += found.under_way
        assert home.cpus == (found.leaving or found.placement.cpus)
    print(f"{KILLS} killed, {under_way} of them between beginning and end")
    assert 0 < under_way < KILLS
