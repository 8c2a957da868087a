"""Jobs on the test cluster whose tasks (task.c) have memory, and the nodes where it lies."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.slurm.cluster import Cluster, Unexpected, wait_until

SOURCE = Path(__file__).with_name("task.c")
BINARY = Path("/run/slurm-test-task")
MIB = 1 << 20
ENOUGH = 0.999


@cache
def program() -> Path:
    """Compile the task and return its path."""
    command = ["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-pthread", "-o", BINARY, SOURCE]
    subprocess.run(command, check=True, timeout=120)
    return BINARY


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A job whose tasks have filled their memory."""

    cluster: Cluster
    job: int
    tasks: tuple[int, ...]
    """The process of each rank."""
    stop: Path

    def finish(self) -> list[str]:
        """Let the tasks check their memory and end; return the lines that they print, sorted."""
        self.stop.touch()
        self.cluster.wait_for_state(self.job, "COMPLETED")
        return sorted(re.findall(r"^rank .*$", self.cluster.output(self.job), re.MULTILINE))

    def shares(self, nodes: tuple[int, ...]) -> list[float]:
        """Return, for each rank, the share of its large areas on the node of the same index."""
        residencies = [residency(pid) for pid in self.tasks]
        return [
            its.get(node, 0) / max(sum(its.values()), 1)
            for its, node in zip(residencies, nodes, strict=True)
        ]


def new_stop(cluster: Cluster) -> Path:
    """Return the path of a file that tells tasks to end, which no earlier job has used."""
    return cluster.work / f"{time.time_ns()}.stop"


def start(
    cluster: Cluster, *, mib: int = 100, threads: int = 0, bind: str = "map_cpu:0,1"
) -> Running:
    """Start a job of two tasks on n1, bound to processors 0 and 1, with `mib` MiB each."""
    stop = new_stop(cluster)
    script = f"srun --cpu-bind={bind} {program()} {mib} {stop} {threads}"
    job = cluster.submit(script, "-n2", "-w", "n1")
    return Running(cluster=cluster, job=job, tasks=ready(cluster, job, stop, tasks=2), stop=stop)


def ready(cluster: Cluster, job: int, stop: Path, *, tasks: int) -> tuple[int, ...]:
    """Wait until as many tasks have filled their memory and return their processes by rank."""

    def files() -> list[tuple[int, int]]:
        words = (path.name.rsplit(".", 2)[1:] for path in stop.parent.glob(f"{stop.name}.*.*"))
        return sorted((int(rank), int(pid)) for rank, pid in words)

    try:
        wait_until(lambda: len(files()) >= tasks, 120, f"{tasks} tasks of {stop.stem}")
    except Unexpected as error:
        raise Unexpected(f"{error}{cluster.diagnosis(job)}") from None
    return tuple(pid for _, pid in files())


@contextmanager
def full_node(cluster: Cluster, node: int, left_mib: int = 120) -> Iterator[None]:
    """Let another process fill the node for the block, up to `left_mib`.

    Processors keep free pages for themselves, up to 34 MiB each on Linux 6.12, which are not in
    MemFree: what is to have no room needs more than these and `left_mib`.
    """
    stop = new_stop(cluster)
    about = Path(f"/sys/devices/system/node/node{node}/meminfo").read_text()
    mib = int(about.partition("MemFree:")[2].split()[0]) // 1024 - left_mib
    command = ["numactl", f"--membind={node}", str(program()), str(mib), str(stop)]
    with subprocess.Popen(command, env={**os.environ, "SLURM_PROCID": "0"}) as process:
        try:
            wait_until(lambda: any(stop.parent.glob(f"{stop.name}.*")), 60, f"node {node} to fill")
            yield
        finally:
            process.kill()


def residency(pid: int, least: int = 16 * MIB) -> dict[int, int]:
    """Return bytes per node in areas of at least `least` bytes, without schedhook's own reader."""
    total: dict[int, int] = {}
    for line in Path(f"/proc/{pid}/numa_maps").read_text().splitlines():
        unit = int((re.search(r"kernelpagesize_kB=(\d+)", line) or [0, "0"])[1]) << 10
        its = {int(node): int(pages) * unit for node, pages in re.findall(r" N(\d+)=(\d+)", line)}
        if sum(its.values()) >= least:
            for node, size in its.items():
                total[node] = total.get(node, 0) + size
    return total
