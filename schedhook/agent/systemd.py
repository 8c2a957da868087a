"""Notify systemd of the agent's state; sd_notify(3)."""

from __future__ import annotations

import contextlib
import os
import socket


def notify_systemd(state: str) -> None:
    """Send the state, such as `READY=1`, to the service manager if $NOTIFY_SOCKET is set."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address[:1] in ("/", "@"):
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as link:
            link.connect("\0" + address[1:] if address[0] == "@" else address)
            link.send(state.encode())
