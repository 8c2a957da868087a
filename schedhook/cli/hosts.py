"""Run a command on several hosts at once, through ClusterShell, which reaches them by ssh."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click

from schedhook.cli.signals import until_stopped
from schedhook.values.errors import SchedhookError, UsageError
from schedhook.values.model import WORST_FIRST, Outcome

_MOST_HOSTS = 100_000
_SSH_FAILED = 255
"""The exit status of ssh(1) itself; ClusterShell's, too, if it cannot start it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What one host's command printed."""

    host: str
    value: Any = None
    """What the JSON in its last line means, None if it printed none."""
    failure: str = ""
    """Why it printed none."""


def parse_hosts(text: str, instead: str) -> list[str]:
    """Return the hosts of a list such as `n[1-500]` or `@group`, each once, in its order.

    Raise UsageError if it is not a list of hosts. Without ClusterShell raise SchedhookError, which
    says what can be done `instead`.
    """
    _check_installed(instead)
    from ClusterShell.NodeSet import NodeSet as HostSet
    from ClusterShell.NodeSet import NodeSetException

    try:
        found = HostSet(text)
    except NodeSetException as error:
        problem = " ".join(str(error).split())
        raise UsageError(f"{text[:60]!r} is not a list of hosts: {problem}") from None
    if not found:
        raise UsageError(f"{text[:60]!r} names no host; write hosts like n[1-500] or n1,n7")
    if len(found) > _MOST_HOSTS:
        raise UsageError(f"{text[:60]!r} names {len(found)} hosts, more than {_MOST_HOSTS}")
    hosts = [str(host) for host in found]
    if any(host.startswith("-") for host in hosts):  # ssh would take it for an option
        raise UsageError(f"{text[:60]!r} has a name that begins with -, which is no host's")
    return hosts


def ask_hosts(
    commands: Mapping[str, Sequence[str]],
    seen: Callable[[Answer], None],
    seconds: float,
    instead: str,
) -> None:
    """Run each host's command there, and call `seen` with each answer, a line of JSON, as it comes.

    A host that fails, or that has not answered within so many `seconds` after its start, does not
    stop the others. SIGINT, SIGTERM and SIGHUP end what runs here, and raise click.Abort. Without
    ClusterShell raise SchedhookError, which says what can be done `instead`.
    """
    _check_installed(instead)
    from ClusterShell.Task import task_self

    task = task_self()
    for host, words in commands.items():
        handler = _Listener(host, seen, seconds)
        command = shlex.join(words)
        task.shell(command, nodes=host, handler=handler, timeout=seconds, stderr=True)
    with until_stopped():
        task.resume()
        return
    raise click.Abort


def join_statuses(statuses: Iterable[int]) -> int:
    """Return one status for all hosts: partial if some did it and others not, else the worst."""
    found = set(statuses)
    if len(found) > 1 and found & {0, Outcome.PARTIAL.exit_status}:
        return Outcome.PARTIAL.exit_status
    return next((each.exit_status for each in WORST_FIRST if each.exit_status in found), 0)


def _check_installed(instead: str) -> None:
    try:
        import ClusterShell.Task  # noqa: F401 - an optional package
    except ImportError:
        raise SchedhookError(
            "ClusterShell, which reaches other hosts, is not installed:"
            f" pip install 'schedhook[cluster]', or {instead}"
        ) from None


class _Listener:
    """What one host says, gathered as an EventHandler of ClusterShell."""

    def __init__(self, host: str, seen: Callable[[Answer], None], seconds: float) -> None:
        self._host = host
        self._seen = seen
        self._seconds = seconds
        self._lines: dict[str, list[str]] = {"stdout": [], "stderr": []}
        self._status: int | None = None

    def ev_start(self, _worker: object) -> None:
        """Do nothing: the command has started."""

    def ev_pickup(self, _worker: object, _node: str) -> None:
        """Do nothing: the command has started on the host."""

    def ev_read(self, _worker: object, _node: str, stream: str, line: bytes) -> None:
        """Keep a line that the command has printed."""
        self._lines[stream].append(line.decode(errors="replace"))

    def ev_hup(self, _worker: object, _node: str, status: int | None) -> None:
        """Keep the exit status."""
        self._status = status

    def ev_close(self, _worker: object, timed_out: bool) -> None:
        """Hand on the answer: the command has ended."""
        # Above it may be what the host's shell prints at the start of each session.
        said = [line for line in self._lines["stdout"] if line.strip()]
        try:
            value = json.loads(said[-1])
        except (LookupError, ValueError, RecursionError):
            self._seen(Answer(host=self._host, failure=self._explain(timed_out)))
        else:
            self._seen(Answer(host=self._host, value=value))

    def _explain(self, timed_out: bool) -> str:
        if timed_out:
            return f"no answer within {self._seconds:g} s"
        if self._status is None:
            return "interrupted"
        said = [line for line in self._lines["stderr"] if line.strip()]
        if not said and self._status == _SSH_FAILED and not shutil.which("ssh"):
            return "this host has no ssh: install OpenSSH's client"
        return (
            said[-1].strip().removeprefix("schedhook: ")
            if said
            else f"it printed no answer; exit status {self._status}"
        )
