"""Run job-migrate on each of a job's hosts at once."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

from schedhook.cli.hosts import Answer, ask_hosts
from schedhook.values.model import Outcome

_MODULE = "schedhook_plugins.schedulers.slurm.command"
_SECONDS = 3600

Result = dict[str, Any]
"""What one host's job-migrate answered with --json."""


def run_on_hosts(
    hosts: Sequence[str], arguments: Sequence[str], seen: Callable[[Result], None]
) -> list[Result]:
    """Run job-migrate with these arguments on each host; return the results in the hosts' order.

    `seen` is called with each host's result as it comes. A host that fails does not stop the
    others: its result has `outcome` "failed" and the reason as `failure`. Raise SchedhookError if
    ClusterShell is not installed.
    """
    command = [
        *(sys.executable, "-P", "-m", _MODULE),
        *arguments,
        *("--this-host", "--by-number", "--json"),
    ]
    results: dict[str, Result] = {}

    def ended(answer: Answer) -> None:
        results[answer.host] = result = _read_result(answer)
        seen(result)

    # --host tells apart several slurmds that share a kernel; elsewhere it changes nothing.
    commands = {host: [*command, "--host", host] for host in hosts}
    instead = f"run job-migrate --this-host on each of the job's hosts ({','.join(hosts)})"
    ask_hosts(commands, ended, _SECONDS, instead)
    return [results[host] for host in hosts]


def _read_result(answer: Answer) -> Result:
    try:
        result = answer.value["hosts"][0]
        if not (isinstance(result["status"], int) and isinstance(result["outcome"], str)):
            raise TypeError
        return {**result, "host": answer.host}
    except (LookupError, TypeError):
        return {
            "host": answer.host,
            "status": Outcome.FAILED.exit_status,
            "outcome": Outcome.FAILED.value,
            "failure": answer.failure or "its answer cannot be understood",
        }
