"""Processes that hold the lock of their address space for ever (hung.c)."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from tests.numa.jobs import until
from tests.numa.programs import program
from tests.users import NOBODY

THREADS = 3
"""Of hung.c, which wait for the lock or hold it."""


@contextmanager
def hung_process(file: Path, user: int = NOBODY, prefix: Sequence[str] = ()) -> Iterator[int]:
    """Start a process of that user and yield its number; at the end its server is killed.

    `file` is where its file system is mounted; `prefix`, words before the program's command line.
    """
    if "\tfuse\n" not in Path("/proc/filesystems").read_text():
        subprocess.run(["modprobe", "fuse"], check=True, timeout=60)
    file.touch()
    command = [*prefix, str(program("hung")), str(file), str(user)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    with ExitStack() as stack:
        stack.callback(_unmount, file)
        stack.callback(server.wait)
        stack.callback(server.kill)
        assert server.stdout
        stack.enter_context(server.stdout)
        word, pid = server.stdout.readline().split()
        assert word == "ready"
        until(lambda: stuck_threads(int(pid)) == THREADS, 60)
        yield int(pid)


def stuck_threads(pid: int) -> int:
    """Return how many threads of the process wait in the kernel, deaf to signals."""
    stats = Path(f"/proc/{pid}/task").glob("*/stat")
    return sum(stat.read_text().rpartition(")")[2].split()[0] == "D" for stat in stats)


def _unmount(file: Path) -> None:
    with suppress(subprocess.CalledProcessError):
        subprocess.run(["umount", "--lazy", file], check=True, timeout=60)
