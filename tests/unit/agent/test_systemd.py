"""Notifications to systemd."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from schedhook.agent.systemd import notify_systemd
from tests.unit.agentkit import agent


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as link:
        link.bind(str(tmp_path / "notify"))
        link.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield link


def test_a_state_is_sent_to_the_service_manager(manager: socket.socket) -> None:
    notify_systemd("READY=1")
    assert manager.recv(100) == b"READY=1"


def test_an_agent_reports_that_it_is_ready_and_that_it_stops(
    here: Path, manager: socket.socket
) -> None:
    with agent(here):
        assert manager.recv(100) == b"READY=1"
    assert manager.recv(100) == b"STOPPING=1"
