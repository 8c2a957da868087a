"""The exporter: metrics over a socket, and in a textfile."""

from __future__ import annotations

import http.client
import signal
import socket
import ssl
import stat
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from schedhook.agent import exporter, metrics_http
from schedhook.jobs.metrics import Format
from schedhook.values.config import MetricsSection
from schedhook.values.errors import SchedhookError
from tests.unit.agentkit import wait_for

MIB = 1 << 20


@contextmanager
def serving(tmp_path: Path, render: Any = lambda _: b"x 1\n", **more: Any) -> Iterator[Path]:
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
    def render(_: Format) -> bytes:
        raise error("the journal is damaged")

    with serving(tmp_path, render) as path:
        assert ask(path).startswith(b"HTTP/1.0 500 ")
        assert b"the journal is damaged" in ask(path)


def test_metrics_are_rendered_once_a_second_at_most(tmp_path: Path) -> None:
    calls = []

    def render(_: Format) -> bytes:
        calls.append(1)
        return b""

    with serving(tmp_path, render) as path:
        for _ in range(20):
            ask(path)
    assert len(calls) < 20


def test_clients_that_do_not_send_or_do_not_read_are_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics_http, "CLIENT_SECONDS", 0.2)
    with (
        serving(tmp_path, lambda _: b"x" * (8 * MIB)) as path,
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
    monkeypatch.setattr(metrics_http, "CLIENT_SECONDS", 60)
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
    with exporter.export_metrics(MetricsSection(), lambda _: b""):
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


# -- over TCP --------------------------------------------------------------------------------------


def free_address(host: str = "127.0.0.1") -> str:
    with socket.create_server((host, 0)) as server:
        return f"{host}:{server.getsockname()[1]}"


def fetch(url: str, context: ssl.SSLContext | None = None, **headers: str) -> tuple[str, bytes]:
    """Return content type and text."""
    request = urllib.request.Request(url, headers=headers)
    with urllib.request.urlopen(request, timeout=20, context=context) as answer:
        return answer.headers["Content-Type"], answer.read()


def certify(directory: Path, name: str, issuer: str = "") -> tuple[Path, Path]:
    """Return the files of a certificate and its key; `issuer` names that of an authority."""
    certificate, key = directory / f"{name}.pem", directory / f"{name}.key"
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"]
    words += ["-subj", f"/CN={name}", "-keyout", str(key), "-out", str(certificate)]
    words += ["-addext", "subjectAltName=IP:127.0.0.1"]
    if issuer:
        words += [
            "-CA",
            str(directory / f"{issuer}.pem"),
            "-CAkey",
            str(directory / f"{issuer}.key"),
        ]
    subprocess.run(words, check=True, capture_output=True)
    return certificate, key


@contextmanager
def on_tcp(render: Any = lambda _: b"x 1\n", **more: Any) -> Iterator[str]:
    """Serve on a free port of 127.0.0.1, and yield the address."""
    address = free_address()
    with exporter.export_metrics(MetricsSection(listen=address, **more), render):
        yield address


def test_tcp_answers_in_the_format_that_the_client_wants() -> None:
    with on_tcp(lambda form: form.name.encode()) as address:
        url = f"http://{address}/metrics"
        assert fetch(url) == (Format.TEXT.value, b"TEXT")
        accept = "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.5"
        assert fetch(url, Accept=accept) == (Format.OPENMETRICS.value, b"OPENMETRICS")


def test_tls_serves_clients_that_have_the_authoritys_certificate(tmp_path: Path) -> None:
    certificate, key = certify(tmp_path, "host")
    authority, _ = certify(tmp_path, "authority")
    client, client_key = certify(tmp_path, "client", issuer="authority")
    stranger, stranger_key = certify(tmp_path, "stranger")
    files = {"certificate": str(certificate), "key": str(key), "client_ca": str(authority)}
    with on_tcp(**files) as address:
        url = f"https://{address}/metrics"
        for identity in (None, (stranger, stranger_key)):
            context = ssl.create_default_context(cafile=certificate)
            if identity:
                context.load_cert_chain(*identity)
            with pytest.raises(OSError, match=r"(?i)alert|closed|reset|eof"):
                fetch(url, context)
        context = ssl.create_default_context(cafile=certificate)
        context.load_cert_chain(client, client_key)
        assert fetch(url, context)[1] == b"x 1\n"
        with pytest.raises((OSError, http.client.HTTPException)):
            fetch(f"http://{address}/metrics")
        # The certificate is renewed while the agent runs.
        renewed, new_key = certify(tmp_path, "host")
        assert (renewed, new_key) == (certificate, key)
        context = ssl.create_default_context(cafile=renewed)
        context.load_cert_chain(client, client_key)
        assert fetch(url, context)[1] == b"x 1\n"


def test_a_client_that_does_not_finish_its_handshake_is_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporter, "CLIENT_SECONDS", 0.3)
    certificate, key = certify(tmp_path, "host")
    with on_tcp(certificate=str(certificate), key=str(key)) as address:
        host, _, port = address.partition(":")
        with socket.create_connection((host, int(port))) as silent:
            silent.sendall(b"\x16\x03\x01")
            context = ssl.create_default_context(cafile=certificate)
            assert fetch(f"https://{address}/metrics", context)[1] == b"x 1\n"


@pytest.mark.parametrize(
    "section",
    [
        MetricsSection(listen="203.0.113.1:9793"),
        MetricsSection(listen="no-such-host.invalid:9793"),
        MetricsSection(listen="127.0.0.1:0", certificate="/nowhere/host.pem"),
        MetricsSection(listen="127.0.0.1:0", certificate="/etc/hostname"),
    ],
    ids=["not-here", "no-name", "no-certificate", "none"],
)
def test_an_address_that_cannot_be_served_is_logged_in_one_line(
    section: MetricsSection, capsys: pytest.CaptureFixture[str]
) -> None:
    before = threading.active_count()
    with exporter.export_metrics(section, lambda _: b""):
        assert threading.active_count() == before
    log = capsys.readouterr().err
    assert "cannot serve metrics" in log
    assert "[metrics]" in log
    assert log.count("\n") == 1
