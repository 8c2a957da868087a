"""Faults x Slurm's hooks on a real slurmd: concurrent jobs, each with a fault of its own.

No host is drained, every job runs, and one line of the system's log for each hook names the fault.
tests/unit/faults tests the same hooks with more faults, without Slurm.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import pytest

from schedhook.hook import delivery
from schedhook.journal.journal import Journal
from tests.slurm.cluster import USER_ID, Cluster, wait_until
from tests.slurm.conftest import HOOK_SECONDS
from tests.unit.faults.faults import PROGRAM, PYTHON, Fault

HOOKS = ("prolog", "task_prolog", "epilog")
SECONDS_DEAF = 5
"""The time limit of a hook that does not end by itself; the others have HOOK_SECONDS.

It includes the start of the shell that ignores signals, on an emulated host with all these jobs.
"""
LOG = Path("/dev/log")
PWNED = Path("/run/pwned")
SERVER = """
import os, socket, sys, time
server = socket.socket(socket.AF_UNIX)
server.bind(sys.argv[1])
os.chmod(sys.argv[1], 0o666)
os.setuid(int(sys.argv[2]))
server.listen()
print("begun", flush=True)
time.sleep(600)
"""
PATIENCE = 5
"""Seconds: an agent on an emulated host, which has all these jobs at once, answers in time."""
TINY = """
[ -w /sys/fs/cgroup/cgroup.procs ] || exit 9
mkdir -p /sys/fs/cgroup/tiny && echo 400K > /sys/fs/cgroup/tiny/memory.max
echo $$ > /sys/fs/cgroup/tiny/cgroup.procs; exec "$@"
"""
NASTY = "x\nUserId=root(0)\n$(touch /run/pwned)`touch /run/pwned`;'\"|\\ \u202e\U0001f600"
LARGE = "export SLURM_X0=$(printf %0120000d 0)\n" + "".join(
    f"export SLURM_X{number}=$SLURM_X0\n" for number in range(1, 9)
)
LARGE += "srun true; "


@contextmanager
def served(directory: Path, user: int) -> Iterator[None]:
    """Serve the agent's socket with a program that accepts no connection."""
    command = [PYTHON, "-c", SERVER, directory / "agent.sock", str(user)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == b"begun\n"
            yield
        finally:
            process.kill()


@contextmanager
def full_spool(directory: Path) -> Iterator[None]:
    spool = directory / "spool"
    spool.mkdir(mode=0o700)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8k,mode=700", "none", spool], check=True)
    with pytest.raises(OSError, match="No space"), (spool / "full").open("wb", 0) as file:
        while True:
            file.write(b"x" * 4096)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", spool], check=True)


@contextmanager
def others_spool(directory: Path) -> Iterator[None]:
    (directory / "spool").mkdir(mode=0o700)
    shutil.chown(directory / "spool", USER_ID, USER_ID)
    yield


@contextmanager
def an_agent(directory: Path) -> Iterator[None]:
    """Run an agent with its own socket and spool, and with the journal that is there."""
    (directory / "config.toml").write_text(
        f'[agent]\nsocket = "{directory}/agent.sock"\nspool = "{directory}/spool"\n'
        f'[journal]\npath = "{directory}/journal.db"\n'
    )
    command = [sys.executable, "-P", "-m", "schedhook.cli.main", "agent", "--no-watch"]
    with (
        (directory / "agent.log").open("wb") as log,
        subprocess.Popen([*command, "--config", directory / "config.toml"], stderr=log) as agent,
    ):
        try:
            yield
        finally:
            agent.terminate()


@contextmanager
def newer_journal(directory: Path) -> Iterator[None]:
    Journal.open(directory / "journal.db").close()
    with contextlib.closing(sqlite3.connect(directory / "journal.db")) as journal:
        journal.execute("PRAGMA user_version = 99")
    with an_agent(directory):
        yield
        assert "written by a newer schedhook" in (directory / "agent.log").read_text()


@contextmanager
def corrupt_journal(directory: Path) -> Iterator[None]:
    (directory / "journal.db").write_bytes(b"garbage" * 9999)
    with an_agent(directory):
        yield
        assert "not a journal, or damaged" in (directory / "agent.log").read_text()


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A job, and the fault that exists while it starts and ends."""

    fault: Fault
    during: Callable[[Path], AbstractContextManager[None]] = lambda _: nullcontext()
    """Causes the fault in the job's directory."""
    options: tuple[str, ...] = ()
    script: str = ""


@contextmanager
def share_the_agent(directory: Path) -> Iterator[None]:
    (directory / "agent.sock").symlink_to("../agent/agent.sock")
    yield


OF_PROGRAM = (
    "program missing",
    "program not executable",
    "program crashes",
    "program deaf",
    "run.py missing",
    "no descriptors",
)
CASES = {
    **{name: Case(fault=PROGRAM[name]) for name in OF_PROGRAM},
    "program leaves a child that talks": Case(
        fault=Fault(
            wrapper=r"for each in 1 2 3 4; do printf '\033[31m\377\nexport X=1\n'; sleep 1; done &",
            named="",
        )
    ),
    "no room in its cgroup": Case(fault=Fault(wrapper=TINY, named="status 137", users="status 9")),
    "agent accepts nothing": Case(
        fault=Fault(named="has not answered", waits=True), during=lambda path: served(path, 0)
    ),
    "agent of another user": Case(
        fault=Fault(named="served by uid 54321"), during=lambda path: served(path, 54321)
    ),
    "spool's disk full": Case(
        fault=Fault(named="No space left", users="No such file"), during=full_spool
    ),
    "spool of another user": Case(
        fault=Fault(named="must belong to this user", users="No such file"), during=others_spool
    ),
    "journal newer": Case(fault=Fault(named=""), during=newer_journal),
    "journal corrupt": Case(fault=Fault(named=""), during=corrupt_journal),
    "name and environment": Case(
        fault=Fault(named=""),
        during=share_the_agent,
        options=(
            f"--job-name={NASTY}",
            f"--comment={NASTY}",
            "--export=ALL,PYTHONHOME=/nowhere,PYTHONPATH=/nowhere,IFS=/,ENV=/nowhere",
        ),
    ),
    "a large environment": Case(
        fault=Fault(named="", users="more than 1048576"), during=share_the_agent, script=LARGE
    ),
}


@contextmanager
def system_log() -> Iterator[list[str]]:
    """Collect the lines that are written to the system's log."""
    lines: list[str] = []
    LOG.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log:
        log.bind(str(LOG))
        LOG.chmod(0o666)

        def read() -> None:
            while text := log.recv(65536):
                lines.append(text.decode())

        reader = threading.Thread(target=read)
        reader.start()
        try:
            yield lines
        finally:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
                end.sendto(b"", str(LOG))
            reader.join()
            LOG.unlink()


def point_at_jobs(hooks: Path, base: Path) -> None:
    """Make the hooks use the Python, the agent and the spool in each job's directory."""
    site = base / "schedhook"
    site.mkdir()
    for name in ("run.py", "delivery.py", "fallback.py"):  # where every user may read them
        shutil.copy(Path(delivery.__file__).with_name(name), site)
    job = f"{base}/$SLURM_JOB_ID"
    for name in HOOKS:
        text = (hooks / name).read_text()
        for old, new in {
            sys.executable: f"{job}/python {PYTHON}",
            str(Path(delivery.__file__).parent): str(site),
            "--timeout": f"--patience {PATIENCE} --socket {job}/agent.sock"
            f" --spool {job}/spool --timeout",
            f"-k 1 {HOOK_SECONDS}": f"-k 1 $(cat {job}/seconds)",
            "-k 1 2": f"-k 1 {HOOK_SECONDS}",
        }.items():
            assert old in text
            text = text.replace(old, new)
        (hooks / name).write_text(text)


def states(cluster: Cluster, jobs: list[int]) -> set[str]:
    listed = ",".join(map(str, jobs))
    return set(cluster.command("squeue", "-h", "-tall", f"-j{listed}", "-o%T").split())


def is_expected(name: str, hook: str, lines: list[str]) -> bool:
    """Return whether one line names the fault, or none if the fault does not concern the hook."""
    fault = CASES[name].fault
    is_users = hook == "task_prolog" and fault.users is not None
    named = fault.users if is_users else fault.named
    return len(lines) == bool(named) and all(re.search(named or "", line) for line in lines)


def test_with_each_fault_jobs_run_and_no_host_is_drained(cluster: Cluster, hooks: Path) -> None:
    """The fixture `cluster` fails the test if a host was drained."""
    base = cluster.directory / "faults"
    (base / "agent").mkdir(parents=True)
    point_at_jobs(hooks, base)
    cluster.reconfigure(
        Prolog=f"{hooks}/prolog",
        Epilog=f"{hooks}/epilog",
        TaskProlog=f"{hooks}/task_prolog",
        SchedulerParameters="batch_sched_delay=0,sched_min_interval=0,sched_interval=5",
    )
    # The slow ones first: the others run at the same time.
    cases = dict(sorted(CASES.items(), key=lambda each: not each[1].fault.waits))
    jobs: dict[str, int] = {}
    with contextlib.ExitStack() as stack:
        log = stack.enter_context(system_log())
        stack.enter_context(an_agent(base / "agent"))
        for name, case in cases.items():
            script = f"{case.script}echo 42"
            jobs[name] = cluster.submit(script, "--hold", "-n1", *case.options)
            directory = base / str(jobs[name])
            directory.mkdir()
            case.fault.python(directory / "python")
            seconds = SECONDS_DEAF if name == "program deaf" else HOOK_SECONDS
            (directory / "seconds").write_text(str(seconds))
            stack.enter_context(case.during(directory))
        agents = [path.with_name("agent.sock") for path in base.glob("*/agent.log")]
        wait_until(lambda: all(path.exists() for path in agents), 120, "the agents")
        cluster.command("scontrol", "release", ",".join(map(str, jobs.values())))
        wait_until(
            lambda: states(cluster, [*jobs.values()]) == {"COMPLETED"},
            200,
            "the jobs to complete",
            cluster.diagnosis,
        )
        wait_until(
            lambda: {cluster.host_state(host) for host in cluster.hosts} == {"IDLE"},
            120,
            "the epilogs",
            cluster.diagnosis,
        )
    outputs = {name: cluster.output(job) for name, job in jobs.items()}
    assert outputs == dict.fromkeys(jobs, "42\n")
    logged = {
        (name, hook): [line for line in log if f" {hook}: job {job}:" in line]
        for name, job in jobs.items()
        for hook in HOOKS
    }
    wrong = {each: lines for each, lines in logged.items() if not is_expected(*each, lines)}
    assert not wrong
    assert all(line.isprintable() for line in log)
    assert not PWNED.exists()
    with Journal.open(base / "agent/journal.db") as journal:
        known = {int(entry["job"]) for entry in journal.history()}
        open_runs = journal.runs.list_open()
    assert known == {jobs[name] for name in CASES if CASES[name].during is share_the_agent}
    assert open_runs == ()
    print(f"hooks x faults on Slurm: {len(HOOKS)} x {len(jobs)}")
