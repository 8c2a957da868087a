"""Measure what a prolog adds to the start of a job: `python benchmarks/hook_cost.py [--runs N]`.

Slurm's prolog, as it is installed, runs while the agent is alive, hung (SIGSTOP), hung with no room
for further connections, killed (SIGKILL, which leaves its socket) and stopped. Each time is that of
the prolog and a job, a shell that ends at once; the same job without a prolog takes turns with it.
The exit status is 1 if a state adds more than 0.1 s, or if the prolog takes more than 1.5 times as
long as `python3 -I -S -c pass` while the agent is alive. Every event must be in the agent's journal
once afterwards.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles

from schedhook.journal.journal import Journal

INSTALL = Path(__file__).parents[1] / "contrib/slurm/install"
HOOKS = ("prolog", "task_prolog", "epilog")
ADDED_LIMIT = 0.1
"""Seconds by which a prolog may delay a job, whatever the agent does."""
RATIO_LIMIT = 1.5
"""Of the prolog's time, with an agent that is alive, to that of a bare interpreter."""
JOB = ["/bin/sh", "-c", ":"]
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
def agent(directory: Path, python: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a real agent, started like a service, with its socket at `directory`/agent.sock."""
    path = directory / "agent.sock"
    path.unlink(missing_ok=True)
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
        yield process
    finally:
        process.terminate()
        process.wait(90)


@contextmanager
def hung(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Stop the process for the block, as one that hangs: its socket stays open."""
    process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)


@contextmanager
def full_backlog(path: Path) -> Iterator[None]:
    """Open as many connections to a hung agent as the kernel keeps for it; see listen(2)."""
    with ExitStack() as stack:
        with suppress(BlockingIOError):
            while True:
                connection = stack.enter_context(socket.socket(socket.AF_UNIX))
                connection.setblocking(False)
                connection.connect(str(path))
        yield


@dataclass(frozen=True, slots=True)
class Cost:
    """Elapsed seconds and seconds of processor time of one process."""

    wall: float
    processor: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """What was measured in one state of the agent."""

    bare: list[Cost]
    """Of `python3 -I -S -c pass`."""
    prologs: list[Cost]
    without: list[float]
    """Seconds until a job without a prolog has ended."""
    with_prolog: list[float]

    @property
    def added(self) -> float:
        """Seconds that the prolog adds."""
        return median(self.with_prolog) - median(self.without)


def install(directory: Path, python: str, socket: Path, spool: Path) -> None:
    """Write Slurm's hooks as they are installed, with another socket and spool."""
    command = [python, str(INSTALL), "--directory", str(directory)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    for name in HOOKS:
        text = (directory / name).read_text()
        assert f"slurm {name}" in text
        words = f"slurm {name} --socket {socket} --spool {spool}"
        (directory / name).write_text(text.replace(f"slurm {name}", words))


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


class Measurement:
    """Runs the prolog for job after job, each with a number of its own."""

    def __init__(self, prolog: Path, python: str, runs: int) -> None:
        self._prolog = [str(prolog)]
        self._base = [python, "-I", "-S", "-c", "pass"]
        self._runs = runs
        self.jobs = 0

    def measure(self) -> Costs:
        """Run everything in turns, so that a busy machine affects all alike."""
        costs = Costs(bare=[], prologs=[], without=[], with_prolog=[])
        for run in range(self._runs + 1):
            steps = [self._run_bare, self._run_without, self._run_with]
            for step in steps[run % 3 :] + steps[: run % 3]:  # each is the first equally often
                step(costs)
        for taken in (costs.bare, costs.prologs, costs.without, costs.with_prolog):
            del taken[0]  # compiles and fills caches
        return costs

    def _run_bare(self, costs: Costs) -> None:
        costs.bare.append(timed(self._base, PROLOG))

    def _run_without(self, costs: Costs) -> None:
        costs.without.append(timed(JOB, PROLOG).wall)

    def _run_with(self, costs: Costs) -> None:
        self.jobs += 1
        environ = {**PROLOG, "SLURM_JOB_ID": str(self.jobs)}
        costs.prologs.append(timed(self._prolog, environ))
        costs.with_prolog.append(costs.prologs[-1].wall + timed(JOB, environ).wall)


def measure_states(directory: Path, python: str, runs: int) -> dict[str, Costs]:
    """Measure each state of the agent. Raise SystemExit if an event was lost or came twice."""
    path, spool = directory / "agent.sock", directory / "spool"
    install(directory / "hooks", python, path, spool)
    measurement = Measurement(directory / "hooks/prolog", python, runs)
    states = {}
    with agent(directory, sys.executable) as process:
        states["alive"] = measurement.measure()
        with hung(process):
            states["hung"] = measurement.measure()
            with full_backlog(path):
                states["hung, backlog full"] = measurement.measure()
        process.kill()
        process.wait()
        states["killed"] = measurement.measure()
    path.unlink()
    states["stopped"] = measurement.measure()
    with agent(directory, sys.executable):
        check_journal(directory / "state" / "journal.db", measurement.jobs)
    return states


def check_journal(path: Path, jobs: int, seconds: float = 120) -> None:
    """Wait until the journal has one event of each job; raise SystemExit if that is not so."""
    limit = time.monotonic() + seconds
    while True:
        with Journal.open(path, create=False) as journal:
            events = [len(run["events"]) for run in journal.history(limit=10**6)]
        if events == [1] * jobs:
            return
        if sum(events) > jobs or time.monotonic() > limit:
            what = f"{sum(events)} events of {len(events)} jobs"
            raise SystemExit(f"the journal has {what}, not one of each of {jobs}")
        time.sleep(0.5)


def print_start(costs: Costs) -> float:
    """Print the prolog's time beside that of a bare interpreter; return the ratio."""
    for what, taken in (("python3 -I -S -c pass", costs.bare), ("prolog", costs.prologs)):
        low, middle, high = quantiles([cost.wall * 1e3 for cost in taken], n=4)
        print(
            f"{what:22} median {middle:6.2f} ms, half of the runs in {low:.2f} to {high:.2f} ms,"
            f" {median(cost.processor for cost in taken) * 1e3:.2f} ms of processor time"
        )
    ratio = median(cost.wall for cost in costs.prologs) / median(cost.wall for cost in costs.bare)
    print(f"ratio {ratio:.2f} (limit {RATIO_LIMIT})\n")
    return ratio


def print_states(states: dict[str, Costs]) -> None:
    """Print for each state of the agent what the prolog adds to the start of a job."""
    for name, costs in states.items():
        without, with_prolog = median(costs.without), median(costs.with_prolog)
        print(
            f"agent {name:18}: job without prolog {without:.4f} s, with {with_prolog:.4f} s:"
            f" {costs.added:.4f} s more (limit {ADDED_LIMIT} s), ratio {with_prolog / without:.1f}"
        )


def main() -> int:
    """Return the exit status: 1 if the hook costs more than a limit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=300, help="in each state of the agent")
    parser.add_argument("--python", default=sys.executable, help="the hooks' interpreter")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        states = measure_states(Path(name), options.python, options.runs)
    ratio = print_start(states["alive"])
    print_states(states)
    print(
        f"{options.runs} runs in each state, load {os.getloadavg()[0]:.1f}"
        f" on {os.cpu_count()} processors"
    )
    worst = max(costs.added for costs in states.values())
    return 0 if ratio <= RATIO_LIMIT and worst <= ADDED_LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
