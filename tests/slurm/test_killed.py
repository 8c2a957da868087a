"""job-migrate is killed at random moments, and the agent finishes what it began."""

from __future__ import annotations

import os
import random
import subprocess
import time

from schedhook.journal.file import journal_path
from schedhook.journal.journal import Journal
from schedhook.values.config import Config
from tests.slurm import agents, jobs
from tests.slurm.cluster import Cluster, wait_until

KILLS = int(os.environ.get("SCHEDHOOK_KILLS", "5"))
ENOUGH = 0.999


def test_a_killed_job_migrate_is_finished_by_the_agent(cluster: Cluster) -> None:
    chance = random.Random(os.environ.get("SCHEDHOOK_SEED", "1"))
    places = {"0-1": (0, 1), "2-3": (2, 3)}
    with agents.agent(cluster), Journal.open(journal_path(Config())) as journal:
        running = jobs.start(cluster)
        job = str(running.job)
        wait_until(lambda: len(journal.placements.known_tasks("slurm", job)) >= 2, 60, "the agent")
        cpuset = cluster.job_cgroup(running.job) / "cpuset.cpus.effective"
        longest = 6.0
        killed = begun = 0

        def where() -> str | None:
            """Return the cpuset if memory and bindings agree with it and no move is under way."""
            override = journal.overrides.get("slurm", job)
            text = cpuset.read_text().strip()
            nodes = places.get(text)
            if nodes is None or (override is not None and override.leaving is not None):
                return None
            if [os.sched_getaffinity(pid) for pid in running.tasks] != [{cpu} for cpu in nodes]:
                return None
            return text if min(running.shares(nodes)) >= ENOUGH else None

        now = "0-1"
        while killed < KILLS:
            target = "2-3" if now == "0-1" else "0-1"
            began = time.monotonic()
            command = [*agents.JOB_MIGRATE, job, "--cpus", target, "--host", "n1"]
            with subprocess.Popen(
                command, env=cluster.environment, stdout=subprocess.DEVNULL
            ) as mover:
                try:
                    mover.wait(chance.uniform(0, longest))
                    longest = min(longest, time.monotonic() - began)
                except subprocess.TimeoutExpired:
                    mover.kill()
                    killed += 1
            if (
                override := journal.overrides.get("slurm", job)
            ) is not None and override.leaving is not None:
                begun += 1
            wait_until(
                lambda: where() is not None,
                60,
                "cpuset, bindings and memory to agree",
                lambda: (
                    f"{cpuset.read_text()} {journal.overrides.get('slurm', job)}\n"
                    f"{cluster.diagnosis()}"
                ),
            )
            now = where() or now
        print(f"{killed} killed, {begun} of them on their way, up to {longest:.1f} s")
        assert running.finish() == ["rank 0 right", "rank 1 right"]
