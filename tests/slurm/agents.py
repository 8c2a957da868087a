"""The agent and job-migrate on the test cluster."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from schedhook.cli.main import run as schedhook
from schedhook.journal.file import journal_path
from schedhook.journal.journal import Journal
from schedhook.values.config import Config
from schedhook.values.model import PlacementOverride
from schedhook_plugins.schedulers.slurm.command import main as command
from tests.forked import Child
from tests.slurm.cluster import Cluster, wait_until

SOCKET = Path("/run/schedhook/agent.sock")
AGENT = (sys.executable, "-P", "-m", "schedhook.cli.main", "agent")
JOB_MIGRATE = (sys.executable, "-P", "-m", "schedhook_plugins.schedulers.slurm.command")
LOG = "agent"


@contextmanager
def agent(cluster: Cluster, config: str = "") -> Iterator[Child]:
    """Run the agent as its service does, with this configuration and a log among the cluster's."""
    file = cluster.directory / "schedhook.toml"
    file.write_text(config)
    SOCKET.unlink(missing_ok=True)
    environment = {**cluster.environment, "SCHEDHOOK_CONFIG": str(file)}
    log = cluster.directory / "log" / LOG
    log.unlink(missing_ok=True)
    running = Child(schedhook, ["agent"], log, environment=environment)
    try:
        wait_until(SOCKET.exists, 120, "the agent's socket", cluster.diagnosis)
        yield running
    finally:
        running.terminate()
        running.wait(180)


def job_migrate(cluster: Cluster, *arguments: object, **environment: str) -> tuple[int, Any]:
    """Run job-migrate as root; return its exit status, and its JSON or its error message."""
    return _run(cluster, command, arguments, environment)


def show(cluster: Cluster, *arguments: object) -> tuple[int, Any]:
    """Run `schedhook show` as root; return the same."""
    return _run(cluster, schedhook, ["show", *arguments], {})


def relocate(cluster: Cluster, *arguments: object) -> tuple[int, Any]:
    """Run `schedhook relocate` as root; return the same."""
    return _run(cluster, schedhook, ["relocate", *arguments], {})


def override_of(job: int) -> PlacementOverride | None:
    """Return the job's override in root's journal."""
    with Journal.open(journal_path(Config())) as journal:
        return journal.overrides.get("slurm", str(job))


def _run(
    cluster: Cluster,
    program: Callable[[], object],
    arguments: Iterable[object],
    environment: Mapping[str, str],
) -> tuple[int, Any]:
    words = [*map(str, arguments), "--json"]
    with tempfile.TemporaryDirectory() as name:
        out, err = Path(name, "out"), Path(name, "err")
        environment = {**cluster.environment, **environment}
        child = Child(program, words, out, errors=err, environment=environment)
        status = child.wait(300)
        printed, errors = out.read_text(), err.read_text()
    assert "Traceback" not in errors
    answer = json.loads(printed) if printed else {}
    answer["error"] = errors
    print(json.dumps(answer), errors)
    return status, answer
