"""Measure a prolog's cost with the agent running: `python benchmarks/hook_cost.py [--runs N]`.

Prints the time of contrib/slurm's prolog as a ratio to `python3 -I -S -c pass`, each the median of
many runs that take turns. Every prolog's event must be in the agent's journal afterwards; else no
figures are printed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles

from schedhook.journal.journal import Journal

INSTALL = Path(__file__).parents[1] / "contrib/slurm/install"
LIMIT = 1.5
PROLOG = {
    "SLURM_JOB_UID": "1000",
    "SLURM_JOB_USER": "alice",
    "SLURMD_NODENAME": "n1",
    "SLURM_CLUSTER_NAME": "cluster",
    "SLURM_JOB_PARTITION": "debug",
    "SLURM_JOB_CPUS_PER_NODE": "2",
    "SLURM_SCRIPT_CONTEXT": "prolog_slurmd",
    "SLURM_CONF": "/etc/slurm/slurm.conf",
}


@contextmanager
def agent(directory: Path, python: str) -> Iterator[Path]:
    """Run a real agent, started like a service; yield the path of its socket."""
    path = directory / "agent.sock"
    (directory / "config.toml").write_text(
        f'[journal]\npath = "{directory}/state/journal.db"\n[log]\nlevel = "warning"\n'
    )
    program = "from schedhook.cli.commands.agent import command; command()"
    command = [python, "-c", program, "--config"]
    command += [str(directory / "config.toml"), "--socket", str(path), "--spool"]
    process = subprocess.Popen([*command, str(directory / "spool")])
    try:
        limit = time.monotonic() + 60
        while not path.exists():
            if process.poll() is not None or time.monotonic() > limit:
                raise SystemExit("the agent does not start")
            time.sleep(0.05)
        yield path
    finally:
        process.terminate()
        process.wait(90)


@dataclass(frozen=True, slots=True)
class Cost:
    """Elapsed seconds and seconds of processor time of one process."""

    wall: float
    processor: float


def install(directory: Path, python: str, socket: Path) -> Path:
    """Write the prolog as it is installed, with another socket of the agent; return its path."""
    command = [python, str(INSTALL), "--directory", str(directory)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    prolog = directory / "prolog"
    prolog.write_text(prolog.read_text().replace("slurm prolog", f"slurm prolog --socket {socket}"))
    return prolog


def timed(command: Sequence[str], environ: dict[str, str]) -> Cost:
    """Run a command. Raise CalledProcessError if it fails."""
    before = time.perf_counter()
    process = subprocess.Popen(command, env=environ, stdin=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - before
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return Cost(wall, usage.ru_utime + usage.ru_stime)


def main() -> int:
    """Return the exit status: 1 if the hook costs more than the limit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=300)
    parser.add_argument("--python", default=sys.executable, help="the hooks' interpreter")
    options = parser.parse_args()
    bare: list[Cost] = []
    hooks: list[Cost] = []
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        with agent(directory, sys.executable) as socket:
            hook = [str(install(directory / "hooks", options.python, socket))]
            base = [options.python, "-I", "-S", "-c", "pass"]
            for run in range(options.runs + 1):
                job = {**PROLOG, "SLURM_JOB_ID": str(run + 1)}
                # In turns, each first equally often, so that a busy machine affects both alike.
                for which in (0, 1) if run % 2 else (1, 0):
                    if which:
                        hooks.append(timed(hook, job))
                    else:
                        bare.append(timed(base, job))
        with Journal.open(directory / "state" / "journal.db", create=False) as journal:
            recorded = len({run["job"] for run in journal.history(limit=10**6)})
    if recorded != options.runs + 1:
        raise SystemExit(f"only {recorded} of {options.runs + 1} jobs are in the journal")
    del bare[0], hooks[0]  # the first compiles and fills caches
    for what, costs in (("python3 -I -S -c pass", bare), ("prolog, agent running", hooks)):
        low, middle, high = quantiles([cost.wall * 1e3 for cost in costs], n=4)
        print(
            f"{what:24} median {middle:6.2f} ms, half of the runs in {low:.2f} to {high:.2f} ms,"
            f" {median(cost.processor for cost in costs) * 1e3:.2f} ms of processor time"
        )
    ratio = median(cost.wall for cost in hooks) / median(cost.wall for cost in bare)
    processor = median(cost.processor for cost in hooks) / median(cost.processor for cost in bare)
    print(
        f"ratio {ratio:.2f} (limit {LIMIT}), of processor time {processor:.2f};"
        f" {options.runs} runs each, load {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors"
    )
    return 0 if ratio <= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
