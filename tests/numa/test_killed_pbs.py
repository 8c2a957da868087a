"""SIGKILL at random moments of what acts for PBS's hook, on the kernel: the next event of the job
makes up for it."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from schedhook.agent.dispatcher import Dispatcher
from schedhook.journal.journal import Journal
from schedhook.plugins.loading import load_plugins
from schedhook.values.config import Config, PluginsSection
from schedhook.values.model import Event
from schedhook_plugins.schedulers.pbs.adapter import PbsScheduler
from schedhook_plugins.schedulers.pbs.state import JobState
from tests.numa.jobs import CGROUPS, Job
from tests.numa.killing import chance, in_child, kill_after
from tests.numa.test_killed_moves import KILLS
from tests.numa.test_pbs import exec_vnode, forget, service

pytestmark = pytest.mark.nodes(4)

MIB = 64
ENOUGH = 0.999
NAME = "12.n1"


class Host:
    """PBS's jobs of one process each, which has its memory on one node; processor N is node N's."""

    def __init__(self, directory: Path, cgroups: Path) -> None:
        self.log = directory / "log"
        self._cgroups = cgroups
        self._journal = directory / "journal.db"
        self._config = Config(plugins=PluginsSection(third_party=False))
        self._plugins = load_plugins(self._config)

    @contextmanager
    def job(self, name: str, node: int, mib: int, *, fenced: bool = True) -> Iterator[Job]:
        (self._cgroups / name).mkdir()
        self.place(name, node, fenced=fenced)
        with Job("anon", mib, node, cgroup=self._cgroups / name) as job:
            assert self.finish("begin", name, node)
            yield job

    def place(self, name: str, node: int, *, fenced: bool = True) -> None:
        """As PBS's cgroups hook does it. The kernel moves memory that cpuset.mems excludes."""
        (self._cgroups / name / "cpuset.cpus").write_text(str(node))
        if fenced:
            (self._cgroups / name / "cpuset.mems").write_text(str(node))

    def cpuset(self, name: str) -> tuple[str, str]:
        cpus, mems = (self._cgroups / name / f"cpuset.{each}" for each in ("cpus", "mems"))
        return cpus.read_text().strip(), mems.read_text().strip()

    @property
    def state(self) -> JobState:
        """What is put down of the job, for whoever comes after a kill."""
        state = PbsScheduler(Path("/")).states.get(NAME)
        assert state is not None
        return state

    def tell(self, point: str, name: str, node: int, **actions: str) -> int:
        """Let a child handle an event of the job, or exechost_periodic; its process."""
        about = {"id": name, "exec_vnode": exec_vnode(str(node))}
        data: dict[str, Any] = {"actions": actions, "job": about, "jobs": []}
        if point == "periodic":
            name, data["job"], data["jobs"] = "", None, [about]
        event = Event(scheduler="pbs", point=point, job=name, host="n1", data=data)

        def work() -> None:
            with Journal.open(self._journal) as journal:
                Dispatcher(self._config, self._plugins, journal).handle(event, time.time())

        return in_child(work, self.log)

    def finish(self, point: str, name: str, node: int, **actions: str) -> bool:
        """Let the event be handled to its end."""
        return kill_after(self.tell(point, name, node, **actions), 120) == 0


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    with service(CGROUPS, 2) as cgroups:
        yield Host(tmp_path, cgroups)
        forget()


def kill_some(work: Callable[[], int], begun: Callable[[], bool]) -> Iterator[None]:
    """Kill what `work` starts, at least half of KILLS times, until some of them had begun."""
    chances = chance()
    began = time.monotonic()
    assert kill_after(work(), 120) == 0
    longest = 1.2 * (time.monotonic() - began)
    yield
    kills = halfway = 0
    while kills < KILLS // 2 or (not halfway and kills < 10 * KILLS):
        status = kill_after(work(), chances.uniform(0, longest))
        assert status in (0, None)
        kills += 1
        halfway += begun()
        yield
    print(f"{kills} killed in up to {longest:.2f} s, {halfway} of them on their way")
    assert halfway


def test_a_resize_that_was_killed_is_made_up_for(host: Host) -> None:
    """By exechost_periodic: PBS does not tell of it again."""
    node = 0
    with host.job(NAME, 0, MIB, fenced=False) as job:
        contents = job.checksum()

        def resize() -> int:
            nonlocal node
            node = 2 - node
            host.place(NAME, node, fenced=False)
            return host.tell("resize", NAME, node)

        for _ in kill_some(resize, lambda: host.state.following is not None):
            assert host.finish("periodic", NAME, node)
            assert job.share_on(node) >= ENOUGH, host.log.read_text()[-2000:]
            assert host.cpuset(NAME) == (str(node), "")
        assert job.checksum() == contents


def test_another_place_after_a_suspension_is_found_as_a_whole(host: Host) -> None:
    node = elsewhere = 0
    with host.job(NAME, 0, MIB) as job, host.job("13.n1", 0, 1):
        contents = job.checksum()

        def resume() -> int:
            """While it was suspended, its processor was given to another job."""
            host.place("13.n1", node)
            job.process.send_signal(signal.SIGSTOP)
            assert host.finish("postsuspend", NAME, node)
            return host.tell("preresume", NAME, node, preresume="replace")

        def wholly_on() -> int | None:
            cpus, mems = host.cpuset(NAME)
            whole = cpus == mems and cpus.isdigit() and job.share_on(int(cpus)) >= ENOUGH
            return int(cpus) if whole else None

        for _ in kill_some(resume, lambda: host.state.replacing is not None):
            assert host.finish("preresume", NAME, node, preresume="replace")
            then = wholly_on()
            assert then is not None, (host.cpuset(NAME), host.log.read_text()[-2000:])
            elsewhere += then != node
            node = then
            job.process.send_signal(signal.SIGCONT)
        assert job.checksum() == contents
    assert elsewhere
