"""Measure a busy host: `python -m benchmarks.load [--jobs N] [--hooks N] [--spooled N] [--rows N]`.

A tree of files stands for a host with a thousand Slurm jobs of eight processes. An agent watches
them and finds ten thousand events in its spool, while two hundred hooks call it at once. Then a
journal of a million rows is read. The exit status is 1 if an event was lost or handled twice, or if
`schedhook history` takes a second or more.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.hook_cost import PROLOG
from schedhook.hook import delivery
from schedhook.journal.journal import Journal
from schedhook.testing.hosts import (
    FakeNode,
    write_cgroup,
    write_cgroup_mounts,
    write_file,
    write_host,
    write_process,
)

HOOK = Path(delivery.__file__).with_name("run.py")
PROCESSES = 8
FIRST_JOB = 1000
FIRST_SPOOLED = 1_000_000
FIRST_HOOKED = 2_000_000
FIRST_PID = 5_000_000
"""Higher than the kernel's process ids, so that none is a process of this host."""
SECONDS = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """The result. Times are in seconds, sizes in bytes."""

    jobs: int
    hooks: int
    spooled: int
    lost: int
    """Events that are not in the journal, or not as handled."""
    twice: int
    """Events that are in the journal more than once."""
    hooks_seconds: float
    """Time until the last of the hooks, which all start at once, has ended."""
    events_seconds: float
    """Time until every event is handled and every job is in the journal."""
    idle_share: float
    """CPU time of the agent afterwards, as a share of one CPU."""
    peak_memory: int


def make_jobs(root: Path, jobs: int) -> None:
    """Write a host with Slurm's cgroups for this many jobs, each with one step of eight tasks."""
    write_host(root, [FakeNode(number=node, cpus=f"{4 * node}-{4 * node + 3}") for node in (0, 1)])
    write_cgroup_mounts(root)
    pid = FIRST_PID
    for job in range(FIRST_JOB, FIRST_JOB + jobs):
        name = f"system.slice/slurmstepd.scope/job_{job}"
        write_cgroup(root, name, cpus="0-7", effective_cpus="0-7", effective_nodes="0-1")
        for task in range(PROCESSES):
            leaf = f"{name}/step_0/user/task_{task}"
            write_cgroup(root, leaf, pids=[pid])
            write_process(root, pid, uid=1000, cpus=str(task), cgroup=f"0::/{leaf}\n", mounts=())
            write_file(root, f"proc/{pid}/environ", f"SLURM_PROCID={task}\0")
            pid += 1


def spool_events(spool: Path, count: int) -> None:
    """Write starts and ends of jobs to the spool, as hooks do."""
    spool.mkdir(mode=0o700)
    for number in range(count):
        job = FIRST_SPOOLED + number // 2
        environ = {b"SLURM_JOB_ID": str(job).encode(), b"SLURM_JOB_UID": b"1000"}
        point = "epilog" if number % 2 else "prolog"
        raw = delivery.make_message("slurm", point, environ, b"", False)
        (spool / f"{time.time_ns():020d}-{number}.event").write_bytes(raw)


@contextmanager
def agent(directory: Path) -> Iterator[int]:
    """Run a real agent for the host below `directory`; yield its pid."""
    (directory / "config.toml").write_text(
        f'[journal]\npath = "{directory}/state/journal.db"\n'
        '[watch]\nschedulers = ["slurm"]\n[log]\nlevel = "error"\n'
    )
    program = "from schedhook.cli.commands.agent import command; command()"
    words = ["--config", "config.toml", "--socket", "agent.sock", "--spool", "spool"]
    root = ["--root", str(directory / "host")]
    process = subprocess.Popen([sys.executable, "-c", program, *words, *root], cwd=directory)
    try:
        wait_until(lambda: (directory / "agent.sock").exists() or process.poll() is not None)
        yield process.pid
    finally:
        process.terminate()
        process.wait(90)


def call_hooks(directory: Path, count: int) -> float:
    """Start `count` hooks at once; return their seconds. Raise AssertionError if one fails."""
    words = [sys.executable, "-I", "-S", str(HOOK), "slurm", "prolog", "--strict"]
    words += [f"--socket={directory}/agent.sock", f"--spool={directory}/spool"]
    began = time.monotonic()
    hooks = [
        subprocess.Popen(
            words,
            env={**PROLOG, "SLURM_JOB_ID": str(FIRST_HOOKED + number)},
            stdin=subprocess.DEVNULL,
        )
        for number in range(count)
    ]
    assert [hook.wait() for hook in hooks] == [0] * count
    return time.monotonic() - began


def measure(directory: Path, *, jobs: int, hooks: int, spooled: int) -> Load:
    """Put the load on an agent, and check its journal afterwards."""
    make_jobs(directory / "host", jobs)
    spool_events(directory / "spool", spooled)
    wanted = spooled + hooks
    with agent(directory) as pid:
        began = time.monotonic()
        hooks_seconds = call_hooks(directory, hooks)
        with closing(Journal.open(directory / "state" / "journal.db", create=False)) as journal:

            def is_done() -> bool:
                handled = len(events(journal, finished=True))
                return handled >= wanted and known_jobs(journal) >= jobs + wanted - spooled // 2

            wait_until(is_done)
            events_seconds = time.monotonic() - began
            time.sleep(1.0)
            before, since = processor_time(pid), time.monotonic()
            time.sleep(5.0)
            share = (processor_time(pid) - before) / (time.monotonic() - since)
            peak = peak_memory(pid)
            counted = Counter(events(journal))
            done = Counter(events(journal, finished=True))
    return Load(
        jobs=jobs,
        hooks=hooks,
        spooled=spooled,
        lost=sum(1 for event in expected_events(hooks, spooled) if not done[event]),
        twice=sum(1 for count in counted.values() if count > 1),
        hooks_seconds=hooks_seconds,
        events_seconds=events_seconds,
        idle_share=share,
        peak_memory=peak,
    )


def expected_events(hooks: int, spooled: int) -> list[tuple[str, str]]:
    """Return (job, point) of each event of the load."""
    expected = [(str(FIRST_HOOKED + number), "prolog") for number in range(hooks)]
    for number in range(spooled):
        point = "epilog" if number % 2 else "prolog"
        expected.append((str(FIRST_SPOOLED + number // 2), point))
    return expected


def events(journal: Journal, *, finished: bool = False) -> list[tuple[str, str]]:
    """Return (job, point) of each event that a hook sent."""
    rows = journal.database.connection.execute(
        "SELECT job, point FROM events WHERE point IN ('prolog', 'epilog')"
        " AND (done IS NOT NULL OR NOT ?)",
        (finished,),
    )
    return [(row["job"], row["point"]) for row in rows]


def known_jobs(journal: Journal) -> int:
    """Return the number of runs in the journal."""
    found: int = journal.database.connection.execute("SELECT count(*) FROM runs").fetchone()[0]
    return found


def processor_time(pid: int) -> float:
    """Return the CPU time that a process has used, in seconds; proc(5)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_memory(pid: int) -> int:
    """Return the most bytes that a process has had resident; proc(5), VmHWM."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))


def wait_until(condition: object) -> None:
    """Wait until the condition is true. Raise AssertionError after ten minutes."""
    end = time.monotonic() + SECONDS
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.1)


# -- a long history ------------------------------------------------------------------------------


def write_history(path: Path, rows: int) -> int:
    """Write a journal of `rows` rows, and return the number of jobs.

    The jobs are of the last 80 days, each with 4 events, 4 placements and a report.
    """
    Journal.open(path).close()
    jobs = rows // 10
    report = (
        '{"outcome": "complete", "bytes_moved": 1048576, "bytes_left": 0, "node_map": {"0": 1},'
        ' "processes": []}'
    )
    first = time.time() - 80 * 86400
    with closing(Journal.open(path)) as journal:
        write = journal.database.connection.execute
        write("BEGIN")
        for job in range(jobs):
            at = first + job * 79 * 86400 / jobs
            write(
                "INSERT INTO runs (id, scheduler, job, user, hooked, started, ended)"
                " VALUES (?, 'slurm', ?, 1000, 1, ?, ?)",
                (job + 1, str(job), at, at + 3600),
            )
            for number, point in enumerate(("prolog", "task-prolog", "look", "epilog")):
                write(
                    "INSERT INTO placements (run, task, cpus, nodes, settled, at)"
                    " VALUES (?, ?, '0-3', '0', 1, ?)",
                    (job + 1, f"0.{number}", at),
                )
                write(
                    "INSERT INTO events (at, scheduler, point, job, host, data, done, summary)"
                    " VALUES (?, 'slurm', ?, ?, 'n1', '{}', ?, 'done')",
                    (at + number, point, str(job), at + number),
                )
            write(
                "INSERT INTO reports (at, scheduler, job, outcome, report)"
                " VALUES (?, 'slurm', ?, 'complete', ?)",
                (at + 3, str(job), report),
            )
        write("COMMIT")
    return jobs


def history_seconds(path: Path, *arguments: str) -> float:
    """Return how long `schedhook history` takes, in seconds, including the start of Python."""
    config = path.with_name("config.toml")
    config.write_text(f'[journal]\npath = "{path}"\n')
    program = "from schedhook.cli.main import run; run()"
    words = [sys.executable, "-P", "-c", program, "history", "--config", str(config), *arguments]
    began = time.monotonic()
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - began


def delete_a_day(path: Path) -> tuple[int, float]:
    """Delete the oldest day as the agent does every hour; return (jobs, seconds)."""
    with closing(Journal.open(path)) as journal:
        began = time.monotonic()
        jobs = journal.prune(79, 1000)
        return jobs, time.monotonic() - began


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--hooks", type=int, default=200)
    parser.add_argument("--spooled", type=int, default=10_000)
    parser.add_argument("--rows", type=int, default=1_000_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        load = measure(Path(name), jobs=options.jobs, hooks=options.hooks, spooled=options.spooled)
    print(
        f"{load.jobs} jobs of {PROCESSES} processes watched, {load.spooled} events in the spool,"
        f" {load.hooks} hooks at once:\n"
        f"  lost {load.lost}, twice {load.twice}; hooks ended after {load.hooks_seconds:.1f} s,"
        f" all handled after {load.events_seconds:.1f} s\n"
        f"  agent: at most {load.peak_memory / (1 << 20):.0f} MiB, afterwards"
        f" {load.idle_share:.2%} of one CPU"
    )
    with tempfile.TemporaryDirectory() as name:
        path = Path(name, "journal.db")
        jobs = write_history(path, options.rows)
        size = path.stat().st_size / (1 << 20)
        times = [min(history_seconds(path, *more) for _ in range(3)) for more in ((), ("77",))]
        deleted, seconds = delete_a_day(path)
    print(
        f"journal of {options.rows} rows, {jobs} jobs, {size:.0f} MiB:"
        f" history {times[0]:.2f} s, history JOB {times[1]:.2f} s (limit 1 s),"
        f" deleting {deleted} jobs {seconds:.2f} s"
    )
    return 0 if load.lost == load.twice == 0 and max(times) < 1.0 else 1


if __name__ == "__main__":
    sys.exit(main())
