"""Measure what an agent with keep_local costs: `python benchmarks/keep_local_cost.py [--jobs N]`.

Run it as root on a host without Slurm and without an agent. It makes the cgroups that Slurm makes
for N jobs, each with two tasks that sleep, starts `schedhook agent` twice, without keep_local and
with it, and prints the CPU time of each process, in all of its threads, as a share of one CPU,
after nine minutes.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from benchmarks.watch_cost import LIMIT, jobs
from schedhook.journal.errors import JournalError
from schedhook.journal.journal import Journal

SETTLED = 330.0
"""Seconds after which the agent reads jobs as seldom as it ever does: those that have just started
are read more often."""
_START_SECONDS = 600.0


@contextlib.contextmanager
def agent(directory: Path, *, keep_local: bool) -> Iterator[int]:
    """Run an agent for the block and yield its process."""
    config = directory / "config.toml"
    config.write_text(
        f'[actions]\nkeep_local = {str(keep_local).lower()}\n[journal]\npath = "{directory}/db"\n'
        f'[log]\nlevel = "warning"\n'
    )
    command = [sys.executable, "-P", "-m", "schedhook.cli.main", "agent", "--config", str(config)]
    command += ["--socket", str(directory / "socket"), "--spool", str(directory / "spool")]
    process = subprocess.Popen(command)
    try:
        yield process.pid
    finally:
        process.terminate()
        process.wait()


def known_jobs(directory: Path) -> int:
    """Return of how many jobs the agent has recorded where their tasks are."""
    try:
        with Journal.open(directory / "db", create=False) as journal:
            return sum(bool(run["placements"]) for run in journal.history())
    except JournalError:
        return 0


def processor_seconds(pid: int) -> float:
    """Return the CPU time that the process has used; proc(5)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def wait_until_known(directory: Path, pid: int, count: int) -> None:
    """Wait until an agent knows all jobs."""
    end = time.monotonic() + _START_SECONDS
    while (known := known_jobs(directory)) < count:
        if time.monotonic() > end or not Path(f"/proc/{pid}/stat").exists():
            raise SystemExit(f"the agent knows {known} jobs only")
        time.sleep(1)


def measure(count: int, seconds: float) -> list[float]:
    """Return the shares of one CPU that two agents use at one time, without keep_local and with."""
    with ExitStack() as stack:
        agents = []
        for keep_local in (False, True):
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            pid = stack.enter_context(agent(directory, keep_local=keep_local))
            agents.append((directory, pid))
        for directory, pid in agents:
            wait_until_known(directory, pid, count)
        time.sleep(SETTLED)
        before, began = [processor_seconds(pid) for _, pid in agents], time.monotonic()
        time.sleep(seconds)
        span = time.monotonic() - began
        after = [processor_seconds(pid) for _, pid in agents]
        return [(late - early) / span for early, late in zip(before, after, strict=True)]


def main() -> int:
    """Return the exit status: 1 if an agent with keep_local costs more than the limit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=120.0)
    options = parser.parse_args()
    with jobs(options.jobs) as version:
        without, kept = measure(options.jobs, options.seconds)
    print(
        f"{kept:.3%} of one CPU (limit {LIMIT:.1%}) for an agent with keep_local and"
        f" {options.jobs} idle jobs of two tasks, cgroup v{version}, over {options.seconds:.0f} s;"
        f" without keep_local {without:.3%} at the same time"
    )
    return 0 if kept <= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
