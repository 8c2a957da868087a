"""Made-up hosts with three Slurm jobs: on-node, half off-node, and with a hostile name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from schedhook.testing.hosts import (
    FakeArea,
    FakeNode,
    write_cgroup,
    write_cgroup_mounts,
    write_file,
    write_host,
    write_process,
)

MIB = 1 << 20
PAGES = MIB // 4096
HOSTILE = b"\x1b]0;owned\x07<script>alert(1)</script>&\"'[red]\xff\xe2\x80\xae\n"
"""A command that tries to set the terminal's title, run a script, and colour and reverse text."""
AREA = FakeArea(start=0x7F0000000000, size=12 * MIB, pages={0: 2048, 1: 1024})
"""8 MiB on node 0, 4 on node 1."""
FOUR = range(4)
MANY = range(64)
SCATTERED = (0, 1, 8, 252)


def make_host(root: Path, nodes: Iterable[int] = FOUR) -> Path:
    """Write a host of these nodes, with two processors and 64 GiB each, and three jobs.

    Job 71 has its memory on the node of its processors, the first. Of job 72's two processes, on
    the last node, one has its memory on the first. Job 73 runs on the second node, and its memory
    is spread over all.
    """
    numbers = list(nodes)
    processors = {node: (2 * i, 2 * i + 1) for i, node in enumerate(numbers)}
    write_host(
        root,
        [
            FakeNode(
                number=node,
                cpus=f"{cpus[0]}-{cpus[1]}",
                memory=65536 * MIB,
                free=(40000 + 300 * node) * MIB,
            )
            for node, cpus in processors.items()
        ],
    )
    write_cgroup_mounts(root)
    first, second, last = numbers[0], numbers[1], numbers[-1]
    add_job(root, 71, {7100: (processors[first][0], {first: 8000})})
    add_job(
        root,
        72,
        {
            7200: (processors[last][0], {last: 1200}),
            7201: (processors[last][1], {first: 1100, last: 3}),
        },
    )
    spread = {node: 100 + 10 * (i % 7) for i, node in enumerate(numbers)}
    add_job(root, 73, {7300: (processors[second][0], spread)}, command=HOSTILE)
    return root


def add_job(
    root: Path,
    job: int,
    processes: Mapping[int, tuple[int, Mapping[int, int]]],
    *,
    command: bytes = b"./simulate --steps 100000 --output /scratch/project/run-7/output.h5",
) -> None:
    """Write a job with processes by pid: (processor, MiB by node).

    Each of them also maps a file that 90 processes map.
    """
    for rank, (pid, (cpu, sizes)) in enumerate(processes.items()):
        name = f"system.slice/slurmstepd.scope/job_{job}/step_0/user/task_{rank}"
        write_cgroup(root, name, pids=[pid])
        pages = {node: size * PAGES for node, size in sizes.items()}
        heap = FakeArea(start=0x7F0000000000, size=sum(sizes.values()) * MIB, pages=pages)
        library = FakeArea(
            start=0x10000, size=2 * MIB, pages={0: 2 * PAGES}, path="/lib/libc.so.6", mappers=90
        )
        write_process(
            root, pid, areas=[heap, library], arguments=[command], cpus=str(cpu), nodes="0-252"
        )
        write_file(root, f"proc/{pid}/environ", "")
