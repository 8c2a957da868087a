"""The examination of schedhook's own service: agent, spool, journal, metrics."""

from __future__ import annotations

import os
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

from schedhook.hook import delivery
from schedhook.hook.spool import count_spool
from schedhook.plugins.findings import Finding, note, ok, problem
from schedhook.values.config import Config
from schedhook.values.errors import SchedhookError

_SECONDS = 2.0
_START = "systemctl enable --now schedhook-agent (contrib/systemd)"


def examine(config: Config) -> Iterable[Finding]:
    """Whether events find somebody who handles them, and where it is written down."""
    serves = _agent_answers(config.agent.socket)
    yield serves
    yield from _spool(Path(config.agent.spool))
    yield _journal(config)
    if config.metrics.textfile or config.metrics.socket:
        yield _metrics(config)


def _agent_answers(path: str) -> Finding:
    if not Path(path).exists():
        what = f"none at {path}: no job is followed, and hooks' events wait in the spool"
        return note("agent", what, f"{_START}, unless this host is for `schedhook relocate` only")
    try:
        # No message at all: an agent that lives says what is wrong with it.
        delivery.send(b"", path, _SECONDS, False)
    except delivery.Refused:
        return ok("agent", f"answers at {path}")
    except delivery.NotDelivered as error:
        return problem("agent", f"does not answer: {error}", "systemctl restart schedhook-agent")
    return problem("agent", f"what answers at {path} is no agent", "see who serves it: ss -xlp")


def _spool(directory: Path) -> Iterable[Finding]:
    if not directory.exists():
        return
    try:
        waiting = count_spool(directory)
        delivery.check_spool(str(directory))
    except (SchedhookError, OSError) as error:
        yield note("spool", str(error), "run as root to have it looked at")
    except delivery.NotDelivered as error:
        remedy = f"chown root {directory}; chmod 700 {directory}"
        yield problem("spool", f"not used: {error}", remedy)
    else:
        what = f"{waiting} events wait in {directory}"
        if waiting:
            yield note("spool", what, f"an agent that runs takes them within a second: {_START}")
        else:
            yield ok("spool", what)


def _journal(config: Config) -> Finding:
    from schedhook.journal.errors import JournalError
    from schedhook.journal.file import journal_path
    from schedhook.journal.journal import Journal

    path = journal_path(config)
    try:
        if not path.exists():
            return ok("journal", f"none yet; it will be {path}")
        with Journal.open(path, create=False) as journal:
            counts = journal.counts()
    except JournalError as error:  # its message has the remedy
        return problem("journal", "cannot be used: hooks and jobs go on unrecorded", str(error))
    except OSError as error:
        return note("journal", f"{path}: {error.strerror}", "run as root to have it looked at")
    what = f"{path}: {counts.open_runs} jobs run, {counts.unfinished_events} events not handled yet"
    if counts.damaged:
        remedy = f"look after disk and memory; sqlite3 {path} 'SELECT * FROM damaged' shows them"
        return note("journal", f"{what}, {counts.damaged} damaged rows set aside", remedy)
    return ok("journal", what)


def _metrics(config: Config) -> Finding:
    if find_spec("prometheus_client") is None:
        what = "configured, and prometheus-client is not installed"
        return problem("metrics", what, "pip install 'schedhook[metrics]'")
    path = Path(config.metrics.textfile or config.metrics.socket)
    if not os.access(path.parent, os.W_OK):
        what = f"{path.parent} cannot be written by this user"
        return note("metrics", what, "run as root, or make the directory")
    return ok("metrics", str(path))
