"""The exporter: metrics over a socket, and in a textfile."""

from __future__ import annotations

import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from schedhook.agent import exporter
from schedhook.values.config import MetricsSection
from schedhook.values.errors import SchedhookError
from tests.unit.agentkit import wait_for

MIB = 1 << 20


@contextmanager
def serving(tmp_path: Path, render: Any = lambda: b"x 1\n", **more: Any) -> Iterator[Path]:
    path = tmp_path / "metrics.sock"
    with exporter.export_metrics(MetricsSection(socket=str(path), **more), render):
        yield path


def ask(path: Path, request: bytes = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n") -> bytes:
    """Return the whole answer."""
    with socket.socket(socket.AF_UNIX) as link:
        link.settimeout(10)
        link.connect(str(path))
        link.sendall(request)
        answer = b""
        while part := link.recv(65536):
            answer += part
        return answer


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        (b"GET /metrics HTTP/1.1", b"200 OK"),
        (b"GET /metrics?debug=1 HTTP/1.0", b"200 OK"),
        (b"HEAD /metrics HTTP/1.1", b"200 OK"),
        (b"GET /../../etc/passwd HTTP/1.1", b"404 "),
        (b"POST /metrics HTTP/1.1", b"405 "),
        (b"schedhook-event-1\0\0", b"400 "),
    ],
)
def test_requests_are_answered_with_their_status(
    tmp_path: Path, request_line: bytes, status: bytes
) -> None:
    with serving(tmp_path) as path:
        answer = ask(path, request_line + b"\r\n\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.0 " + status)
    is_whole = status == b"200 OK" and not request_line.startswith(b"HEAD")
    assert (body == b"x 1\n") == is_whole


@pytest.mark.parametrize("error", [SchedhookError, ZeroDivisionError])
def test_a_failure_is_answered_with_status_500(tmp_path: Path, error: type[Exception]) -> None:
    def render() -> bytes:
        raise error("the journal is damaged")

    with serving(tmp_path, render) as path:
        assert ask(path).startswith(b"HTTP/1.0 500 ")
        assert b"the journal is damaged" in ask(path)


def test_metrics_are_rendered_once_a_second_at_most(tmp_path: Path) -> None:
    calls = []

    def render() -> bytes:
        calls.append(1)
        return b""

    with serving(tmp_path, render) as path:
        for _ in range(20):
            ask(path)
    assert len(calls) < 20


def test_clients_that_do_not_send_or_do_not_read_are_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporter, "_CLIENT_SECONDS", 0.2)
    with (
        serving(tmp_path, lambda: b"x" * (8 * MIB)) as path,
        socket.socket(socket.AF_UNIX) as silent,
        socket.socket(socket.AF_UNIX) as never_reads,
    ):
        silent.connect(str(path))
        never_reads.connect(str(path))
        never_reads.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")  # and reads nothing
        assert ask(path).endswith(b"x")


def test_a_request_that_is_too_long_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporter, "_CLIENT_SECONDS", 60)
    with serving(tmp_path) as path:
        assert b" 400 " in ask(path, b"GET /" + b"a" * 9000)


def test_the_socket_is_open_to_its_owner_or_to_the_group(tmp_path: Path) -> None:
    with serving(tmp_path) as path:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not path.exists()
    with serving(tmp_path, group="daemon") as path:
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        assert path.group() == "daemon"
    tmp_path.chmod(0o777)
    with serving(tmp_path) as path:
        assert not path.exists()
    tmp_path.chmod(0o700)
    with serving(tmp_path, group="nobody-has-this") as path:
        assert not path.exists()


def test_prometheus_client_is_imported_only_if_needed() -> None:
    code = "import sys, schedhook.agent.service; sys.exit('prometheus_client' in sys.modules)"
    subprocess.run([sys.executable, "-P", "-c", code], check=True)


def test_no_thread_runs_without_configuration() -> None:
    before = threading.active_count()
    with exporter.export_metrics(MetricsSection(), lambda: b""):
        assert threading.active_count() == before


def test_an_agent_exports_and_a_second_agent_does_not_disturb_it(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text(
        f'[journal]\npath = "{tmp_path}/state/journal.db"\n'
        f'[agent]\nsocket = "{tmp_path}/agent.sock"\nspool = "{tmp_path}/spool"\n'
        f'[metrics]\nsocket = "{tmp_path}/metrics.sock"\ntextfile = "{tmp_path}/x.prom"\n'
        "interval_s = 1\n"
    )
    command = [sys.executable, "-P", "-m", "schedhook.cli.main", "agent", "--config", str(config)]
    first = subprocess.Popen(command, stderr=subprocess.PIPE)
    try:
        wait_for(lambda: (tmp_path / "metrics.sock").exists() and (tmp_path / "x.prom").exists())
        assert subprocess.run(command, capture_output=True, check=False).returncode == 2
        served = ask(tmp_path / "metrics.sock").partition(b"\r\n\r\n")[2]
        assert b"\nschedhook_events_waiting 0" in served
        assert b"\nschedhook_events_waiting 0" in (tmp_path / "x.prom").read_bytes()
        written = (tmp_path / "x.prom").stat().st_ino
        wait_for(lambda: (tmp_path / "x.prom").stat().st_ino != written)
        first.send_signal(signal.SIGTERM)
        assert first.wait(20) == 0
        assert not (tmp_path / "metrics.sock").exists()
    finally:
        first.kill()
        first.wait()
