"""Run job-migrate on each of a job's hosts at once, through ClusterShell."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Sequence
from typing import Any

from schedhook.values.errors import SchedhookError
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
    try:
        from ClusterShell.Task import task_self  # noqa: PLC0415 - an optional package
    except ImportError:
        raise SchedhookError(
            f"ClusterShell, which reaches the job's hosts ({','.join(hosts)}), is not installed:"
            " pip install 'schedhook[cluster]', or run job-migrate --this-host on each"
        ) from None
    command = [
        *(sys.executable, "-P", "-m", _MODULE),
        *arguments,
        *("--this-host", "--by-number", "--json"),
    ]
    results: dict[str, Result] = {}

    def ended(host: str, result: Result) -> None:
        results[host] = result
        seen(result)

    task = task_self()
    for host in hosts:
        # --host tells apart several slurmds that share a kernel; elsewhere it changes nothing.
        words = shlex.join([*command, "--host", host])
        handler = _Answer(host, ended)
        task.shell(words, nodes=host, handler=handler, timeout=_SECONDS, stderr=True)
    task.resume()
    return [results[host] for host in hosts]


class _Answer:
    """What one host says, gathered as an EventHandler of ClusterShell."""

    def __init__(self, host: str, ended: Callable[[str, Result], None]) -> None:
        self._host = host
        self._ended = ended
        self._lines: dict[str, list[str]] = {"stdout": [], "stderr": []}
        self._status: int | None = None

    def ev_start(self, _worker: object) -> None:
        """Do nothing: the command has started."""

    def ev_pickup(self, _worker: object, _node: str) -> None:
        """Do nothing: the command has started on the host."""

    def ev_read(self, _worker: object, _node: str, stream: str, line: bytes) -> None:
        """Keep a line of the host's job-migrate."""
        self._lines[stream].append(line.decode(errors="replace"))

    def ev_hup(self, _worker: object, _node: str, status: int | None) -> None:
        """Keep the exit status."""
        self._status = status

    def ev_close(self, _worker: object, timed_out: bool) -> None:
        """Hand on the result: the command has ended."""
        self._ended(self._host, self._result(timed_out))

    def _result(self, timed_out: bool) -> Result:
        try:
            result = json.loads("\n".join(self._lines["stdout"]))["hosts"][0]
            return {**result, "host": self._host}
        except (ValueError, LookupError, TypeError):
            pass
        if timed_out:
            return _failed(self._host, f"no answer within {_SECONDS} s")
        said = [line for line in self._lines["stderr"] if line.strip()]
        return _failed(self._host, said[-1] if said else f"exit status {self._status}")


def _failed(host: str, why: str) -> Result:
    return {
        "host": host,
        "status": Outcome.FAILED.exit_status,
        "outcome": Outcome.FAILED.value,
        "failure": why,
    }
