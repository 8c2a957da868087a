"""Write docs/images/before-after.svg: python docs/picture.py

The picture is what `schedhook relocate --svg` writes. Its host is made up: a snapshot of /proc and
/sys in a temporary directory, on which the simulated backend moves the memory of a Slurm job.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from schedhook.cli.main import main
from schedhook.testing.hosts import (
    FakeArea,
    FakeNode,
    write_cgroup,
    write_cgroup_mounts,
    write_file,
    write_host,
    write_process,
)

PICTURE = Path(__file__).with_name("images") / "before-after.svg"
JOB = "4711"

_MIB = 1 << 20
_PAGES = _MIB // 4096
_FREE = (9_800, 10_400, 15_100, 14_900)
"""MiB by node, of 16 GiB each."""
_TASKS = {
    # pid: (processors, command, MiB by node)
    20311: ("16-23", "./solver --mesh wing.h5 --rank 0", {0: 2900, 1: 140}),
    20312: ("24-31", "./solver --mesh wing.h5 --rank 1", {0: 90, 1: 2350}),
}


def write_snapshot(root: Path) -> None:
    """Write a host of four nodes; the job's processors are now on nodes 2 and 3."""
    nodes = [
        FakeNode(number=n, cpus=f"{8 * n}-{8 * n + 7}", memory=16384 * _MIB, free=free * _MIB)
        for n, free in enumerate(_FREE)
    ]
    write_host(root, nodes)
    write_cgroup_mounts(root)
    write_file(root, "proc/sys/kernel/hostname", "node07\n")
    for rank, (pid, (cpus, command, sizes)) in enumerate(_TASKS.items()):
        name = f"system.slice/slurmstepd.scope/job_{JOB}/step_0/user/task_{rank}"
        write_cgroup(root, name, pids=[pid])
        pages = {node: size * _PAGES for node, size in sizes.items()}
        heap = FakeArea(start=0x7F0000000000, size=sum(sizes.values()) * _MIB, pages=pages)
        arguments = command.encode().split()
        write_process(root, pid, areas=[heap], arguments=arguments, cpus=cpus, nodes="0-3")


def draw(picture: Path) -> None:
    """Relocate the job of the snapshot from nodes 0-1 to 2-3, and write the picture."""
    with tempfile.TemporaryDirectory() as directory:
        write_snapshot(Path(directory))
        words = ["relocate", "--root", directory, "--backend", "simulated", "--job", JOB]
        words += ["--from", "0-1", "--to", "2-3", "--svg", str(picture)]
        main(words, standalone_mode=False)


if __name__ == "__main__":
    draw(PICTURE)
