"""Measure what Slurm's hooks add to srun(1): `python -m benchmarks.srun_hook_cost`, as root.

A real slurmctld and slurmd run `srun true` with prolog, task prolog and epilog, as
`contrib/slurm/install` writes them, and without any, in blocks that take turns; and, to tell where
the time goes, with hooks that are `/bin/true`. They run on this host, in namespaces of their own:
only its cgroups are touched. An agent is alive, and must know every job afterwards. The exit status
is 1 if our hooks add more than 0.012 s.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from statistics import median, quantiles

from benchmarks.hook_cost import agent, install
from schedhook.journal.journal import Journal
from tests.slurm.cluster import (
    CGROUPS,
    HAS_VERSION_2,
    NAMESPACES,
    USER,
    Cluster,
    running,
    wait_until,
)

ADDED_LIMIT = 0.012
HOOKS = {"Prolog": "prolog", "TaskProlog": "task_prolog", "Epilog": "epilog"}


def start_job(cluster: Cluster) -> float:
    """Return the seconds of one srun; wait until its epilog has ended."""
    before = time.perf_counter()
    cluster.command("srun", "-n1", "true", user=USER)
    seconds = time.perf_counter() - before
    wait_until(lambda: cluster.host_state() == "IDLE", 60, "the epilog", cluster.diagnosis)
    return seconds


def measure(
    cluster: Cluster, settings: Mapping[str, Mapping[str, str]], blocks: int, runs: int
) -> dict[str, list[float]]:
    """Return the seconds of each srun with each of these settings."""
    taken: dict[str, list[float]] = {name: [] for name in settings}
    for block in range(blocks):
        order = [*settings.items()]
        for name, lines in order if block % 2 else order[::-1]:
            cluster.reconfigure(**lines)
            start_job(cluster)  # fills caches
            taken[name] += [start_job(cluster) for _ in range(runs)]
    return taken


def check_journal(path: Path, jobs: int) -> None:
    """Wait until the journal has each job's prolog; raise Unexpected if it does not get them."""

    def known() -> int:
        with Journal.open(path, create=False) as journal:
            runs = journal.history(limit=10**6)
        return sum(any(event["point"] == "prolog" for event in run["events"]) for run in runs)

    wait_until(lambda: known() == jobs, 60, f"{jobs} jobs in the journal", lambda: f"{known()}")


def enter_namespaces() -> None:
    """Run this program again, where it may name hosts and users and start daemons."""
    command = ["unshare", "--mount", "--net", "--pid", "--fork", "--mount-proc", sys.executable]
    os.environ[NAMESPACES] = "1"
    os.execvp(command[0], [*command, "-m", "benchmarks.srun_hook_cost", *sys.argv[1:]])


def prepare() -> None:
    """Have a network, and files in /run and /etc that are not the host's."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "none", "/run"], check=True)
    for name in ("passwd", "group", "hosts"):
        shutil.copy2(f"/etc/{name}", "/run")
        subprocess.run(["mount", "--bind", f"/run/{name}", f"/etc/{name}"], check=True)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    subprocess.run(["ip", "link", "add", "slurm", "type", "bridge"], check=True)


def make_cluster() -> Cluster:
    """Return a cluster of one host, whatever version this host's cgroups are of."""
    settings = {"SelectTypeParameters": "CR_Core", "DefMemPerCPU": "0"}
    return Cluster(settings=settings, version_1=None if HAS_VERSION_2 else CGROUPS)


def remove_cgroups() -> None:
    """Remove what a slurmd leaves in hierarchies of version 1."""
    for top in CGROUPS.glob("*/slurm_n1"):
        for path in sorted((top, *top.rglob("*/")), reverse=True):
            with suppress(OSError):
                path.rmdir()


def main() -> int:
    """Return the exit status: 1 if the hooks cost more than the limit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--blocks", type=int, default=6)
    parser.add_argument("--runs", type=int, default=20, help="in each block")
    parser.add_argument("--each", action="store_true", help="also with each hook alone")
    options = parser.parse_args()
    if NAMESPACES not in os.environ:
        enter_namespaces()
    prepare()
    with (
        running(make_cluster()) as cluster,
        tempfile.TemporaryDirectory(dir="/run") as name,
        agent(Path(name), sys.executable),
    ):
        directory = Path(name)
        directory.chmod(0o755)
        hooks = directory / "hooks"
        install(hooks, sys.executable, directory / "agent.sock", directory / "spool")
        ours = {setting: str(hooks / name) for setting, name in HOOKS.items()}
        settings = {"no hooks": {}, "/bin/true": dict.fromkeys(HOOKS, "/bin/true"), "ours": ours}
        if options.each:
            settings |= {f"only {HOOKS[name]}": {name: path} for name, path in ours.items()}
        taken = measure(cluster, settings, options.blocks, options.runs)
        with_prolog = sum(lines.get("Prolog") == ours["Prolog"] for lines in settings.values())
        jobs = with_prolog * options.blocks * (options.runs + 1)
        check_journal(directory / "state/journal.db", jobs)
    remove_cgroups()
    without = median(taken["no hooks"])
    for what, seconds in taken.items():
        low, middle, high = quantiles([each * 1e3 for each in seconds], n=4)
        print(
            f"{what:16} median {middle:6.2f} ms, half of the runs in {low:.2f} to {high:.2f} ms,"
            f" {median(seconds) - without:+.4f} s"
        )
    print(f"limit for ours: {ADDED_LIMIT} s; load {os.getloadavg()[0]:.1f}")
    return 0 if median(taken["ours"]) - without <= ADDED_LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
