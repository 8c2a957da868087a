"""The agent and job-migrate on the test cluster."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.slurm.cluster import Cluster, wait_until

SOCKET = Path("/run/schedhook/agent.sock")
AGENT = (sys.executable, "-P", "-m", "schedhook.cli.main", "agent")
JOB_MIGRATE = (sys.executable, "-P", "-m", "schedhook_plugins.schedulers.slurm.command")
LOG = "agent"


@contextmanager
def agent(cluster: Cluster, config: str = "") -> Iterator[subprocess.Popen[bytes]]:
    """Run the agent as its service does, with this configuration and a log among the cluster's."""
    file = cluster.directory / "schedhook.toml"
    file.write_text(config)
    SOCKET.unlink(missing_ok=True)
    with (cluster.directory / "log" / LOG).open("wb") as log:
        running = subprocess.Popen(
            AGENT,
            env={**cluster.environment, "SCHEDHOOK_CONFIG": str(file)},
            stderr=log,
        )
    try:
        wait_until(SOCKET.exists, 120, "the agent's socket", cluster.diagnosis)
        yield running
    finally:
        running.terminate()
        running.wait(60)


def job_migrate(cluster: Cluster, *arguments: object, **environment: str) -> tuple[int, Any]:
    """Run job-migrate as root; return its exit status, and its JSON or its error message."""
    done = subprocess.run(
        [*JOB_MIGRATE, *map(str, arguments), "--json"],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={**cluster.environment, **environment},
    )
    assert "Traceback" not in done.stderr
    answer = json.loads(done.stdout) if done.stdout else {"error": done.stderr}
    print(json.dumps(answer), done.stderr)
    return done.returncode, answer
