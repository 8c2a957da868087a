"""Checks of schedhook's own service: agent, spool, journal, metrics."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

from schedhook.cli.doctor.setup import Setup
from schedhook.control import undo
from schedhook.hook import delivery, fallback
from schedhook.hook.spool import count_spool
from schedhook.plugins.findings import Finding, note, ok, problem
from schedhook.values.config import MetricsSection
from schedhook.values.errors import SchedhookError
from schedhook.values.ownership import explain_untrusted
from schedhook.values.text import join_some

_SECONDS = 2.0
"""How long the agent may take to answer."""
_START = "schedhook setup systemd"


def check_agent(setup: Setup) -> Iterable[Finding]:
    """Find out whether an agent serves the hooks' socket."""
    path = setup.config.agent.socket
    if not Path(path).exists():
        what = f"none at {path}: no job is followed, and hooks' events wait in the spool"
        remedy = f"{_START}, unless this host is for `schedhook relocate` only"
        yield note("agent", what, remedy)
        return
    try:
        delivery.send(b"", path, _SECONDS, False, _SECONDS)  # an agent refuses an empty message
    except delivery.Refused:
        yield ok("agent", f"answers at {path}")
    except delivery.NotDelivered as error:
        yield problem("agent", f"does not answer: {error}", "systemctl restart schedhook-agent")
    else:
        what = f"another program answers at {path}"
        yield problem("agent", what, "find out which, and stop it: ss -xlp")


def check_spool(setup: Setup) -> Iterable[Finding]:
    """Find out whether the spool can be used, and whether events wait in it."""
    directory = Path(setup.config.agent.spool)
    if not directory.exists():
        return
    try:
        waiting = count_spool(directory)
        fallback.check_spool(str(directory))
    except (SchedhookError, OSError) as error:
        yield note("spool", str(error), "run doctor as root to check it")
    except fallback.NotKept as error:
        remedy = f"chown root {directory}; chmod 700 {directory}"
        yield problem("spool", f"not used: {error}", remedy)
    else:
        what = f"{waiting} events wait in {directory}"
        if waiting:
            remedy = f"start the agent, which takes them within a second: {_START}"
            yield note("spool", what, remedy)
        else:
            yield ok("spool", what)


def check_journal(setup: Setup) -> Iterable[Finding]:
    """Find out whether the journal can be read, and how it is."""
    from schedhook.journal.errors import JournalError
    from schedhook.journal.file import journal_path
    from schedhook.journal.journal import Journal

    path = journal_path(setup.config)
    try:
        if not path.exists():
            yield ok("journal", f"none yet; it will be {path}")
            return
        with Journal.open(path, create=False) as journal:
            counts = journal.counts()
    except JournalError as error:  # its message has the remedy
        yield problem("journal", "not usable: hooks and jobs go on, unrecorded", str(error))
        return
    except OSError as error:
        yield note("journal", f"{path}: {error.strerror}", "run doctor as root to check it")
        return
    what = f"{path}: {counts.open_runs} jobs run, {counts.unfinished_events} events not handled yet"
    if counts.damaged:
        remedy = f"check disk and memory; sqlite3 {path} 'SELECT * FROM damaged' shows the rows"
        yield note("journal", f"{what}, {counts.damaged} damaged rows set aside", remedy)
    else:
        yield ok("journal", what)


def check_rollback(setup: Setup) -> Iterable[Finding]:
    """Find records of relocations that were killed and could not be undone."""
    directory = setup.root / undo.DIRECTORY.lstrip("/")
    try:
        left = [path for path in sorted(directory.iterdir()) if not _is_locked(path)]
    except (FileNotFoundError, PermissionError):  # only root has records
        return
    if left:
        names = join_some([path.name for path in left])
        what = f"relocations were killed and not undone: {names} in {directory}"
        untrusted = explain_untrusted(directory)
        remedy = f"{untrusted}: look at them, and remove them" if untrusted else "schedhook recover"
        yield problem("rollback", what, remedy)


def _is_locked(record: Path) -> bool:
    """Return whether the record's relocation, or its rollback helper, still runs."""
    try:
        with record.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except (FileNotFoundError, BlockingIOError):
        return True
    return False


def check_metrics(setup: Setup) -> Iterable[Finding]:
    """Find out whether metrics can be exported, if they are configured."""
    config = setup.config.metrics
    if not (config.textfile or config.socket or config.listen):
        return
    if find_spec("prometheus_client") is None:
        what = "configured, but prometheus-client is not installed"
        yield problem("metrics", what, "pip install 'schedhook[metrics]'")
        return
    for path in [Path(each) for each in (config.textfile, config.socket) if each]:
        if os.access(path.parent, os.W_OK):
            yield ok("metrics", str(path))
        else:
            what = f"{path.parent} cannot be written by this user"
            yield note("metrics", what, "run doctor as root, or create the directory")
    yield from _check_listener(config)


def _check_listener(config: MetricsSection) -> Iterable[Finding]:
    if not config.listen:
        return
    files = [each for each in (config.certificate, config.key, config.client_ca) if each]
    if unreadable := [each for each in files if not os.access(each, os.R_OK)]:
        what = f"{join_some(unreadable)}: cannot be read by this user"
        yield note("metrics", what, "run doctor as root, or create the files")
    else:
        yield ok("metrics", f"{config.listen}, {'TLS' if config.certificate else 'without TLS'}")
