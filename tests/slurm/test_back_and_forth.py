"""job-migrate, again and again, while the kernel balances the job's pages between nodes itself."""

from __future__ import annotations

import os
from collections import Counter

import pytest

from tests.slurm import agents, jobs
from tests.slurm.cluster import Cluster

MIGRATIONS = int(os.environ.get("SCHEDHOOK_MIGRATIONS", "4"))
PER_JOB = 20
SECONDS = 40
"""For one migration, with its share of a job's start and end."""
PLACES = (("2-3", (2, 3)), ("0-1", (0, 1)))

pytestmark = [pytest.mark.balancing("on"), pytest.mark.timeout(300 + SECONDS * MIGRATIONS)]


def test_every_migration_is_complete_and_every_result_right(cluster: Cluster) -> None:
    outcomes: Counter[tuple[int, str, bool]] = Counter()
    done = 0
    while done < MIGRATIONS:
        running = jobs.start(cluster)
        for turn in range(min(PER_JOB, MIGRATIONS - done)):
            cpus, nodes = PLACES[turn % 2]
            status, result = agents.job_migrate(
                cluster, running.job, "--cpus", cpus, "--host", "n1"
            )
            outcome = result["hosts"][0]["outcome"] if "hosts" in result else "error"
            is_local = min(running.shares(nodes)) >= jobs.ENOUGH
            outcomes[status, outcome, is_local] += 1
            done += 1
        assert running.finish() == ["rank 0 right", "rank 1 right"]
        print(f"{done} of {MIGRATIONS}: {dict(outcomes)}")
    assert outcomes == {(0, "complete", True): MIGRATIONS}
