"""What a hostile user runs: `python3 -I hostile.py SOCKET ATTACK…`, each attack in a process."""

from __future__ import annotations

import ctypes
import mmap
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable

PAGE = mmap.PAGESIZE
FLIPPED = 20 << 20
"""Bytes of the process that changes its binding all the time."""


def flip(_socket: str) -> None:
    """Bind itself to another processor every second."""
    memory = mmap.mmap(-1, FLIPPED)
    memory.write(b"1" * FLIPPED)
    cpus = sorted(os.sched_getaffinity(0))
    while True:
        for cpu in cpus:
            os.sched_setaffinity(0, {cpu})
            time.sleep(1)


def areas(_socket: str) -> None:
    """Have ten thousand areas, each with a page."""
    memory = mmap.mmap(-1, 20_000 * PAGE)
    libc = ctypes.CDLL(None)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for number in range(0, 20_000, 2):
        memory[number * PAGE] = 1
        libc.mprotect(ctypes.c_void_p(start + number * PAGE), PAGE, mmap.PROT_READ)
    threading.Event().wait()


def threads(_socket: str) -> None:
    """Have a thousand threads."""
    threading.stack_size(1 << 16)
    for _ in range(1000):
        threading.Thread(target=threading.Event().wait, daemon=True).start()
    threading.Event().wait()


def names(_socket: str) -> None:
    """Give the program and its thread names that control a terminal."""
    ctypes.CDLL(None).prctl(15, b"\x1b[2J\nUid:\t0", 0, 0, 0)
    words = ["\x1b]0;owned\x07\n", "x" * 100_000]
    code = "import threading; threading.Event().wait()"
    subprocess.run([sys.executable, "-I", "-S", "-c", code, *words], check=False)


def births(_socket: str) -> None:
    """Start programs without end, by vfork(2)."""
    while True:
        subprocess.run(["/bin/true"], check=False)


def flood(path: str) -> None:
    """Send the agent events that it must refuse, and messages that never end."""
    message = b'{"scheduler": "slurm", "point": "prolog", "environ": {"SLURM_JOB_ID": "1"}}\n'
    while True:
        for data in (message, b"\0" * 100_000, b"{" * 1000):
            client = socket.socket(socket.AF_UNIX)
            client.settimeout(0.1)
            try:
                client.connect(path)
                client.sendall(data)
            except OSError:
                pass
            time.sleep(0.002)
            client.close()


ATTACKS: dict[str, Callable[[str], None]] = {
    each.__name__: each for each in (flip, areas, threads, names, births, flood)
}


def main() -> None:
    """Run every attack that is named until this process is killed."""
    path, *wanted = sys.argv[1:]
    for name in wanted:
        if os.fork() == 0:
            ATTACKS[name](path)
    threading.Event().wait()


if __name__ == "__main__":
    main()
