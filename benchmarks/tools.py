"""The programs that are measured, and the process whose memory they move.

Nothing of schedhook is imported here: it is run as a command, like its peers.
"""

from __future__ import annotations

import contextlib
import json
import re
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
MIB = 1 << 20
PAGE = resource.getpagesize()
TIMEOUT = 600


@cache
def compiled(name: str) -> Path:
    """Compile `name`.c and return the program's path."""
    binary = Path(f"/dev/shm/schedhook-bench-{name}")
    command = ["gcc", "-O2", "-pthread", "-o", str(binary), str(HERE / f"{name}.c")]
    subprocess.run(command, check=True, timeout=120)
    return binary


def call(*words: object) -> str:
    """Run a command, which must succeed; return its standard output."""
    command = [str(word) for word in words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    if done.returncode:
        raise RuntimeError(f"{command}: exit status {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout


def schedhook(*words: object) -> dict[str, Any]:
    """Return what `schedhook … --json` prints. -P: use the installed package, not this checkout."""
    text = call(sys.executable, "-P", "-m", "schedhook.cli.main", *words, "--json")
    answer: dict[str, Any] = json.loads(text)
    return answer


class Target:
    """A running target.c."""

    def __init__(self, kind: str, mib: int, node: int, within: Path | None = None) -> None:
        self.kind, self.node = kind, node
        self.used = mib * MIB
        command = [str(compiled("target")), kind, str(mib), str(node)]
        if within:
            # Before it has any memory, which stays charged to the cgroup of its first use.
            command = [
                "sh",
                "-c",
                'echo $$ > "$0" && exec "$@"',
                f"{within}/cgroup.procs",
                *command,
            ]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        self.pid = self.process.pid
        _, start, size = self._line().split()
        self.start, self.size = int(start, 16), int(size)

    @property
    def pids(self) -> list[int]:
        """The processes that have the memory."""
        if self.kind != "processes":
            return [self.pid]
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
        return [int(word) for word in children.split()]

    def probe(self) -> None:
        """Start the thread that measures how long it has to wait."""
        self._say("probe")
        time.sleep(0.3)
        self.stall()

    def work(self) -> None:
        """Start the thread that reads, writes and allocates as long as the target lives."""
        self._say("work")

    def stall(self) -> tuple[float, float]:
        """Return the longest write and map-and-unmap since the last call, in seconds."""
        touch, mapping = self._say("stall").split()
        return int(touch) / 1e9, int(mapping) / 1e9

    def huge_bytes(self) -> int:
        """Return the bytes in transparent huge pages."""
        text = Path(f"/proc/{self.pid}/smaps_rollup").read_text()
        return int(text.partition("AnonHugePages:")[2].split()[0]) << 10

    def share_on(self, node: int) -> float:
        """Return the share of its memory that is on `node`, from numa_maps."""
        pages: dict[int, int] = {}
        maps = [Path(f"/proc/{pid}/numa_maps").read_text() for pid in self.pids]
        for line in "".join(maps).splitlines():
            if self.start <= int(line.split()[0], 16) < self.start + self.size:
                for where, count in re.findall(r" N(\d+)=(\d+)", line):
                    pages[int(where)] = pages.get(int(where), 0) + int(count)
        return pages.get(node, 0) / max(1, sum(pages.values()))

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream:
                stream.close()

    def _say(self, line: str) -> str:
        assert self.process.stdin
        self.process.stdin.write(line + "\n")
        return self._line()

    def _line(self) -> str:
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the target ended with {self.process.wait()}")
        return line.strip()


@contextlib.contextmanager
def target(kind: str, mib: int, node: int, within: Path | None = None) -> Iterator[Target]:
    """Run a target during the block, in the cgroup `within` if that is given."""
    running = Target(kind, mib, node, within)
    try:
        if kind == "thp" and running.huge_bytes() < 0.99 * running.used:
            raise RuntimeError("the kernel gave no huge pages: node too small, or fragmented")
        yield running
    finally:
        running.stop()


@contextlib.contextmanager
def room_for_areas(count: int) -> Iterator[None]:
    """Let processes have `count` areas, and some more, during the block."""
    most = Path("/proc/sys/vm/max_map_count")
    before = most.read_text()
    most.write_text(str(max(int(before), count + 1000)))
    try:
        yield
    finally:
        most.write_text(before)


def huge_page() -> int:
    """Return the size of a transparent huge page in bytes."""
    return int(Path("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size").read_text())


def free_bytes(node: int) -> int:
    """Return MemFree of a node in bytes."""
    text = Path(f"/sys/devices/system/node/node{node}/meminfo").read_text()
    return int(text.partition("MemFree:")[2].split()[0]) << 10


def tidy() -> None:
    """Drop the page cache and compact memory, so that no program pays for another's traces."""
    Path("/proc/sys/vm/drop_caches").write_text("3")
    Path("/proc/sys/vm/compact_memory").write_text("1")
