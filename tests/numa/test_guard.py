"""The rollback helper on the real kernel: it survives what kills the relocation, or others recover.

What another process asks for during a relocation stays.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from schedhook.cli.main import main
from schedhook.hook import run as hook
from tests.forked import in_child
from tests.numa.jobs import Job, cgroup
from tests.numa.killing import settle

pytestmark = pytest.mark.nodes(4)

MIB = 32
SECONDS = 10
"""How long a job may stay frozen once a process has looked."""


@dataclass(frozen=True)
class Victim:
    """A job in a cgroup, and a relocation of it that takes long."""

    job: Job
    path: Path

    def is_frozen(self) -> bool:
        return (self.path / "cgroup.freeze").read_text().strip() == "1"

    def freeze(self, value: str) -> None:
        """Write as Slurm does, which does not truncate."""
        handle = os.open(self.path / "cgroup.freeze", os.O_WRONLY)
        os.write(handle, value.encode())
        os.close(handle)

    def is_as_before(self) -> bool:
        return not self.is_frozen() and os.sched_getaffinity(self.job.pid) == {0}

    def start_relocation(self, log: Path, session: Path | None = None, rate: int = 2) -> int:
        """Start it in the cgroup `session`; return its pid once the job is frozen and bound."""
        words = ["relocate", "--pid", str(self.job.pid), "--map", "0:2", "--cpus", "2", "--freeze"]

        def work() -> object:
            if session is not None:
                (session / "cgroup.procs").write_text(str(os.getpid()))
            return main([*words, "--bandwidth", str(rate)], standalone_mode=False)

        child = in_child(work, log)
        assert settle(self.is_frozen, 60), log.read_text()
        assert os.sched_getaffinity(self.job.pid) == {2}
        time.sleep(0.2)  # until it watches the file that it has just written
        return child


@pytest.fixture
def victim() -> Iterator[Victim]:
    with cgroup("victim") as path, Job("anon", MIB, 0, cgroup=path) as job:
        os.sched_setaffinity(job.pid, {0})
        contents = job.checksum()
        yield Victim(job, path)
        (path / "cgroup.freeze").write_text("0")
        assert job.checksum() == contents


def helper_of(pid: int) -> int:
    (helper,) = map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
    return helper


def test_the_helper_survives_the_end_of_a_cgroup(victim: Victim, tmp_path: Path) -> None:
    with cgroup("session") as session:
        child = victim.start_relocation(tmp_path / "log", session)
        (session / "cgroup.kill").write_text("1")
        os.waitpid(child, 0)
        assert settle(victim.is_as_before, SECONDS)


def test_the_helper_survives_the_end_of_a_memory_group(victim: Victim, tmp_path: Path) -> None:
    """The kernel kills all of a cgroup with memory.oom.group if one process needs too much."""
    with cgroup("session") as session:
        (session / "memory.oom.group").write_text("1")
        (session / "memory.max").write_text(str(256 << 20))
        (session / "memory.swap.max").write_text("0")
        child = victim.start_relocation(tmp_path / "log", session)
        eat = "bytearray(300 << 20)"
        join = f"open('{session}/cgroup.procs', 'w').write('0'); {eat}"
        eater = subprocess.run([sys.executable, "-S", "-c", join], check=False, timeout=120)
        assert eater.returncode == -signal.SIGKILL
        os.waitpid(child, 0)
        assert settle(victim.is_as_before, SECONDS)


def run_hook() -> None:
    command = [sys.executable, "-I", "-S", hook.__file__, "slurm", "prolog"]
    command += ["--socket", "/nowhere/agent.sock", "--spool", "/nowhere/spool"]
    subprocess.run(command, check=True, timeout=60, stderr=subprocess.DEVNULL)


def run_command(*words: str) -> None:
    main(list(words), standalone_mode=False)


@pytest.mark.parametrize(
    "look",
    [
        run_hook,
        lambda: run_command("show", "--pid", str(os.getpid()), "--json"),
        lambda: run_command("doctor", "--json"),
        lambda: run_command("recover"),
    ],
    ids=["hook", "show", "doctor", "recover"],
)
def test_if_both_are_killed_the_next_entry_point_recovers(
    victim: Victim, tmp_path: Path, look: Callable[[], None]
) -> None:
    child = victim.start_relocation(tmp_path / "log")
    os.kill(helper_of(child), signal.SIGKILL)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert victim.is_frozen()
    look()
    assert settle(victim.is_as_before, SECONDS)


@pytest.mark.short(1)
@pytest.mark.parametrize("asked", ["1", "0"])
def test_what_another_process_asks_for_stays(victim: Victim, tmp_path: Path, asked: str) -> None:
    child = victim.start_relocation(tmp_path / "log", rate=16)
    victim.freeze(asked)
    _, status = os.waitpid(child, 0)
    assert status == 0, (tmp_path / "log").read_text()
    assert (victim.path / "cgroup.freeze").read_text().strip() == asked


def test_what_another_process_asks_for_stays_after_a_kill(victim: Victim, tmp_path: Path) -> None:
    child = victim.start_relocation(tmp_path / "log")
    helper = helper_of(child)
    victim.freeze("1")
    os.sched_setaffinity(victim.job.pid, {1})
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert settle(lambda: not Path(f"/proc/{helper}/fd/0").exists(), SECONDS)
    assert victim.is_frozen()
    assert os.sched_getaffinity(victim.job.pid) == {1}


# -- no process to be had ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "status"), [(["--cpus", "2"], 4), (["--freeze"], 4), ([], 0)], ids=str
)
def test_a_limit_on_processes(
    victim: Victim, tmp_path: Path, words: list[str], status: int
) -> None:
    relocate = ["relocate", "--pid", str(victim.job.pid), "--map", "0:2", "--json", *words]
    with cgroup("poor", "+pids") as poor:

        def work() -> object:
            (poor / "cgroup.procs").write_text(str(os.getpid()))
            (poor / "pids.max").write_text("1")
            return main(relocate, standalone_mode=False)

        _, ended = os.waitpid(in_child(work, tmp_path / "log"), 0)
    log = (tmp_path / "log").read_text()
    assert os.waitstatus_to_exitcode(ended) == status, log
    assert "Traceback" not in log
    assert ("no process can be started" in log) == bool(words)
    assert victim.is_as_before()
    assert victim.job.share_on(0 if words else 2) >= 0.99
    assert not any(Path("/run/schedhook/rollback").glob("*"))
