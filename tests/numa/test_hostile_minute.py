"""A minute of a hostile user: root's hooks, the agent and other jobs go on as they do without."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.numa.agents import hook_command
from tests.numa.hostile import ATTACKS
from tests.numa.hung import hung_process
from tests.numa.slurm_jobs import SCOPE, slurm_job
from tests.numa.test_hung import into
from tests.numa.test_watching import Host, wait_for
from tests.users import NOBODY

pytestmark = pytest.mark.nodes(4)

MIB = 32
OTHERS = "4711"
SECONDS = 60
MOST_KIB = 100 << 10
"""Memory of the agent, in all."""
NATIVE_SECONDS = 0.1
"""A hook takes so long on a real machine, and on an emulated one so many times as long."""


def run_hook(host: Host, point: str = "prolog", job: str = "99") -> float:
    """Run a hook as root, and return its seconds."""
    command = hook_command(host.directory, point)
    began = time.monotonic()
    environment = {"SLURM_JOB_ID": job, "SLURM_JOB_UID": "0"}
    subprocess.run(command, env=environment, check=True, timeout=60)
    return time.monotonic() - began


def follow(host: Host, nodes: tuple[int, int]) -> float:
    """Give the other user's job other processors; return the seconds until its memory is there."""
    began = time.monotonic()
    (host.cgroup / "cpuset.cpus").write_text(f"{nodes[0]},{nodes[1]}")
    for task, node in zip(host.tasks, nodes, strict=True):
        os.sched_setaffinity(task.pid, {node})
    run_hook(host, "job-migrate", OTHERS)
    wait_for(lambda: min(host.shares(*nodes)) >= 0.99, host.log)
    return time.monotonic() - began


def memory(pid: int) -> int:
    """Return the most memory that the process has had, in KiB."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.partition("VmHWM:")[2].split()[0])


@contextmanager
def hostile_user(host: Host) -> Iterator[Path]:
    """Let a user's job attack until the block ends, with the rights and processors of a job."""
    leaf = SCOPE / "job_666/step_0/user/task_special"
    for path in reversed((leaf, *leaf.parents[:3])):
        path.mkdir()
        if path != leaf:
            (path / "cgroup.subtree_control").write_text("+cpuset")
    (SCOPE / "job_666/cpuset.cpus").write_text("2-3")
    with ExitStack() as stack:
        for number in (1, 2):
            stack.enter_context(hung_process(host.directory / f"hung{number}", prefix=into(leaf)))
        # The shell joins the cgroup as root, and the program is the user's.
        as_user = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
        program = [sys.executable, "-I", str(Path(__file__).with_name("hostile.py"))]
        words = [*into(leaf), *as_user, *program, str(host.directory / "s"), *ATTACKS]
        process = subprocess.Popen(words, start_new_session=True)
        try:
            yield leaf
        finally:
            (SCOPE / "job_666/cgroup.kill").write_text("1")
            process.wait()
    for path in (leaf, *leaf.parents[:3]):
        wait_for(lambda path=path: not (path / "cgroup.procs").read_text().strip())
        path.rmdir()


def test_others_go_on(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    with slurm_job(OTHERS, MIB) as (job, tasks):
        host = Host(directory=tmp_path, cgroup=job, tasks=tasks)
        # An interpreter of its own, without this process's memory.
        with host.agent("", "env") as agent:
            idle = [run_hook(host) for _ in range(5)]
            alone = follow(host, (1, 0))
            with hostile_user(host) as attackers:
                end = time.monotonic() + SECONDS
                prologs, follows = [], []
                wait_for(lambda: len((attackers / "cgroup.procs").read_text().split()) > 8)
                while time.monotonic() < end:
                    follows.append(follow(host, (0, 1) if len(follows) % 2 == 0 else (1, 0)))
                    prologs += [run_hook(host) for _ in range(5)]
                used = memory(agent)
    print(f"prologs: idle {idle}, under attack {prologs}")
    print(f"follows: alone {alone}, under attack {follows}; agent {used} KiB")
    usual = statistics.median(idle)
    slower = max(1, usual / NATIVE_SECONDS)
    assert statistics.median(prologs) < usual + slower
    assert max(follows) < alone + 10 * slower
    assert used < MOST_KIB
