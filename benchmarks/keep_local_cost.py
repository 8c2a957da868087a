"""Measure what an agent with keep_local costs: `python benchmarks/keep_local_cost.py [--jobs N]`.

Run it as root on a host without Slurm and without an agent. It makes the cgroups that Slurm makes
for N jobs, each with two tasks that sleep, starts `schedhook agent` with keep_local, and prints the
CPU time of that process, in all of its threads, as a share of one CPU.
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
from pathlib import Path

from benchmarks.watch_cost import LIMIT, jobs
from schedhook.journal.errors import JournalError
from schedhook.journal.journal import Journal

INTERVAL = 20.0
"""Seconds between two looks at a job; as [keep_local] has it."""
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


def measure(count: int, seconds: float, *, keep_local: bool) -> float:
    """Return the share of one CPU that an agent uses for this many idle jobs."""
    with tempfile.TemporaryDirectory() as name, agent(Path(name), keep_local=keep_local) as pid:
        end = time.monotonic() + _START_SECONDS
        while known_jobs(Path(name)) < count:
            if time.monotonic() > end or not Path(f"/proc/{pid}/stat").exists():
                raise SystemExit(f"the agent knows {known_jobs(Path(name))} jobs only")
            time.sleep(1)
        # The first looks open the files, and read page tables where figures do not tell all: those
        # of one job in a second.
        time.sleep(2 * INTERVAL + (1.2 * count if keep_local else 0))
        before, began = processor_seconds(pid), time.monotonic()
        time.sleep(seconds)
        return (processor_seconds(pid) - before) / (time.monotonic() - began)


def main() -> int:
    """Return the exit status: 1 if the agent costs more than the limit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=120.0)
    options = parser.parse_args()
    with jobs(options.jobs) as version:
        shares = {
            kept: measure(options.jobs, options.seconds, keep_local=kept) for kept in (False, True)
        }
    print(
        f"{shares[True]:.3%} of one CPU (limit {LIMIT:.1%}) for an agent with keep_local and"
        f" {options.jobs} idle jobs of two tasks, cgroup v{version}, over {options.seconds:.0f} s;"
        f" without keep_local {shares[False]:.3%}"
    )
    return 0 if shares[True] <= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
