"""The guest as a host that has been up for long, for all tests of a run.

With `--dirty` each node is full of page cache, of which a part is not written yet, and what is
free is in small pieces. There are files in memory, swap, transparent huge pages, and programs that
share their memory in several ways. Each test starts on such a host, and must leave the programs
alone.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.balancing import setting
from tests.numa.dirt import (
    LITTLE,
    PageCache,
    count_killed,
    nothing_written_back,
    page_cache_on,
    tmpfs,
    write_zeros_on,
)
from tests.numa.disks import compressed_disk, swapping_to
from tests.numa.jobs import MIB, Job, cgroup, node_bytes
from tests.numa.puppet import Call, Memory, Puppet

SOME = 32
"""MiB of dirty cache, and of files in memory, on each node."""
SMALL = 4
"""MiB of each neighbour."""
BOUND = 2
"""MPOL_BIND"""


@dataclass(kw_only=True)
class Neighbours:
    """Programs that no test may harm, in a cgroup whose limit they have nearly reached."""

    jobs: dict[Job, int] = field(default_factory=dict)
    """To the node of its memory."""
    sums: list[str] = field(default_factory=list)
    puppet: Puppet
    views: list[Memory] = field(default_factory=list)
    """The same memory, mapped three times."""

    @classmethod
    def start(cls, stack: ExitStack) -> Neighbours:
        path = stack.enter_context(cgroup("neighbours"))
        puppet = stack.enter_context(Puppet())
        (path / "cgroup.procs").write_text(str(puppet.pid))
        here = cls(puppet=puppet)
        for node in (0, 1):
            job = stack.enter_context(Job("anon", SMALL, node, cgroup=path))
            here.jobs[job] = node
        forked, bound = here.jobs
        for _ in range(3):
            forked.say("fork")
        bound.say(f"policy {BOUND} 1")
        here.sums = [job.checksum() for job in here.jobs]
        file = puppet.call(Call.MEMFD_CREATE, puppet.pass_bytes(b"views\0"), 0)
        puppet.call(Call.FTRUNCATE, file, SMALL * MIB)
        size, shared = SMALL * MIB, mmap.MAP_SHARED
        here.views = [puppet.map(size, flags=shared, file=file) for _ in range(3)]
        puppet.fill(here.views[0], 2)
        (path / "memory.max").write_text(str(int((path / "memory.current").read_text()) + MIB))
        return here

    def check(self) -> None:
        """They run, have their data, and are where they were."""
        assert [job.checksum() for job in self.jobs] == self.sums
        for job, node in self.jobs.items():
            assert job.residency().keys() <= {node}
        for view in self.views:
            assert self.puppet.is_intact(view)


@dataclass(kw_only=True)
class DirtyHost:
    """The host; `make` makes it."""

    nodes: list[int]
    cache: PageCache
    neighbours: Neighbours
    killed: int

    @classmethod
    @contextmanager
    def make(cls, nodes: list[int], directory: Path) -> Iterator[DirtyHost]:
        with ExitStack() as stack:
            for name, value in (("enabled", "always"), ("defrag", "madvise")):
                path = f"/sys/kernel/mm/transparent_hugepage/{name}"
                stack.enter_context(setting(path, value))
            stack.enter_context(setting("/proc/sys/kernel/randomize_va_space", 2))
            stack.enter_context(nothing_written_back())
            stack.enter_context(compressed_swap(256))
            files = stack.enter_context(tmpfs(directory / "tmpfs"))
            for node in nodes:
                write_zeros_on(node, files / f"file-{node}", SOME)
            disk = stack.enter_context(compressed_disk(4096))
            yield cls(
                nodes=nodes,
                cache=stack.enter_context(page_cache_on(disk, directory / "disk")),
                neighbours=Neighbours.start(stack),
                killed=count_killed(),
            )

    def make_dirty(self) -> None:
        """Bring back what the test before has cleaned."""
        for node in self.nodes:
            if node_bytes(node, "Dirty") < SOME * MIB // 2:
                self.cache.dirty(node, SOME)
            self.cache.fill(node, LITTLE // 3)
            self.cache.punch(node, LITTLE * 2 // 3)

    def check(self) -> None:
        """No test may harm another program."""
        self.neighbours.check()
        assert count_killed() == self.killed


@contextmanager
def compressed_swap(mib: int) -> Iterator[None]:
    """Swap to a compressed disk."""
    with compressed_disk(mib) as device, swapping_to(device):
        yield
