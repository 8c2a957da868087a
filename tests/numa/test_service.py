"""The unit as shipped, under a real systemd: its sandbox allows what the agent needs, and no more.

systemd is the first process of a PID namespace of its own. Another user's jobs are started in it.
"""

from __future__ import annotations

import configparser
import ctypes
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from schedhook.hook import delivery, fallback
from schedhook.journal.journal import Journal
from schedhook.values.model import Placement, PlacementOverride
from schedhook.values.sets import CpuSet, NodeSet
from tests.numa.agents import recorded
from tests.numa.jobs import CGROUPS, Job, is_at_least, until
from tests.numa.slurm_jobs import SCOPE
from tests.users import NOBODY

pytestmark = pytest.mark.nodes(4)

PROJECT = Path(__file__).parents[2]
UNIT = PROJECT / "contrib/systemd/schedhook-agent.service"
TMPFILES = PROJECT / "contrib/systemd/schedhook.tmpfiles.conf"
HERE = Path("/run/schedhook-test")
PREFIX = Path("/opt/schedhook-test")
"""Where the installation is mounted in that namespace: the unit hides /root and /home."""
SOCKET = "/run/schedhook/agent.sock"
SPOOL = Path("/var/spool/schedhook")
STATE = Path("/var/lib/schedhook")
JOB = "4712"
BIG = 40
ENOUGH = 0.999
PATIENCE = 120
NUMBERS = {
    "CAP_DAC_READ_SEARCH": 2,
    "CAP_FOWNER": 3,
    "CAP_SYS_PTRACE": 19,
    "CAP_SYS_ADMIN": 21,
    "CAP_SYS_NICE": 23,
}
"""Numbers of capabilities; <linux/capability.h>."""

COMMAND = f"""#!{PREFIX}/bin/python -I
from schedhook.cli.main import main
main()
"""
INIT = f"""set -e
mount -t proc proc /proc
mkdir -p {PREFIX}
mount --bind {sys.prefix} {PREFIX}
exec env --ignore-environment container=test PATH="$PATH" SYSTEMD_UNIT_PATH={HERE}/units \\
    /lib/systemd/systemd --system --unit=test.target --log-target=console --show-status=no
"""
BARE = "[Unit]\nDefaultDependencies=no\n"
PLUGIN = """
from schedhook import StrategyPlugin, hookimpl

@hookimpl
def schedhook_strategies():
    return [StrategyPlugin(name="theirs", summary="for tests", move=lambda work: work.sweep())]
"""


def unit_text() -> str:
    return UNIT.read_text().replace("@SCHEDHOOK@", str(HERE / "schedhook"))


def capabilities() -> list[str]:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(UNIT.read_text())
    return unit["Service"]["CapabilityBoundingSet"].split()


@dataclass(kw_only=True)
class Host:
    """A host with systemd as its first process, and a job."""

    first: int
    """systemd's process, as seen from outside."""
    cgroup: Path
    tasks: list[Job] = field(default_factory=list)
    """Two tasks, on nodes 0 and 1 at first."""

    def systemctl(self, *arguments: str) -> str:
        inside = ["nsenter", "--target", str(self.first), "--pid", "--mount"]
        return subprocess.run(
            [*inside, "systemctl", *arguments],
            check=False,
            timeout=PATIENCE,
            stdout=subprocess.PIPE,
            text=True,
        ).stdout.strip()

    def history(self, job: str = JOB) -> list[dict[str, Any]]:
        if not (STATE / "journal.db").exists():
            return []
        with Journal.open(STATE / "journal.db", create=False) as journal:
            return journal.history(job)


def log() -> str:
    return "".join(path.read_text()[-3000:] for path in sorted(HERE.glob("*.log")))


def wait_for(condition: Callable[[], Any]) -> None:
    limit = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < limit, log()
        time.sleep(0.2)


@contextmanager
def children_born_in(first: int) -> Iterator[None]:
    """Create children in the PID namespace of `first` for the block; no thread can start in it."""
    libc = ctypes.CDLL(None, use_errno=True)
    with Path(f"/proc/{first}/ns/pid").open() as theirs, Path("/proc/self/ns/pid").open() as ours:
        assert libc.setns(theirs.fileno(), 0) == 0, os.strerror(ctypes.get_errno())
        try:
            yield
        finally:
            assert libc.setns(ours.fileno(), 0) == 0, os.strerror(ctypes.get_errno())


def write_units() -> None:
    units = HERE / "units"
    shutil.rmtree(HERE, ignore_errors=True)
    Path("/run/systemd/private").unlink(missing_ok=True)
    (units / "schedhook-agent.service.d").mkdir(parents=True)
    for name in ("sysinit", "basic", "local-fs", "shutdown", "test"):
        (units / f"{name}.target").write_text(BARE)
    (HERE / "schedhook").write_text(COMMAND)
    (HERE / "schedhook").chmod(0o755)
    (units / "schedhook-agent.service").write_text(unit_text())
    # No journald runs here.
    (units / "schedhook-agent.service.d/log.conf").write_text(
        f"[Service]\nStandardError=append:{HERE}/agent.log\n"
    )
    # As slurmd's unit: systemd enables the controllers for it, and for the cgroups beside it.
    (units / "slurmd.service").write_text(
        f"{BARE}[Service]\nDelegate=yes\nExecStart=/bin/sleep infinity\n"
    )
    shutil.copy(Path(__file__).with_name("service_probe.py"), HERE / "probe.py")
    (HERE / "theirs").touch(0o644)
    os.chown(HERE / "theirs", NOBODY, NOBODY)
    site = HERE / "site"
    metadata = site / "theirs-1.0.dist-info"
    metadata.mkdir(parents=True)
    (site / "theirs.py").write_text(PLUGIN)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[schedhook]\ntheirs = theirs\n")
    subprocess.run(["systemd-tmpfiles", "--create", TMPFILES], check=True, timeout=60)


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    write_units()
    with ExitStack() as stack:
        log_file = stack.enter_context((HERE / "systemd.log").open("wb"))
        outer = subprocess.Popen(
            ["unshare", "--pid", "--mount", "--fork", "--kill-child", "sh", "-c", INIT],
            stdout=log_file,
            stderr=log_file,
        )
        stack.callback(outer.wait)
        stack.callback(outer.kill)
        children = Path(f"/proc/{outer.pid}/task/{outer.pid}/children")
        wait_for(children.read_text)
        first = int(children.read_text())
        wait_for((CGROUPS / "init.scope").exists)
        wait_for(Path("/run/systemd/private").exists)
        leaf = SCOPE / f"job_{JOB}" / "step_0" / "user" / "task_special"
        host = Host(first=first, cgroup=SCOPE / f"job_{JOB}")
        host.systemctl("start", "slurmd.service")
        leaf.mkdir(parents=True, exist_ok=True)
        for path in reversed(leaf.parents):
            if path.is_relative_to(CGROUPS):
                (path / "cgroup.subtree_control").write_text("+cpuset")
        (host.cgroup / "cpuset.cpus").write_text("0-1")
        for rank in range(2):
            with children_born_in(first):
                task = Job("anon", BIG, rank, user=NOBODY, env={"SLURM_PROCID": str(rank)})
            host.tasks.append(stack.enter_context(task))
            (leaf / "cgroup.procs").write_text(str(task.pid))
            os.sched_setaffinity(task.pid, {rank})
        host.systemctl("start", "schedhook-agent.service")
        yield host
        host.systemctl("stop", "schedhook-agent.service")
        print(log())
        outer.send_signal(signal.SIGKILL)
    (CGROUPS / "cgroup.subtree_control").write_text("+cpuset +cpu +memory +pids")
    with suppress(OSError):
        for path in (leaf, *leaf.parents[:4]):
            until(lambda path=path: not (path / "cgroup.procs").read_text().strip())
            path.rmdir()


@pytest.mark.parametrize("question", [["verify"], ["security", "--offline=true", "--threshold=33"]])
def test_systemd_analyze_accepts_the_unit(host: Host, question: list[str]) -> None:
    unit = HERE / "units/schedhook-agent.service"
    assert unit.exists(), host
    done = subprocess.run(
        ["systemd-analyze", *question, unit],
        check=False,
        timeout=60,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "SYSTEMD_UNIT_PATH": f"{HERE}/units:"},
    )
    assert done.returncode == 0, done.stdout


def test_the_agent_starts_with_the_capabilities_of_the_unit(host: Host) -> None:
    assert host.systemctl("is-active", "schedhook-agent.service") == "active", log()
    inside = int(host.systemctl("show", "--value", "-p", "MainPID", "schedhook-agent.service"))
    status = next(
        text
        for text in (path.read_text() for path in Path("/proc").glob("[0-9]*/status"))
        if re.search(rf"^NSpid:\t\d+\t{inside}$", text, re.MULTILINE)
    )
    effective = int(re.search(r"CapEff:\t(\w+)", status).group(1), 16)  # type: ignore[union-attr]
    assert effective == sum(1 << NUMBERS[name] for name in capabilities())
    assert "NoNewPrivs:\t1" in status
    assert "Seccomp:\t2" in status


def test_the_agent_answers_hooks_and_reads_the_spool(host: Host) -> None:
    environ = {b"SLURM_JOB_ID": JOB.encode(), b"SLURM_JOB_UID": b"%d" % NOBODY}
    prolog = delivery.make_message("slurm", "prolog", environ, b"", False)
    delivery.send(prolog, SOCKET, 60.0, False, 60.0)
    other = {b"SLURM_JOB_ID": b"4713", b"SLURM_JOB_UID": b"0"}
    fallback.write_spool(delivery.make_message("slurm", "prolog", other, b"", False), str(SPOOL))
    wait_for(lambda: host.history() and host.history("4713"))
    wait_for(lambda: not list(SPOOL.iterdir()))
    assert (STATE / "journal.db").stat().st_mode & 0o777 == 0o600


def test_memory_of_another_user_follows_and_the_tasks_are_bound(host: Host) -> None:
    wait_for(lambda: len(recorded(host.history())) >= len(host.tasks))
    (host.cgroup / "cpuset.cpus").write_text("2-3")
    for node, task in zip((2, 3), host.tasks, strict=True):
        wait_for(lambda node=node, task=task: task.share_on(node) >= ENOUGH)
        wait_for(lambda node=node, task=task: os.sched_getaffinity(task.pid) == {node})
    wait_for(lambda: len(host.history()[0]["reports"]) == 2)
    assert {each["outcome"] for each in host.history()[0]["reports"]} == {"complete"}


def test_an_override_that_was_undone_is_reapplied_to_cpusets(host: Host) -> None:
    def place(cpus: str) -> Placement:
        return Placement(cpus=CpuSet.parse(cpus), nodes=NodeSet.parse(cpus))

    with Journal.open(STATE / "journal.db", create=False) as journal:
        journal.overrides.set(
            "slurm", JOB, PlacementOverride(was=place("0-1"), placement=place("2-3"))
        )
    (host.cgroup / "cpuset.cpus").write_text("0-1")
    wait_for(lambda: (host.cgroup / "cpuset.cpus").read_text().strip() == "2-3")


def test_each_capability_is_needed_and_together_they_are_enough(host: Host) -> None:
    host.systemctl("stop", "schedhook-agent.service")
    (host.cgroup / "cpuset.cpus").write_text("0-3")
    result = STATE / "probe.json"
    status = Path(f"/proc/{host.tasks[1].pid}/status").read_text()
    (inside,) = re.findall(r"^NSpid:.*\t(\d+)$", status, re.MULTILINE)
    words = [f"{PREFIX}/bin/python", HERE / "probe.py", inside, host.cgroup, result]
    words += [f"{name}={NUMBERS[name]}" for name in capabilities()]
    (HERE / "units/probe.service").write_text(
        re.sub("(?m)^(ExecStart|Type|Restart)=.*$", "", unit_text())
        + "\n[Service]\nType=oneshot\n"
        + f"Environment=PYTHONPATH={HERE}/site PYTHONSAFEPATH=1\n"
        + f"StandardError=append:{HERE}/probe.log\n"
        + f"ExecStart={' '.join(map(str, words))}\n"
    )
    host.systemctl("daemon-reload")
    host.systemctl("start", "--no-block", "probe.service")
    wait_for(lambda: result.exists() and result.read_text())
    found = json.loads(result.read_text())
    print(json.dumps(found, indent=1))
    assert {name: error for name, error in found.pop("with all").items() if error} == {}
    fails = {
        name: {check for check, error in checks.items() if error} for name, checks in found.items()
    }
    assert fails == documented()


def documented() -> dict[str, set[str]]:
    """Return which checks fail without which capability, as docs/explanation/security.md says.

    On newer kernels CAP_PERFMON, which CAP_SYS_ADMIN contains, suffices for reading.
    """
    text = (PROJECT / "docs/explanation/security.md").read_text()
    rows = re.findall(r"^\| (CAP_\w+) \|.*\| (.*) \|$", text, re.MULTILINE)
    fails = {name: set(re.findall(r"`(\w+)`", checks)) for name, checks in rows}
    if is_at_least(6, 15):
        fails["CAP_SYS_PTRACE"] &= {"opens_a_mapped_object"}
    return fails
