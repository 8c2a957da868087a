"""A fake scheduler and a real agent for tests.

The scheduler `fake` keeps its jobs as files: DIR/jobs/ID.json has the tasks, DIR/cgroup/job_ID is
the job's cgroup. `python agentkit.py DIR` runs an agent for it, which writes relocations to
DIR/moves.jsonl instead of carrying them out.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from schedhook.agent.dispatcher import Dispatcher
from schedhook.agent.server import Agent
from schedhook.agent.service import stop_at_signals
from schedhook.agent.watcher import Watcher
from schedhook.control import undo
from schedhook.hook import delivery
from schedhook.journal.journal import Journal, open_journal
from schedhook.plugins.descriptors import SchedulerPlugin
from schedhook.plugins.hookspecs import hookimpl
from schedhook.plugins.manager import Plugins
from schedhook.plugins.sources import PluginSource
from schedhook.roles.request import Relocate, Request
from schedhook.roles.scheduler import Scheduler, Task
from schedhook.values import log
from schedhook.values.actions import ActionsSection
from schedhook.values.config import AgentSection, Config, JournalSection, WatchSection
from schedhook.values.errors import UsageError
from schedhook.values.model import Event, NodeMap, Outcome, Placement, Report
from schedhook.values.sets import CpuSet, NodeSet
from schedhook_plugins.schedulers.pbs import scheduler as pbs
from schedhook_plugins.schedulers.slurm import scheduler as slurm

HOOK = Path(delivery.__file__).with_name("run.py")
FAST_WATCH = WatchSection(interval_s=0.05, task_interval_s=0.1, debounce_s=0.1)


EXITS_WHEN_READ, EXITS_WHEN_ASKED = "exits-when-read", "exits-when-asked"
"""Jobs for which the adapter calls sys.exit(), as a library may do."""


class FakeScheduler(Scheduler):
    """An adapter that reads its answers from files that a test writes."""

    name = "fake"

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self._directory = directory

    def read_event(self, point: str, environ: Mapping[str, str], data: bytes) -> Event:
        if data:
            try:
                given = json.loads(data)
                job, more = given["job"], given.get("data", {})
                return Event(scheduler=self.name, point=point, job=job, data=more)
            except (ValueError, KeyError, TypeError):
                raise UsageError("the event's data cannot be read") from None
        if environ.get("FAKE_JOB") == EXITS_WHEN_READ:
            sys.exit(0)
        user = environ.get("FAKE_USER")
        return Event(
            scheduler=self.name,
            point=point,
            job=environ.get("FAKE_JOB", ""),
            user=int(user) if user else None,
        )

    def tasks(self, job: str) -> tuple[Task, ...]:
        if job == EXITS_WHEN_ASKED:
            sys.exit(0)
        try:
            tasks = json.loads((self._directory / "jobs" / f"{job}.json").read_text())
        except FileNotFoundError:
            return ()
        return tuple(
            Task(
                name=name,
                pids=tuple(pids),
                placement=Placement(cpus=CpuSet.parse(cpus), nodes=NodeSet.parse(nodes)),
            )
            for name, (pids, cpus, nodes) in tasks.items()
        )

    def cgroups(self, job: str) -> tuple[Path, ...]:
        path = self._directory / "cgroup" / f"job_{job}"
        return (path,) if path.exists() else ()

    def jobs(self) -> tuple[str, ...]:
        paths = (self._directory / "cgroup").glob("job_*")
        return tuple(path.name.removeprefix("job_") for path in paths)


def place(directory: Path, job: str, tasks: Mapping[str, tuple[list[int], str, str]]) -> None:
    """Give job `job` these tasks: name → (pids, CPUs, nodes)."""
    write_whole(directory / "jobs" / f"{job}.json", json.dumps(tasks))
    cgroup = directory / "cgroup" / f"job_{job}"
    cgroup.mkdir(parents=True, exist_ok=True)
    cpus = CpuSet(cpu for _, cpus, _ in tasks.values() for cpu in CpuSet.parse(cpus))
    with (cgroup / "cpuset.cpus.effective").open("w") as file:  # the same inode, as in a cgroup
        file.write(f"{cpus}\n")


def write_whole(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}-{threading.get_ident()}")
    temporary.write_text(text)
    temporary.replace(path)


def end(directory: Path, job: str) -> None:
    """Remove the job and its cgroup."""
    (directory / "jobs" / f"{job}.json").unlink()
    for path in (directory / "cgroup" / f"job_{job}").iterdir():
        path.unlink()
    (directory / "cgroup" / f"job_{job}").rmdir()


class _Provider:
    def __init__(self, directory: Path) -> None:
        super().__init__()
        self._directory = directory

    @hookimpl
    def schedhook_schedulers(self) -> list[SchedulerPlugin]:
        adapter = FakeScheduler(self._directory)
        return [
            SchedulerPlugin(name="fake", summary="for tests", create=lambda _: adapter),
            *slurm.schedhook_schedulers(),
            *pbs.schedhook_schedulers(),
        ]

    @hookimpl
    def schedhook_event(self, event: Event) -> None:
        """Append the event, as the agent understood it, to DIR/events.jsonl."""
        seen = {"point": event.point, "job": event.job, "user": event.user, "data": event.data}
        seen["when"] = time.time()
        with (self._directory / "events.jsonl").open("a") as file:
            file.write(json.dumps(seen) + "\n")


def plugins(directory: Path, *more: object) -> Plugins:
    """Return the fake scheduler's plug-in, and `more`."""
    result = Plugins()
    for plugin in (_Provider(directory), *more):
        result.register(PluginSource(name=type(plugin).__name__, package="test"), plugin)
    return result


class Moves:
    """Replaces the relocation pipeline: records requests and reports a given outcome."""

    def __init__(
        self, path: Path | None = None, outcome: Outcome = Outcome.COMPLETE, delay: float = 0.0
    ) -> None:
        self.requests: list[Request] = []
        self.outcome = outcome
        self.left: dict[str, int] = {}
        """Bytes that stay, by reason."""
        self.delay = delay
        self._path = path

    def __call__(self, request: Request) -> Report:
        time.sleep(self.delay)
        self.requests.append(request)
        pairs = dict(request.node_map.pairs) if request.node_map else {}
        if request.sources is not None and request.destinations is not None:
            to = list(request.destinations)
            pairs = {old: to[n % len(to)] for n, old in enumerate(request.sources)}
        if self._path is not None:
            with self._path.open("a") as file:
                file.write(json.dumps({"job": request.job, "pairs": pairs}) + "\n")
        return Report(
            outcome=self.outcome,
            strategy="none",
            backend="none",
            node_map=NodeMap(pairs=pairs),
            job=request.job,
            bytes_planned=1 << 20,
            bytes_moved=1 << 20 if self.outcome is Outcome.COMPLETE else 0,
            bytes_left=sum(self.left.values()),
            left_by_reason=self.left,
        )

    @property
    def pairs(self) -> list[dict[int, int]]:
        """Return {old node: new node} of each request."""
        result = []
        for request in self.requests:
            to = list(request.destinations or ())
            result.append(
                dict(request.node_map.pairs)
                if request.node_map
                else {old: to[n % len(to)] for n, old in enumerate(request.sources or ())}
            )
        return result


class Memory:
    """Replaces the relocation pipeline: DIR/memory/JOB.json has the node of each of a job's pages.

    What was moved stays moved if the moving process is killed.
    """

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self._directory = directory / "memory"

    def __call__(self, request: Request) -> Report:
        sources, destinations = request.sources, request.destinations
        assert request.job is not None
        assert sources is not None
        assert destinations is not None
        to = list(destinations)
        pairs = {old: to[n % len(to)] for n, old in enumerate(sources)}
        moved = 0
        for page, node in enumerate(self.read(request.job)):
            if pairs.get(node, node) != node:
                time.sleep(0.002)
                self._move(request.job, page, pairs[node])
                moved += 1
        return Report(
            outcome=Outcome.COMPLETE if moved else Outcome.NOTHING_TO_DO,
            strategy="none",
            backend="none",
            node_map=NodeMap(pairs=pairs),
            job=request.job,
            bytes_planned=moved << 20,
            bytes_moved=moved << 20,
        )

    def read(self, job: str) -> list[int]:
        pages: list[int] = json.loads((self._directory / f"{job}.json").read_text())
        return pages

    def put(self, job: str, pages: list[int]) -> None:
        write_whole(self._directory / f"{job}.json", json.dumps(pages))

    def _move(self, job: str, page: int, node: int) -> None:
        pages = self.read(job)
        pages[page] = node
        self.put(job, pages)


def make_dispatcher(
    directory: Path,
    moves: Relocate,
    *more: object,
    journal: Journal | None = None,
    config: Config | None = None,
) -> Dispatcher:
    """Return a dispatcher for the fake scheduler's events."""
    return Dispatcher(
        config or Config(),
        plugins(directory, *more),
        journal or Journal.in_memory(),
        carry_out=moves,
    )


# -- an agent in a process of its own --------------------------------------------------------------


def run_agent(directory: Path) -> None:
    """Serve DIR/agent.sock until SIGTERM, with the options of DIR/options.json."""
    options: dict[str, Any] = {}
    if (directory / "options.json").exists():
        options = json.loads((directory / "options.json").read_text())
    log.configure("json", "debug")
    config = Config(
        journal=JournalSection(path=str(directory / "state" / "journal.db")),
        agent=AgentSection(workers=4, retry_s=options.get("retry_s", 60.0)),
        watch=FAST_WATCH,
        actions=ActionsSection(park=NodeSet.parse(options.get("park", ""))),
    )
    moves: Relocate
    if (directory / "memory").exists():
        moves = Memory(directory)
    else:
        moves = Moves(directory / "moves.jsonl", delay=options.get("delay", 0.0))
    journal = open_journal(config)
    dispatcher = make_dispatcher(directory, moves, journal=journal, config=config)
    adapter = FakeScheduler(directory)
    agent = Agent(
        dispatcher,
        config,
        path=directory / "agent.sock",
        spool=directory / "spool",
        watcher=lambda emit, poller: Watcher([adapter], config.watch, emit, poller),
    )
    stop_at_signals(agent.stop)
    agent.run()
    journal.close()


def fork_agent(directory: Path) -> int:
    """Fork an agent, with all imports done, into a session of its own; return its pid."""
    child = os.fork()
    if child:
        return child
    try:
        os.setsid()
        log_file = os.open(directory / "agent.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.dup2(log_file, 2)
        sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
        run_agent(directory)
    finally:
        os._exit(0)


@contextmanager
def agent(directory: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run an agent for the block; end it by SIGTERM if the test has not ended it."""
    with (directory / "agent.log").open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, str(Path(__file__)), str(directory)],
            stderr=output,
            env=os.environ | {"PYTHONPATH": str(HOOK.parents[1])},
        )
    try:
        wait_for(lambda: answers(directory / "agent.sock") or process.poll() is not None)
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise


def answers(path: Path) -> bool:
    """Return whether a process serves the socket."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


def hook(
    directory: Path, point: str, job: str, *options: str, **more: Any
) -> subprocess.CompletedProcess[str]:
    """Run the hook's program as a scheduler would.

    An event that it handles without an agent goes to a journal below `directory`.
    """
    config = directory / "hook.toml"
    write_whole(config, f'[journal]\npath = "{directory}/hook/journal.db"\n')
    environ = {"FAKE_JOB": job, "FAKE_USER": "1000", "SCHEDHOOK_CONFIG": str(config)}
    environ |= more.pop("environ", {})
    command = [sys.executable, "-I", "-S", str(HOOK), "fake", point]
    command += ["--socket", str(directory / "agent.sock"), "--spool", str(directory / "spool")]
    return subprocess.run(
        [*command, *options],
        env=environ,
        stdin=more.pop("stdin", subprocess.DEVNULL),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        **more,
    )


def message(
    point: str, job: str, *, user: str = "1000", wait: bool = False, data: bytes = b""
) -> bytes:
    """Return the message that such a hook sends."""
    environ = {b"FAKE_JOB": job.encode(), b"FAKE_USER": user.encode()}
    return delivery.make_message("fake", point, environ, data, wait)


def wait_for(condition: Callable[[], Any], seconds: float = 30.0) -> Any:
    """Wait until `condition()` is true and return it. Raise AssertionError after `seconds`."""
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        if found := condition():
            return found
        time.sleep(0.02)
    raise AssertionError(f"not so after {seconds} s")


def history(directory: Path) -> list[dict[str, Any]]:
    """Return the runs in the agent's journal."""
    with Journal.open(directory / "state" / "journal.db", create=False) as journal:
        return journal.history()


def homes(journal: Journal, scheduler: str, job: str) -> dict[str, Placement]:
    """Return the placement that each task's memory was last brought to, or first found on."""
    known = journal.placements.known_tasks(scheduler, job)
    return {task: its.home for task, its in known.items()}


def started(directory: Path) -> set[str]:
    """Return the jobs in the agent's journal."""
    return {run["job"] for run in history(directory)}


def connect(directory: Path) -> socket.socket:
    """Connect to the agent."""
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(20)
    connection.connect(str(directory / "agent.sock"))
    return connection


def say(directory: Path, raw: bytes) -> str:
    """Send these bytes to the agent and return its answer."""
    with connect(directory) as connection:
        connection.sendall(raw)
        connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(65536), b"")).decode()


def processor_time(pid: int) -> float:
    """Return the CPU time that the process has used, in seconds; proc(5)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def moves_of(directory: Path) -> list[dict[str, Any]]:
    """Return the relocations that the agent has written down."""
    path = directory / "moves.jsonl"
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines()]


def event(point: str, job: str = "1", **data: Any) -> Event:
    """Return an event of the fake scheduler."""
    return Event(scheduler="fake", point=point, job=job, data=data)


def with_actions(**actions: Any) -> Config:
    """Return a configuration with these [actions]."""
    return replace(Config(), actions=ActionsSection(**actions))


if __name__ == "__main__":
    os.umask(0o022)
    undo.DIRECTORY = f"{sys.argv[1]}/rollback"  # not this host's
    run_agent(Path(sys.argv[1]))
