"""Checks of agent, spool, journal and metrics."""

from __future__ import annotations

import fcntl
import socket
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from schedhook.cli.doctor.examination import examine
from schedhook.journal.journal import Journal
from schedhook.plugins.findings import Severity
from schedhook.plugins.manager import Plugins
from schedhook.values.config import (
    AgentSection,
    Config,
    JournalSection,
    MetricsSection,
)
from schedhook.values.model import Event
from tests.unit import agentkit
from tests.unit.doctorkit import found


@pytest.fixture
def service(tmp_path: Path) -> Config:
    return replace(
        Config(),
        agent=AgentSection(socket=str(tmp_path / "agent.sock"), spool=str(tmp_path / "spool")),
        journal=JournalSection(path=str(tmp_path / "state" / "journal.db")),
    )


def test_an_agent_that_runs_answers(plugins: Plugins, service: Config, tmp_path: Path) -> None:
    assert found(examine(service, plugins), "agent").level is Severity.NOTE
    with agentkit.agent(tmp_path):
        assert found(examine(service, plugins), "agent").level is Severity.OK
        assert found(examine(service, plugins), "journal").level is Severity.OK


def test_records_that_were_not_undone_are_named(
    plugins: Plugins, service: Config, tmp_path: Path
) -> None:
    records = tmp_path / "run/schedhook/rollback"
    assert not [each for each in examine(service, plugins, tmp_path) if each.subject == "rollback"]
    records.mkdir(parents=True)
    (records / "1-held").touch()
    with (records / "1-held").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        (records / "2-left").touch()
        finding = found(examine(service, plugins, tmp_path), "rollback")
    assert finding.level is Severity.PROBLEM
    assert "2-left" in finding.what
    assert "1-held" not in finding.what


@contextmanager
def listening(path: Path, answer: bytes | None) -> Iterator[None]:
    """Serve the socket: accept one connection and send `answer`; None: send nothing."""
    stop = threading.Event()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()

        def serve() -> None:
            connection, _ = server.accept()
            if answer is None:
                stop.wait(20)
            else:
                connection.sendall(answer)
            connection.close()

        thread = threading.Thread(target=serve)
        thread.start()
        yield
        stop.set()
        thread.join()


@pytest.mark.parametrize("answer", [None, b"", b"ok\n"])
def test_an_agent_that_hangs_and_another_program(
    plugins: Plugins, service: Config, answer: bytes | None
) -> None:
    with listening(Path(service.agent.socket), answer):
        assert found(examine(service, plugins), "agent").level is Severity.PROBLEM


def test_a_socket_without_a_server(plugins: Plugins, service: Config) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(service.agent.socket)
    assert found(examine(service, plugins), "agent").level is Severity.PROBLEM


def test_the_spool(plugins: Plugins, service: Config) -> None:
    spool = Path(service.agent.spool)
    spool.mkdir(mode=0o700)
    assert found(examine(service, plugins), "spool").level is Severity.OK
    (spool / "1.event").touch()
    assert found(examine(service, plugins), "spool").what.startswith("1 events wait")
    spool.chmod(0o777)
    assert found(examine(service, plugins), "spool").level is Severity.PROBLEM


def test_the_journal(plugins: Plugins, service: Config) -> None:
    path = Path(service.journal.path)
    assert found(examine(service, plugins), "journal").level is Severity.OK
    assert not path.exists()
    with Journal.open(path) as journal:
        journal.events.put(Event(scheduler="slurm", point="prolog", job="7"), 5.0)
        with closing(sqlite3.connect(path)) as other, other:
            other.execute("UPDATE events SET data = ''")
        assert found(examine(service, plugins), "journal").level is Severity.OK, "no change"
        journal.events.list_unfinished()
    finding = found(examine(service, plugins), "journal")
    assert finding.level is Severity.NOTE
    assert "1 damaged rows set aside" in finding.what
    path.write_bytes(b"this is no journal" * 1000)
    finding = found(examine(service, plugins), "journal")
    assert (finding.level, "move it away" in finding.remedy) == (Severity.PROBLEM, True)


def test_metrics_that_cannot_be_written(plugins: Plugins, service: Config, tmp_path: Path) -> None:
    assert not [each for each in examine(service, plugins) if each.subject == "metrics"]
    for name, level in (("x.prom", Severity.OK), ("missing/x.prom", Severity.NOTE)):
        config = replace(service, metrics=MetricsSection(textfile=str(tmp_path / name)))
        assert found(examine(config, plugins), "metrics").level is level


def test_metrics_on_a_tcp_address(plugins: Plugins, service: Config, tmp_path: Path) -> None:
    (tmp_path / "host.pem").touch()
    for certificate, level, words in (
        ("", Severity.OK, "127.0.0.1:9793, without TLS"),
        (str(tmp_path / "host.pem"), Severity.OK, "127.0.0.1:9793, TLS"),
        (str(tmp_path / "none.pem"), Severity.NOTE, "none.pem: cannot be read"),
    ):
        section = MetricsSection(listen="127.0.0.1:9793", certificate=certificate)
        finding = found(examine(replace(service, metrics=section), plugins), "metrics")
        assert (finding.level, words in finding.what) == (level, True)
