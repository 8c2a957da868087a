"""SIGKILL at random moments of what handles PBS's events, on the kernel.

The next event of the job finishes what was interrupted.
"""

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
from schedhook.values.actions import ActionsSection, OnSharedProcessors, PbsActions
from schedhook.values.config import Config, PluginsSection
from schedhook.values.model import Event
from schedhook_plugins.schedulers.pbs.notes import REPLACING
from tests.forked import in_child
from tests.numa.jobs import CGROUPS, Job
from tests.numa.killing import kill_after, random_moments
from tests.numa.test_killed_moves import KILLS
from tests.numa.test_pbs import WHOLE_HOST, exec_vnode, service

pytestmark = pytest.mark.nodes(4)

MIB = 64
ENOUGH = 0.999
NAME = "12.n1"


class Host:
    """PBS's jobs of one process each, which has its memory on one node; processor N is node N's."""

    def __init__(self, directory: Path, cgroups: Path) -> None:
        self.log = directory / "log"
        self.by_node = True
        self._cgroups = cgroups
        self._journal = directory / "journal.db"
        pbs = PbsActions(on_shared_processors=OnSharedProcessors.REPLACE)
        self._config = Config(
            actions=ActionsSection(pbs=pbs), plugins=PluginsSection(third_party=False)
        )
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

    def is_following(self) -> bool:
        """Return whether the job's memory is recorded as being on its way."""
        with Journal.open(self._journal) as journal:
            known = journal.placements.known_tasks("pbs", NAME)
        return any(task.visited for task in known.values())

    def is_replacing(self) -> bool:
        """Return whether it is recorded that the job is being given other CPUs."""
        with Journal.open(self._journal) as journal:
            text = journal.notes.get("pbs", NAME, REPLACING, str)
        return text not in (None, "{}")

    def tell(self, point: str, name: str, node: int) -> int:
        """Let a child handle an event of the job, or exechost_periodic; its process."""
        about = {"id": name, "exec_vnode": exec_vnode(str(node)) if self.by_node else WHOLE_HOST}
        data: dict[str, Any] = {"job": about, "jobs": []}
        if point == "periodic":
            name, data["job"], data["jobs"] = "", None, [about]
        event = Event(scheduler="pbs", point=point, job=name, host="n1", data=data)

        def work() -> None:
            with Journal.open(self._journal) as journal:
                dispatcher = Dispatcher(self._config, self._plugins, journal)
                for more in dispatcher.handle(event, time.time()).more:
                    dispatcher.handle(more, time.time())

        return in_child(work, self.log)

    def finish(self, point: str, name: str, node: int) -> bool:
        """Let the event be handled to its end."""
        return kill_after(self.tell(point, name, node), 120) == 0


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    with service(CGROUPS, 2) as cgroups:
        yield Host(tmp_path, cgroups)


def kill_some(work: Callable[[], int], begun: Callable[[], bool]) -> Iterator[None]:
    """Kill what `work` starts, at least half of KILLS times, until some of them had begun."""
    moments = random_moments()
    began = time.monotonic()
    assert kill_after(work(), 120) == 0
    longest = 1.2 * (time.monotonic() - began)
    yield
    kills = halfway = 0
    while kills < KILLS // 2 or (not halfway and kills < 10 * KILLS):
        status = kill_after(work(), moments.uniform(0, longest))
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

        for _ in kill_some(resize, host.is_following):
            assert host.finish("periodic", NAME, node)
            assert job.share_on(node) >= ENOUGH, host.log.read_text()[-2000:]
            assert host.cpuset(NAME) == (str(node), "")
        assert job.checksum() == contents


def test_another_place_after_a_suspension_is_found_as_a_whole(host: Host) -> None:
    node = elsewhere = 0
    host.by_node = False  # else PBS grants no other processors
    with host.job(NAME, 0, MIB) as job, host.job("13.n1", 0, 1):
        contents = job.checksum()

        def resume() -> int:
            """While it was suspended, its processor was given to another job."""
            host.place("13.n1", node)
            job.process.send_signal(signal.SIGSTOP)
            assert host.finish("postsuspend", NAME, node)
            return host.tell("preresume", NAME, node)

        def wholly_on() -> int | None:
            cpus, mems = host.cpuset(NAME)
            whole = cpus == mems and cpus.isdigit() and job.share_on(int(cpus)) >= ENOUGH
            return int(cpus) if whole else None

        for _ in kill_some(resume, host.is_replacing):
            assert host.finish("preresume", NAME, node)
            then = wholly_on()
            assert then is not None, (host.cpuset(NAME), host.log.read_text()[-2000:])
            elsewhere += then != node
            node = then
            job.process.send_signal(signal.SIGCONT)
        assert job.checksum() == contents
    assert elsewhere
