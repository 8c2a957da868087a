"""A host to which everything happens at random, and what must hold whatever happens.

`Host.step` does one thing: it starts or ends a job, gives it other processors, relocates or
suspends it, kills what relocates it, the agent or a hook, or fills a node. Then `Host.check` looks.
"""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# Forks of this process run these commands, and need not import them.
from schedhook.cli.commands import agent as _agent  # noqa: F401
from schedhook.cli.commands import relocate as _relocate  # noqa: F401
from schedhook.cli.main import main
from schedhook.control.undo import recover
from schedhook.journal.journal import Journal
from tests.forked import Child, in_child
from tests.numa.agents import PATIENCE, hook_command, recorded
from tests.numa.dirt import count_killed, taken
from tests.numa.jobs import Job, free_bytes
from tests.numa.killing import settle
from tests.numa.slurm_jobs import slurm_job

MIB = 24
"""Of each task."""
NODES = range(4)
MOST_JOBS = 3
FREE_MIB = 200
"""What is left of a node that is filled: more than the reserve, less than two jobs."""
SETTLED = 60.0
"""Seconds within which an agent, or what is left of a relocation, restores a job."""
ENOUGH = 0.99
RECORDS = Path("/run/schedhook/rollback")


@dataclass(kw_only=True)
class ChaosJob:
    """A job of two tasks, and what was last asked of it."""

    name: str
    cgroup: Path
    tasks: list[Job]
    sums: list[str]
    stack: ExitStack
    cpus: frozenset[int]
    suspended: str = ""
    """How: `freeze`, `stop`, or not at all."""
    interrupted: set[int] = field(default_factory=set)
    """Tasks of which a relocation was killed: their memory stays where it was by then."""
    is_hooked: bool = False
    """A hook may have told of it, so that one must tell of its end."""

    @property
    def freezer(self) -> Path:
        return self.cgroup / "step_0/user/cgroup.freeze"

    def is_frozen(self) -> bool:
        return any(file.read_text().strip() == "1" for file in self.cgroup.rglob("cgroup.freeze"))

    def suspend(self, how: str) -> None:
        self.suspended = how
        if how == "freeze":
            self.freezer.write_text("1")
        for task in self.tasks if how == "stop" else ():
            os.kill(task.pid, signal.SIGSTOP)

    def resume(self) -> None:
        if self.suspended == "freeze":
            self.freezer.write_text("0")
        for task in self.tasks:
            os.kill(task.pid, signal.SIGCONT)
        self.suspended = ""

    def end(self) -> None:
        self.resume()
        self.stack.close()

    def strays(self) -> dict[int, dict[int, int]]:
        """Return the residency of each task of which memory is not on its processors' nodes."""
        found = {}
        for task in self.tasks:
            local = sum(map(task.share_on, os.sched_getaffinity(task.pid)))
            if local < ENOUGH:
                found[task.pid] = task.residency()
        return found


@dataclass(kw_only=True)
class Host:
    """Four nodes with a processor each, jobs as Slurm makes them, and an agent."""

    directory: Path
    dice: random.Random
    jobs: list[ChaosJob] = field(default_factory=list)
    steps: dict[str, int] = field(default_factory=dict)
    checks: int = 0
    started: int = 0
    agent: int = 0
    oom_kills: int = field(default_factory=count_killed)

    # -- what happens --------------------------------------------------------------------------

    def step(self) -> str:
        """Do one thing and return what it was."""
        act, weight = zip(*STEPS.items(), strict=True)
        (chosen,) = self.dice.choices(act, weight)
        said: str = chosen(self)
        time.sleep(self.dice.uniform(0, 1))
        self.steps[chosen.__name__] = self.steps.get(chosen.__name__, 0) + 1
        return f"{chosen.__name__} {said}"

    def start_job(self) -> str:
        if len(self.jobs) == MOST_JOBS:
            return self.end_job()
        self.started += 1
        name, nodes = str(5000 + self.started), tuple(self.dice.sample(NODES, 2))
        stack = ExitStack()
        cgroup, tasks = stack.enter_context(slurm_job(name, MIB, nodes))
        sums = [task.checksum() for task in tasks]
        cpus = frozenset(nodes)
        job = ChaosJob(name=name, cgroup=cgroup, tasks=tasks, sums=sums, stack=stack, cpus=cpus)
        self.jobs.append(job)
        # The journal does not tell where the memory was before it knew the job.
        bound = sorted(map(str, nodes))
        assert settle(lambda: self._recorded(name) == bound, PATIENCE), self.log.read_text()[-3000:]
        return f"{name} on {nodes}"

    def end_job(self) -> str:
        job = self.jobs.pop(self.dice.randrange(len(self.jobs)))
        job.end()
        if job.is_hooked:
            with self._hook("epilog", job):
                pass
        return job.name

    def write_cpuset(self) -> str:
        job = self.dice.choice(self.jobs)
        job.cpus = frozenset(self.dice.sample(NODES, 2))
        (job.cgroup / "cpuset.cpus").write_text(",".join(map(str, sorted(job.cpus))))
        return f"{job.name} {sorted(job.cpus)}"

    def bind_task(self) -> str:
        job = self.dice.choice(self.jobs)
        task, cpu = self.dice.choice(job.tasks), self.dice.choice(sorted(job.cpus))
        os.sched_setaffinity(task.pid, {cpu})
        return f"{job.name} {task.pid} to {cpu}"

    def relocate(self) -> str:
        _, _, words, said = self._relocation()
        status = self._run(words)
        assert status in (0, 3, 4), status
        return f"{said}: {status}"

    def kill_relocation(self) -> str:
        """Kill the program that relocates, and its helper too or not."""
        job, task, words, said = self._relocation()
        job.interrupted.add(task.pid)
        child = in_child(self._command([*words, "--bandwidth", "24"]), self.log)
        time.sleep(self.dice.uniform(0, 3))
        both = self.dice.random() < 0.5
        children = Path(f"/proc/{child}/task/{child}/children").read_text().split()
        for pid in [*map(int, children if both else ()), child]:
            os.kill(pid, signal.SIGKILL)
        os.waitpid(child, 0)
        return f"{said}, helper too" if both else said

    def suspend_or_resume(self) -> str:
        job = self.dice.choice(self.jobs)
        if job.suspended:
            job.resume()
        else:
            job.suspend(self.dice.choice(["freeze", "stop"]))
        return f"{job.name} {job.suspended or 'resumed'}"

    def kill_agent(self) -> str:
        os.kill(self.agent, signal.SIGKILL)
        os.waitpid(self.agent, 0)
        self.start_agent()
        return str(self.agent)

    def kill_hook(self) -> str:
        """Run a hook of the scheduler, and kill it or let it end."""
        job, point = self.dice.choice(self.jobs), self.dice.choice(["prolog", "job-migrate"])
        job.is_hooked = True
        with self._hook(point, job) as process:
            time.sleep(self.dice.uniform(0, 3))
            process.kill()
        return f"{point} {job.name}: {process.returncode}"

    @contextmanager
    def _hook(self, point: str, job: ChaosJob) -> Iterator[subprocess.Popen[bytes]]:
        """Run a hook as slurmd does, and wait for it."""
        command = hook_command(self.directory, point)
        environment = {"SLURM_JOB_ID": job.name, "SLURM_JOB_UID": "0"}
        with (
            self.log.open("ab") as log,
            subprocess.Popen(
                command, env=environment, stderr=log, start_new_session=True
            ) as process,
        ):
            yield process

    def fill_node(self) -> str:
        """Give a job a processor of a node that is nearly full."""
        node = self.dice.choice(NODES)
        with taken(node, leave=FREE_MIB):
            job = self.dice.choice(self.jobs)
            task = self.dice.choice(job.tasks)
            if node in job.cpus:
                os.sched_setaffinity(task.pid, {node})
            time.sleep(2)
            left = free_bytes(node) >> 20
            assert left > 0
        return f"{node}: {left} MiB left"

    # -- what must hold ------------------------------------------------------------------------

    def check(self) -> None:
        """Check what holds at any time, or soon afterwards."""
        assert count_killed() == self.oom_kills, "a process was killed for want of memory"
        assert settle(lambda: not any(RECORDS.glob("*")), SETTLED), [*RECORDS.glob("*")]
        for job in self.jobs:
            frozen = job.suspended == "freeze"
            assert settle(lambda job=job, frozen=frozen: job.is_frozen() == frozen, SETTLED), (
                f"{job.name} is frozen: {job.is_frozen()}, asked for: {frozen}"
            )
            for task in job.tasks:
                assert os.sched_getaffinity(task.pid) <= job.cpus, f"{job.name} is misbound"
            if not job.suspended:
                assert [task.checksum() for task in job.tasks] == job.sums, job.name
        self._check_journal()
        self.checks += 1

    def check_settled(self) -> None:
        """Check that the memory of each job that runs is with its processors."""
        for job in self.jobs:
            if not job.suspended:
                self._bring_home(job)
                arrived = settle(lambda job=job: not job.strays(), PATIENCE)
                assert arrived, (job.name, sorted(job.cpus), job.strays())

    def _bring_home(self, job: ChaosJob) -> None:
        """Do as people do after a relocation was killed: nothing else brings its memory home."""
        for pid in job.interrupted:
            assert self._run(["relocate", "--pid", str(pid), "--home"]) in (0, 3, 4)
        job.interrupted.clear()

    def check_ended(self) -> None:
        """End every job; check that the agent closes their records."""
        while self.jobs:
            self.end_job()
        assert settle(lambda: not self._runs(is_open=True), PATIENCE), self._runs(is_open=True)
        assert recover() == 0

    def moved(self) -> int:
        """Return the bytes that have moved, by the journal."""
        return sum(report["bytes_moved"] for run in self._runs() for report in run["reports"])

    def _check_journal(self) -> None:
        with closing(sqlite3.connect(self.journal)) as db:
            assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            assert db.execute("PRAGMA foreign_key_check").fetchall() == []
        names = [run["job"] for run in self._runs(is_open=True)]
        assert len(names) == len(set(names)), f"open twice: {names}"
        for run in self._runs():
            for report in run["reports"]:
                by_process = [each["bytes_moved"] for each in report["processes"]]
                assert report["bytes_moved"] == sum(by_process), report
                assert report["bytes_moved"] + report["bytes_left"] >= 0, report

    def _recorded(self, job: str) -> list[str]:
        runs = [run for run in self._runs(is_open=True) if run["job"] == job]
        return sorted(recorded(runs).values())

    def _runs(self, *, is_open: bool = False) -> list[dict[str, Any]]:
        with Journal.open(self.journal, create=False) as journal:
            runs = journal.history()
        return [run for run in runs if run["ended"] is None] if is_open else runs

    # -- what the steps use --------------------------------------------------------------------

    @property
    def log(self) -> Path:
        return self.directory / "log"

    @property
    def journal(self) -> Path:
        return self.directory / "state/journal.db"

    def start_agent(self) -> None:
        config = self.directory / "config.toml"
        config.write_text(
            f'[log]\nlevel = "info"\n[journal]\npath = "{self.journal}"\n[agent]\nretry_s = 2\n'
            '[watch]\nmoves_at_once = 1000\n[actions]\npark = "0-3"\n'
        )
        words = ["agent", "--config", str(config), "--socket", f"{self.directory}/s"]
        words += ["--spool", f"{self.directory}/spool"]
        self.agent = in_child(self._command(words), self.log)
        assert settle(self.journal.exists, PATIENCE), self.log.read_text()

    def _command(self, words: list[str]) -> Callable[[], object]:
        return lambda: main(words, standalone_mode=False)

    def _run(self, words: list[str]) -> int:
        return Child(self._command(words), [], self.log).wait(PATIENCE)

    def _relocation(self) -> tuple[ChaosJob, Job, list[str], str]:
        """Return a job and a task, and the words of its relocation to the job's other node."""
        job = self.dice.choice(self.jobs)
        task, (old, new) = self.dice.choice(job.tasks), self.dice.sample(sorted(job.cpus), 2)
        words = ["relocate", "--pid", str(task.pid), "--map", f"{old}:{new}", "--cpus", str(new)]
        how = self.dice.choice([[], ["--freeze"], ["--strategy", "migrate-process", "--freeze"]])
        return job, task, [*words, *how], f"{job.name} {task.pid} {old}:{new} {how}"


STEPS: dict[Callable[[Host], str], int] = {
    Host.start_job: 3,
    Host.write_cpuset: 4,
    Host.bind_task: 2,
    Host.relocate: 3,
    Host.kill_relocation: 4,
    Host.suspend_or_resume: 4,
    Host.kill_agent: 2,
    Host.kill_hook: 2,
    Host.fill_node: 1,
}
"""What happens, and how often."""


@contextmanager
def chaos_host(directory: Path, dice: random.Random) -> Iterator[Host]:
    """Yield a host with one job and an agent; end them."""
    host = Host(directory=directory, dice=dice)
    host.start_agent()
    try:
        host.start_job()
        yield host
    finally:
        for job in host.jobs:
            job.end()
        os.kill(host.agent, signal.SIGTERM)
        os.waitpid(host.agent, 0)
