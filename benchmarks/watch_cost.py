"""Measure the watcher's cost while nothing happens: `python benchmarks/watch_cost.py [--jobs N]`.

Run it as root on a host without Slurm. It makes the cgroups that Slurm makes for N jobs, each with
a step of two tasks (processes that sleep), watches them as the agent does by default, and prints
the CPU time as a share of one CPU.
"""

from __future__ import annotations

import argparse
import contextlib
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from schedhook.agent.watcher import Watcher
from schedhook.plugins.loading import load_plugins
from schedhook.values.config import Config
from schedhook.values.model import Event

LIMIT = 0.005
FIRST_JOB = 900_001
CGROUP = Path("/sys/fs/cgroup")


@contextlib.contextmanager
def jobs(count: int) -> Iterator[str]:
    """Make Slurm's cgroups and yield their version: 2 if it has the cpuset controller, else 1."""
    version_2 = "cpuset" in _read(CGROUP / "cgroup.controllers").split()
    one = [CGROUP / "cpuset/slurm", CGROUP / "memory/slurm"]
    tops = [CGROUP / "system.slice/slurmstepd.scope"] if version_2 else one
    for top in tops:
        if top.exists():
            raise SystemExit(f"{top} exists: Slurm runs on this host; use another one")
    step = "step_0/user/task_0" if version_2 else "step_0/task_0"
    job = "job_{}" if version_2 else "uid_1000/job_{}"
    processes: list[subprocess.Popen[bytes]] = []
    made: list[Path] = []
    try:
        for number in range(FIRST_JOB, FIRST_JOB + count):
            leaves = [top / job.format(number) / step for top in tops]
            for leaf in leaves:
                _make(leaf, version_2, made)
            for rank in range(2):
                environ = {"SLURM_PROCID": str(rank), "SLURM_JOB_ID": str(number)}
                process = subprocess.Popen(["/bin/sleep", "3600"], env=environ)
                processes.append(process)
                for leaf in leaves:
                    (leaf / "cgroup.procs").write_text(str(process.pid))
        yield "2" if version_2 else "1"
    finally:
        for process in processes:
            process.kill()
            process.wait()
        for path in reversed(made):
            path.rmdir()


def _make(leaf: Path, version_2: bool, made: list[Path]) -> None:
    for path in reversed((leaf, *leaf.parents)):
        if not path.exists():
            if version_2:
                for controller in ("+cpuset", "+memory"):
                    with contextlib.suppress(OSError):
                        (path.parent / "cgroup.subtree_control").write_text(controller)
            path.mkdir()
            made.append(path)
            if path.is_relative_to(CGROUP / "cpuset"):
                for name in ("cpuset.cpus", "cpuset.mems"):
                    (path / name).write_text(_read(path.parent / name))


def _read(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def main() -> int:
    """Return the exit status: 1 if the watcher costs more than the limit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=120.0)
    options = parser.parse_args()
    config = Config()
    adapters = [load_plugins(config).scheduler(name).create(Path("/")) for name in ("slurm", "pbs")]
    with jobs(options.jobs) as version, select.epoll() as poller:
        events: list[Event] = []
        watcher = Watcher(adapters, config.watch, events.append, poller)
        while len(watcher.jobs) < options.jobs:
            watcher.tick(time.monotonic())
        wait(watcher, poller, 5.0)
        reported = len(events)
        files = sum(1 for _ in Path("/proc/self/fd").iterdir())
        before, began = time.process_time(), time.monotonic()
        wait(watcher, poller, options.seconds)
        share = (time.process_time() - before) / (time.monotonic() - began)
        watcher.close()
    print(
        f"{share:.3%} of one CPU (limit {LIMIT:.1%}) for {options.jobs} idle jobs of two"
        f" tasks, cgroup v{version}, {files} files open, over {options.seconds:.0f} s"
    )
    unexpected = [event for event in events[reported:] if event.point != "look"]
    if unexpected:
        raise SystemExit(f"the jobs were not idle: {unexpected[:3]}")
    return 0 if share <= LIMIT else 1


def wait(watcher: Watcher, poller: select.epoll, seconds: float) -> None:
    """Tick as the agent's loop does."""
    end = time.monotonic() + seconds
    while (now := time.monotonic()) < end:
        wake = watcher.tick(now)
        for descriptor, _ in poller.poll(max(0.0, min(wake, end) - time.monotonic())):
            watcher.notified(descriptor, time.monotonic())


if __name__ == "__main__":
    sys.exit(main())
