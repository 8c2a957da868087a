"""A real sshd on the guest under the names of several hosts."""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.slurm.cluster import wait_until

PORT = 2222
NOBODY_LISTENS = 2223
CLIENT = Path("/etc/ssh/ssh_config.d/schedhook-test.conf")


@contextmanager
def sshd(
    directory: Path,
    hosts: Sequence[str],
    environment: Mapping[str, str],
    unreachable: Collection[str] = (),
) -> Iterator[None]:
    """Let ssh reach the hosts for the block.

    What is started through it has `environment`. A connection to an `unreachable` host is refused.
    """
    key, conf = directory / "key", directory / "sshd_config"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    variables = " ".join(shlex.quote(f"{name}={value}") for name, value in environment.items())
    conf.write_text(
        f"Port {PORT}\nListenAddress 127.0.0.1\nHostKey {key}\nAuthorizedKeysFile {key}.pub\n"
        "StrictModes no\nUsePAM no\nPermitRootLogin prohibit-password\nPidFile none\n"
        f"SetEnv {variables}\n"
    )
    lines = ["StrictHostKeyChecking no", "UserKnownHostsFile /dev/null", "LogLevel ERROR"]
    for host in hosts:
        port = NOBODY_LISTENS if host in unreachable else PORT
        lines += [f"Host {host}", "HostName 127.0.0.1", f"Port {port}", f"IdentityFile {key}"]
    CLIENT.write_text("\n".join(lines) + "\n")
    unlock_root()
    Path("/run/sshd").mkdir(exist_ok=True)
    with (directory / "log").open("wb") as log:
        server = subprocess.Popen(["/usr/sbin/sshd", "-D", "-e", "-f", conf], stderr=log)
        try:
            wait_until(answers, 60, "sshd to answer", (directory / "log").read_text)
            yield
        finally:
            CLIENT.unlink()
            server.terminate()
            server.wait(60)


def unlock_root() -> None:
    """Let root log in with a key: virtme-ng locks every account of the guest."""
    shadow = Path("/etc/shadow")
    rest = [line for line in shadow.read_text().splitlines() if not line.startswith("root:")]
    shadow.write_text("\n".join(["root:*:::::::", *rest]) + "\n")


def answers() -> bool:
    """Return whether a server says at the port that it is an SSH server."""
    try:
        with socket.create_connection(("127.0.0.1", PORT), timeout=5) as connection:
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False


def with_programs(conf: Path) -> dict[str, str]:
    """Return the variables that a command needs to find Slurm's programs and configuration."""
    return {"PATH": os.environ["PATH"], "SLURM_CONF": str(conf)}
