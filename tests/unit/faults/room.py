"""A room for faults: the host's files, with other directories for socket, spool and journal.

Its system log can be read. It is a mount namespace, so every path is the usual one, and nothing
remains afterwards.
"""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

SET_UP = """
for each in /run /var/spool /var/lib; do mount -t tmpfs -o mode=755 none $each; done
mkdir dev && mount -t tmpfs -o mode=755 none dev
for each in null zero full random urandom; do
    touch dev/$each && mount --bind /dev/$each dev/$each
done
ln -s $PWD/syslog dev/log
mount --rbind dev /dev
echo ready
exec cat
"""


class Room:
    """A room; `room` makes it."""

    def __init__(self, directory: Path, pid: int, log: socket.socket) -> None:
        self.directory = directory
        self._pid = pid
        self._log = log

    def words(self, directory: str = "/") -> list[str]:
        """Return the words that run the command after them in the room."""
        # Its root, too: that of the namespace is the host's if the tests run in a chroot.
        where = ["--mount", "--root", f"--wd={directory}", f"--target={self._pid}"]
        return ["/usr/bin/nsenter", *where, "--"]

    def run(
        self, words: Sequence[str | Path], environ: Mapping[str, str] | None = None, user: int = 0
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a command in the room with exactly this environment."""
        identity = ["/usr/bin/setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"]
        return subprocess.run(
            [*self.words(), *(identity if user else ()), *words],
            env=environ or {},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=60,
        )

    def sh(self, script: str) -> None:
        """Run shell lines in the room; they must succeed."""
        environ = {"PATH": os.environ["PATH"]}
        done = self.run(["/bin/sh", "-euc", script], environ)
        assert done.returncode == 0, done.stderr

    def logged(self) -> list[str]:
        """Return the lines that were sent to the system log since the last call."""
        lines = []
        while True:
            try:
                lines.append(self._log.recv(65536).decode())
            except BlockingIOError:
                return lines


@contextmanager
def room(directory: Path) -> Iterator[Room]:
    """Yield a room in `directory`, which must be empty and accessible to every user."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log:
        log.bind(str(directory / "syslog"))
        (directory / "syslog").chmod(0o666)
        log.setblocking(False)
        # cat ends with its standard input, and the namespace with cat.
        with subprocess.Popen(
            ["unshare", "--mount", "--propagation=private", "sh", "-euc", SET_UP],
            cwd=directory,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            yield Room(directory, process.pid, log)
            process.communicate(timeout=30)
