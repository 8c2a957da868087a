"""Run job-migrate on each of a job's hosts at once, through ClusterShell's clush or else ssh."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from schedhook.values.errors import SchedhookError
from schedhook.values.model import Outcome

_MODULE = "schedhook_plugins.schedulers.slurm.command"
_SECONDS = 3600
_MOST_AT_ONCE = 32


def run_on_hosts(hosts: Sequence[str], arguments: Sequence[str]) -> list[dict[str, Any]]:
    """Run job-migrate with these arguments on each host and return each host's result.

    A host that fails does not stop the others: its result has `outcome` "failed" and the reason as
    `failure`. Raise SchedhookError if there is neither clush nor ssh.
    """
    launcher = _find_launcher(len(hosts))
    command = [
        *(sys.executable, "-P", "-m", _MODULE),
        *arguments,
        *("--this-host", "--by-number", "--json"),
    ]

    def run(host: str) -> dict[str, Any]:
        # --host tells apart several slurmds that share a kernel; elsewhere it changes nothing.
        return _run(host, [*launcher(host), shlex.join([*command, "--host", host])])

    with ThreadPoolExecutor(min(len(hosts), _MOST_AT_ONCE)) as pool:
        return list(pool.map(run, hosts))


def _find_launcher(hosts: int) -> Callable[[str], list[str]]:
    if clush := shutil.which("clush"):
        return lambda host: [clush, "-N", "-w", host]
    if ssh := shutil.which("ssh"):
        return lambda host: [ssh, "-o", "BatchMode=yes", host]
    raise SchedhookError(
        f"the job runs on {hosts} hosts, and there is neither clush nor ssh to reach them; install"
        " ClusterShell, or run job-migrate --this-host on each"
    )


def _run(host: str, command: Sequence[str]) -> dict[str, Any]:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return _failed(host, str(error))
    try:
        result = json.loads(done.stdout)["hosts"][0]
        return {**result, "host": host}
    except (ValueError, LookupError, TypeError):
        # The last line is often clush's own, which only says that there was an error.
        lines = [line for line in done.stderr.splitlines() if not line.startswith("clush:")]
        return _failed(host, lines[-1] if lines else f"exit status {done.returncode}")


def _failed(host: str, why: str) -> dict[str, Any]:
    return {
        "host": host,
        "status": Outcome.FAILED.exit_status,
        "outcome": Outcome.FAILED.value,
        "failure": why,
    }
