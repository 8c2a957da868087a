"""PBS on the real kernel: the hook run as pbs_mom runs it, on job cgroups as PBS's cgroups hook
makes them, and the memory where it belongs afterwards.
"""

from __future__ import annotations

import contextlib
import json
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import schedhook
from schedhook.values.sets import CpuSet
from tests.numa.agents import running_agent
from tests.numa.dirt import PageCache
from tests.numa.jobs import MIB, Job, cpuset_v1, until
from tests.pbs.cgroups import CgroupsHook
from tests.pbs.mom import Mom, Result

pytestmark = pytest.mark.nodes(4)

PROJECT = Path(__file__).resolve().parents[2]
BIG, LARGE = 32, 300
"""MiB of a job; the second does not fit on a node without its page cache being dropped."""
ENOUGH = 0.999
ALARM = 120
REPLACE = 'on_shared_processors = "replace"'
CGROUPS = Path("/sys/fs/cgroup")
WHOLE_HOST = "(n1:ncpus=1:mem=102400kb)"


@dataclass(kw_only=True)
class Pbs:
    """A host with PBS's mom, the cgroups hook's doings, and our hook."""

    mom: Mom
    program: Path
    jobs: Path
    """Where the cgroups of jobs are."""
    version: int
    fenced: bool
    """mem_fences=true: the cgroups hook writes cpuset.mems, too."""
    by_node: bool
    """vnode_per_numa_node=true: each node is a vnode."""
    running: dict[str, Job] = field(default_factory=dict)

    def place(self, job: str, nodes: str) -> Path:
        """What the cgroups hook does at begin and at resize; processor N is node N's here."""
        path = self.jobs / job
        path.mkdir(exist_ok=True)
        (path / "cpuset.cpus").write_text(nodes)
        if self.fenced or self.version == 1:
            mems = nodes if self.fenced else (self.jobs / "cpuset.mems").read_text()
            (path / "cpuset.mems").write_text(mems)
        return path

    def begin(self, job: str, nodes: str, memory_on: int, mib: int = BIG) -> Job:
        """Start a job with memory on one node, as PBS and its hooks do."""
        path = self.place(job, nodes)
        assert_accepted(self.event("begin", job, nodes))
        process = Job("anon", mib, memory_on, cgroup=path)
        self.running[job] = process
        assert process.share_on(memory_on) == 1
        return process

    def event(self, point: str, job: str, nodes: str, **told: Any) -> Result:
        """Let the hook see an event of a job whose vnodes are those of `nodes`."""
        self.configure()
        kind = "exechost" if point in ("startup", "periodic") else "execjob"
        vnodes = exec_vnode(nodes) if self.by_node else WHOLE_HOST
        about = {"id": job, "euser": "root", "exec_vnode": vnodes, "primary": False}
        told = {"job": about} if kind == "execjob" else {"job_list": {job: about}}
        return self.mom.run(f"{kind}_{point}", **told)

    def periodic(self, job: str, nodes: str) -> str:
        """Let the hook see exechost_periodic, and return what the agent logs of the look at jobs.

        The hook does not wait for it, as pbs_mom does not.
        """
        log = self.program.with_name("log")
        before = len(log.read_text())
        assert_accepted(self.event("periodic", job, nodes))
        until(lambda: '"point": "look"' in log.read_text()[before:], 120)
        return log.read_text()[before:]

    def configure(self) -> None:
        config = {"program": str(self.program), "seconds": {"default": ALARM / 2}}
        self.mom.import_config(json.dumps(config))


def exec_vnode(nodes: str) -> str:
    return "+".join(f"(n1[{node}]:ncpus=1:mem=102400kb)" for node in nodes.split(","))


def assert_accepted(result: Result) -> str:
    """The hook accepted in time; the line that it logged."""
    assert result.accepted, result
    assert not result.timed_out
    assert result.errors == ""
    (line,) = [*result.host_log, *(line for _job, line in result.job_log)]
    return line


Agents = Callable[[str], Path]
"""From [actions] to the program that hands events to an agent that is configured so."""


@pytest.fixture(scope="module")
def agents(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agents]:
    """One agent for each configuration that is asked for."""
    programs: dict[str, Path] = {}
    with contextlib.ExitStack() as stack:

        def program(actions: str) -> Path:
            if actions not in programs:
                directory = tmp_path_factory.mktemp("agent")
                programs[actions] = stack.enter_context(agent(directory, actions))
            return programs[actions]

        yield program


@contextlib.contextmanager
def agent(directory: Path, actions: str) -> Iterator[Path]:
    """Run an agent; the program that hands events to it is beside its socket."""
    configure(directory, actions)
    options = ["--socket", directory / "agent.sock", "--spool", directory / "spool"]
    more = ["--no-watch", "--config", directory / "config.toml"]
    with running_agent(directory / "log", *options, *more):
        until((directory / "agent.sock").exists, 240)
        yield hand_over(directory, *options)


def configure(directory: Path, actions: str) -> None:
    text = f'[journal]\npath = "{directory}/journal.db"\n[actions.pbs]\n{actions}'
    (directory / "config.toml").write_text(text)


def hand_over(directory: Path, *options: object) -> Path:
    """Make a program that does as `schedhook event`, and starts in a fraction of the time."""
    program = directory / "schedhook"
    hook = Path(schedhook.__file__).with_name("hook") / "run.py"
    words = shlex.join([sys.executable, "-I", "-S", str(hook)])
    # An emulated agent may take long to answer, and it is not to be done without it.
    more = shlex.join([*map(str, options), "--patience", str(ALARM / 4)])
    program.write_text(
        f"#!/bin/sh\nexport SCHEDHOOK_CONFIG={shlex.quote(str(directory / 'config.toml'))}\n"
        f'[ "$1" = event ] && shift && exec {words} "$@" {more}\n'
    )
    program.chmod(0o755)
    return program


LAYOUTS = ["v1-fenced", "v1", "v2-fenced", "v2"]
"""The shipped cgroups hook's, with and without mem_fences, and what a site's own may do."""


@pytest.fixture
def layout() -> str:
    return "v1-fenced"


@pytest.fixture
def actions() -> str:
    """What stands in [actions.pbs]."""
    return ""


@pytest.fixture
def in_process() -> bool:
    """Whether events are handled without an agent."""
    return False


@pytest.fixture
def by_node() -> bool:
    """Whether each NUMA node is a vnode."""
    return True


@pytest.fixture
def pbs(
    layout: str, actions: str, in_process: bool, by_node: bool, agents: Agents, tmp_path: Path
) -> Iterator[Pbs]:
    version, fenced = int(layout[1]), layout.endswith("fenced")
    with contextlib.ExitStack() as stack:
        mount = stack.enter_context(cpuset_v1(tmp_path)) if version == 1 else CGROUPS
        jobs = stack.enter_context(service(mount, version))
        mom = Mom(directory=tmp_path / "pbs", alarm=ALARM)
        mom.import_hook(PROJECT / "contrib/pbs/schedhook.PY")
        if in_process:
            configure(tmp_path, actions)
            nowhere = tmp_path / "nowhere"
            program = hand_over(tmp_path, "--socket", nowhere, "--spool", nowhere)
        else:
            program = agents(actions)
        here = Pbs(
            mom=mom,
            program=program,
            jobs=jobs,
            version=version,
            fenced=fenced,
            by_node=by_node,
        )
        yield here
        for name, job in here.running.items():
            job.stop()
            if not in_process:
                assert_accepted(here.event("end", name, "0"))


@contextlib.contextmanager
def service(mount: Path, version: int) -> Iterator[Path]:
    """pbs_jobs.service/jobid with all processors and nodes."""
    top, jobs = mount / "pbs_jobs.service", mount / "pbs_jobs.service/jobid"
    for path in (top, jobs):
        path.mkdir()
        if version == 2:
            (path.parent / "cgroup.subtree_control").write_text("+cpuset")
        else:
            for name in ("cpuset.cpus", "cpuset.mems"):
                (path / name).write_text((path.parent / name).read_text())
    if version == 2:
        (jobs / "cgroup.subtree_control").write_text("+cpuset")
    try:
        yield jobs
    finally:
        for path in [*jobs.iterdir(), jobs, top]:
            if path.is_dir():
                until(lambda path=path: remove(path))


def remove(path: Path) -> bool:
    try:
        path.rmdir()
    except OSError:
        return False
    return True


# -- resize --------------------------------------------------------------------------------------


@pytest.mark.short(2)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_resize_brings_the_memory_along(pbs: Pbs) -> None:
    job = pbs.begin("12.n1", "0,2", memory_on=0)
    before = job.checksum()
    pbs.place("12.n1", "2")  # the cgroups hook's order is 100, ours is above
    if pbs.version == 1:
        assert job.share_on(0) == 1, "the kernel moved it: nothing is left to show"

    line = assert_accepted(pbs.event("resize", "12.n1", "2"))

    assert job.share_on(2) >= ENOUGH, line
    assert job.checksum() == before


def test_resize_onto_a_node_full_of_page_cache(pbs: Pbs, page_cache: PageCache) -> None:
    job = pbs.begin("12.n1", "0,2", memory_on=0, mib=LARGE)
    page_cache.fill(2)
    pbs.place("12.n1", "2")
    line = assert_accepted(pbs.event("resize", "12.n1", "2"))
    assert job.share_on(2) >= ENOUGH, line


@pytest.mark.parametrize("in_process", [True])
def test_resize_of_a_job_that_is_unknown(pbs: Pbs) -> None:
    """Without an agent, begin waits for one: the journal does not know the job."""
    job = pbs.begin("12[3].n1", "0,2", memory_on=0)
    pbs.place("12[3].n1", "2")
    line = assert_accepted(pbs.event("resize", "12[3].n1", "2"))
    assert job.share_on(2) >= ENOUGH, line


@pytest.mark.parametrize("actions", ['on_relocation = "none"'])
def test_a_resize_can_be_left_alone(pbs: Pbs) -> None:
    job = pbs.begin("12.n1", "0,2", memory_on=0)
    pbs.place("12.n1", "2")
    assert "as configured" in assert_accepted(pbs.event("resize", "12.n1", "2"))
    assert job.share_on(0) == 1


# -- suspend and resume --------------------------------------------------------------------------


@pytest.mark.short(3)
@pytest.mark.parametrize("actions", ['park = "3"', 'park = "any"'])
@pytest.mark.parametrize("layout", ["v1-fenced", "v2-fenced", "v2"])
def test_suspended_memory_is_parked_and_comes_back(pbs: Pbs, actions: str) -> None:
    job = pbs.begin("12.n1", "0", memory_on=0)
    before = job.checksum()
    mems = (pbs.jobs / "12.n1/cpuset.mems").read_text()

    job.process.send_signal(signal.SIGSTOP)
    line = assert_accepted(pbs.event("postsuspend", "12.n1", "0"))
    if "any" in actions:
        assert job.share_on(0) <= 1 - ENOUGH, line
    else:
        assert job.share_on(3) >= ENOUGH, line

    line = assert_accepted(pbs.event("preresume", "12.n1", "0"))
    assert job.share_on(0) >= ENOUGH, line
    assert (pbs.jobs / "12.n1/cpuset.mems").read_text() == mems
    job.process.send_signal(signal.SIGCONT)
    assert job.checksum() == before


@pytest.mark.parametrize("by_node", [False])
def test_a_resumed_job_beside_another_is_reported(pbs: Pbs) -> None:
    job = pbs.begin("12.n1", "0", memory_on=0)
    job.process.send_signal(signal.SIGSTOP)
    assert_accepted(pbs.event("postsuspend", "12.n1", "0"))
    pbs.begin("13.n1", "0", memory_on=0, mib=8)

    line = assert_accepted(pbs.event("preresume", "12.n1", "0"))

    assert "CPUs 0 are shared with 13.n1; 1 of node 1 are free" in line
    assert (pbs.jobs / "12.n1/cpuset.cpus").read_text() == "0\n"
    assert job.share_on(0) == 1


@pytest.mark.short(2)
@pytest.mark.parametrize("by_node", [False])
@pytest.mark.parametrize(
    ("layout", "actions"),
    [
        ("v1-fenced", f'{REPLACE}\npark = "3"'),
        ("v1", REPLACE),
        ("v2-fenced", REPLACE),
        ("v2", f'{REPLACE}\npark = "3"'),
    ],
)
def test_a_resumed_job_gets_a_place_of_its_own(pbs: Pbs) -> None:
    job = pbs.begin("12.n1", "0", memory_on=0)
    before, unfenced = job.checksum(), (pbs.jobs / "12.n1/cpuset.mems").read_text()
    job.process.send_signal(signal.SIGSTOP)
    assert_accepted(pbs.event("postsuspend", "12.n1", "0"))
    other = pbs.begin("13.n1", "0", memory_on=0, mib=8)

    line = assert_accepted(pbs.event("preresume", "12.n1", "0"))

    assert job.share_on(1) >= ENOUGH, line
    assert (pbs.jobs / "12.n1/cpuset.cpus").read_text() == "1\n"
    mems = "1\n" if pbs.fenced else unfenced
    assert (pbs.jobs / "12.n1/cpuset.mems").read_text() == mems
    assert other.residency() == {0: 8 * MIB}
    assert (pbs.jobs / "13.n1/cpuset.cpus").read_text() == "0\n"
    job.process.send_signal(signal.SIGCONT)
    assert job.checksum() == before


@pytest.mark.parametrize("actions", [REPLACE])
def test_a_resumed_job_gets_no_processors_of_other_vnodes(pbs: Pbs) -> None:
    job = pbs.begin("12.n1", "0", memory_on=0)
    job.process.send_signal(signal.SIGSTOP)
    assert_accepted(pbs.event("postsuspend", "12.n1", "0"))
    pbs.begin("13.n1", "0", memory_on=0, mib=8)

    line = assert_accepted(pbs.event("preresume", "12.n1", "0"))

    assert "1 of node 1 are free, but PBS has not granted the job their vnode" in line
    assert (pbs.jobs / "12.n1/cpuset.cpus").read_text() == "0\n"
    assert job.share_on(0) == 1
    hook = CgroupsHook(pbs.jobs, {node: CpuSet({node}) for node in range(4)})
    hook.granted = hook.cpusets()
    assert hook.begin("14.n1", exec_vnode("1"))
    assert hook.orphans() == []
    (pbs.jobs / "14.n1").rmdir()


# -- periodic ------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["v1-fenced", "v2"])
def test_strays_are_brought_back(pbs: Pbs) -> None:
    job = pbs.begin("12.n1", "1", memory_on=1)
    with allowed_everywhere(pbs, "12.n1"):
        subprocess.run(["migratepages", str(job.pid), "1", "3"], check=True)
        assert job.share_on(3) >= ENOUGH
    said = pbs.periodic("12.n1", "1")
    assert job.share_on(1) >= ENOUGH, said


def test_a_job_that_was_moved_outside_of_pbs_is_followed(pbs: Pbs) -> None:
    job = pbs.begin("12.n1", "1", memory_on=1)
    pbs.place("12.n1", "2")  # PBS knows nothing of it
    said = pbs.periodic("12.n1", "1")
    assert job.share_on(2) >= ENOUGH, said


@contextlib.contextmanager
def allowed_everywhere(pbs: Pbs, job: str) -> Iterator[None]:
    path = pbs.jobs / job / "cpuset.mems"
    before = path.read_text()
    path.write_text("0-3")
    yield
    if pbs.fenced:
        path.write_text(before)
