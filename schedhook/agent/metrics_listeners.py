"""The sockets on which the agent serves its metrics: a local one, and one of TCP with TLS."""

from __future__ import annotations

import contextlib
import grp
import shutil
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from schedhook.agent.sockets import check_directory, listen
from schedhook.values.config import MetricsSection
from schedhook.values.errors import SchedhookError
from schedhook.values.text import describe_error

if TYPE_CHECKING:
    import ssl

_BACKLOG = 16


@dataclass(frozen=True, slots=True)
class Listener:
    """A listening socket, and what a connection to it is wrapped in: TLS, or nothing."""

    server: socket.socket
    wrap: Callable[[socket.socket], socket.socket]
    """Takes over the connection. May raise OSError, if the client has no certificate, say."""


@contextlib.contextmanager
def listen_locally(path: Path, group: str) -> Iterator[Listener]:
    """Serve the socket `path` to this user and the group for the block. Raise SchedhookError."""
    try:
        check_directory(path.parent)
    except OSError as error:
        raise SchedhookError(f"{path.parent}: {error.strerror}") from error
    server = listen(path, 0o600)
    try:
        if group:
            _allow_group(path, group)
        yield Listener(server, lambda connection: connection)
    finally:
        server.close()
        with contextlib.suppress(OSError):
            path.unlink()


@contextlib.contextmanager
def listen_on_tcp(section: MetricsSection) -> Iterator[Listener]:
    """Serve the address [metrics] listen for the block, with TLS if there is a certificate.

    Raise SchedhookError if the address or the certificate cannot be used.
    """
    host, _, port = section.listen.rpartition(":")
    if section.certificate:
        _load_certificates(section)  # a mistake is said at the start
    try:
        ((family, kind, _, _, address), *_others) = socket.getaddrinfo(
            host.strip("[]"), int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        server = socket.socket(family, kind | socket.SOCK_CLOEXEC)
    except (OSError, OverflowError) as error:
        raise SchedhookError(f"[metrics] listen {section.listen}: {error}") from error
    with server:
        try:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            server.bind(address)
            server.listen(_BACKLOG)
        except (OSError, OverflowError) as error:
            raise SchedhookError(f"[metrics] listen {section.listen}: {error}") from error
        server.setblocking(False)
        yield Listener(server, lambda connection: _wrap(connection, section))


def _wrap(connection: socket.socket, section: MetricsSection) -> socket.socket:
    """Return the connection in TLS; certificates are read again, as they may have been renewed."""
    if not section.certificate:
        return connection
    return _load_certificates(section).wrap_socket(connection, server_side=True)


def _load_certificates(section: MetricsSection) -> ssl.SSLContext:
    """Raise SchedhookError if the files cannot be used."""
    import ssl  # noqa: PLC0415 - heavy, and few hosts need it

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(section.certificate, section.key or None, password="")
        if section.client_ca:
            context.load_verify_locations(section.client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
    except OSError as error:
        raise SchedhookError(
            f"[metrics] certificate {section.certificate}: {describe_error(error)}; give PEM files"
            " that the agent may read, and a key that belongs to the certificate"
        ) from error
    return context


def _allow_group(path: Path, group: str) -> None:
    try:
        shutil.chown(path, group=grp.getgrnam(group).gr_gid)
        path.chmod(0o660)
    except KeyError:
        raise SchedhookError(f"[metrics] group: there is no group {group!r}") from None
    except OSError as error:
        raise SchedhookError(f"{path}: chgrp {group}: {error.strerror}") from error
