"""Record a profile with perf, and move pages to the nodes that use them, on a real kernel."""

from __future__ import annotations

import json
import mmap
import os
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from schedhook.cli.main import main
from schedhook.values.errors import UsageError
from tests.numa.jobs import repeating
from tests.numa.programs import program

pytestmark = pytest.mark.nodes(4)

WITHOUT_MODULES = ("unshare", "--mount", "sh", "-c")
WITHOUT_MODULES += ('mount -t tmpfs none /lib/modules && exec "$@"', "sh")
"""perf reads the files of all modules, thousands of them, before it records anything."""
PAGE = mmap.PAGESIZE
PAGES = 1024
ROUNDS = 3
ODD = range(1, PAGES, 2)
BOTH = set(range(63, PAGES, 64))
MOVING = [index for index in ODD if index not in BOTH]
"""The pages that only node 1 uses."""


class Profiled:
    """A running profiled.c."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [program("profiled"), str(PAGES)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pid = self.process.pid
        self.start = int(self._line().removeprefix("ready "), 16)

    def say(self, line: str) -> str:
        assert self.process.stdin
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self._line()

    def nodes(self) -> list[int]:
        """Return the node of each page, as the job itself reads it from the kernel."""
        return [int(digit) for digit in self.say("nodes")]

    def _line(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline().strip()


@pytest.fixture
def job() -> Iterator[Profiled]:
    job = Profiled()
    yield job
    job.process.kill()
    job.process.communicate()


@contextmanager
def recording(pid: int, directory: Path, *options: str) -> Iterator[None]:
    """Run `perf record` on a process during the block."""
    control, answer = directory / "control", directory / "answer"
    for fifo in (control, answer):
        fifo.unlink(missing_ok=True)
        os.mkfifo(fifo)
    record = ["perf", "record", "--quiet", "--output", directory / "perf.data", "--pid", str(pid)]
    record += ["--delay=-1", f"--control=fifo:{control},{answer}", *options]
    perf = subprocess.Popen([*WITHOUT_MODULES, *record])
    try:
        with control.open("w") as orders, answer.open() as answers:
            orders.write("enable\n")
            orders.flush()
            assert answers.readline().strip("\0\n") == "ack"
            yield
    finally:
        perf.send_signal(signal.SIGINT)
        perf.wait(60)


def record(job: Profiled, directory: Path, options: str, fields: str) -> Path:
    """Return the output of `perf script` for some rounds."""
    with recording(job.pid, directory, *options.split()):
        for _ in range(ROUNDS):
            assert job.say("round") == "done"
    log = directory / "log"
    with log.open("w") as file:
        command = ["perf", "script", "--input", str(directory / "perf.data")]
        subprocess.run([*command, *fields.split()], stdout=file, check=True, timeout=120)
    return log


def from_other_nodes(log: Path, job: Profiled) -> int:
    """Return the accesses from other nodes than the page's, counted without the project's code."""
    nodes, count, seen = job.nodes(), 0, 0
    for cpu, address in re.findall(
        r"\[(\d+)\] .*?(?:page-faults: +|address=0x)([0-9a-f]+)", log.read_text()
    ):
        index = (int(address, 16) - job.start) // PAGE
        if 0 <= index < PAGES:
            (entry,) = Path(f"/sys/devices/system/cpu/cpu{int(cpu)}").glob("node*")
            count += nodes[index] != int(entry.name.removeprefix("node"))
            seen += 1
    assert seen >= ROUNDS * PAGES, log.read_text()[:500]
    return count


@pytest.fixture
def without_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a perf on the path that starts without the modules' files."""
    perf = tmp_path / "bin/perf"
    perf.parent.mkdir()
    words = shlex.join([*WITHOUT_MODULES, str(shutil.which("perf"))])
    perf.write_text(f'#!/bin/sh\nexec {words} "$@"\n')
    perf.chmod(0o755)
    monkeypatch.setenv("PATH", f"{perf.parent}:{os.environ['PATH']}")


@contextmanager
def at_work(job: Profiled) -> Iterator[None]:
    """Let the job make rounds during the block."""

    def work() -> None:
        assert job.say("round") == "done"

    with repeating(work, 0.2):
        yield


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Any:
    def run(*arguments: object) -> tuple[int, dict[str, Any]]:
        capsys.readouterr()
        status = main(["profile", *map(str, arguments), "--json"], standalone_mode=False)
        report = json.loads(capsys.readouterr().out)
        print(json.dumps(report))  # shown if the test fails
        return status, report

    return run


@pytest.mark.parametrize(
    "how",
    [
        (
            "--event page-faults --count 1 --data --sample-cpu",
            "--fields comm,pid,tid,cpu,time,event,addr,data_src",
        ),
        ("--event exceptions:page_fault_user", ""),
    ],
    ids=["page faults", "a tracepoint"],
)
def test_pages_move_to_the_node_that_uses_them(
    run: Any, job: Profiled, tmp_path: Path, how: tuple[str, str]
) -> None:
    if "exceptions" in how[0] and os.uname().machine != "x86_64":
        pytest.skip("only x86-64 has a tracepoint of page faults")
    assert job.nodes() == [0] * PAGES
    log = record(job, tmp_path, *how)
    wrong_before = from_other_nodes(log, job)
    assert wrong_before >= ROUNDS * len(MOVING)

    asked = (log, "--pid", job.pid, "--kinds", "shmem")
    status, plan = run(*asked)
    assert (status, plan["outcome"]) == (0, "planned"), plan
    assert plan["plan"]["moves"] == [{"from": 0, "to": 1, "bytes": len(MOVING) * PAGE}]
    profile = plan["profile"]
    assert profile["accesses"] == ROUNDS * (PAGES + len(BOTH))
    assert profile["local_before"] == profile["accesses"] - wrong_before
    assert profile["local_after"] == profile["local_before"] + ROUNDS * len(MOVING)
    assert job.nodes() == [0] * PAGES

    status, report = run(*asked, "--move")
    assert (status, report["outcome"]) == (0, "complete"), report
    assert report["bytes_moved"] == len(MOVING) * PAGE
    assert report["bytes_left"] == 0
    moved = set(MOVING)
    assert job.nodes() == [int(index in moved) for index in range(PAGES)]

    again = record(job, tmp_path, *how)
    assert from_other_nodes(again, job) <= wrong_before / 10
    status, nothing = run(again, "--pid", job.pid, "--kinds", "shmem", "--move")
    assert (status, nothing["outcome"]) == (0, "nothing-to-do"), nothing


@pytest.mark.usefixtures("without_modules")
def test_one_command_records_and_moves(
    run: Any, job: Profiled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real perf, with what an emulated processor has: page faults."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    with at_work(job):
        status, report = run("--record", "4s", "--pid", job.pid, "--kinds", "shmem", "--move")
    assert status in (0, 3), report
    assert report["bytes_left"] <= 4 * PAGE, "what the job has just dropped from its page tables"
    recording = report["profile"]["recording"]
    assert (recording["source"], recording["seconds"]) == ("page-faults", 4)
    assert "no hardware sampling" in recording["why_not"]
    profile = report["profile"]
    assert profile["local_after"] > 1.5 * profile["local_before"]
    on_1 = {index for index, node in enumerate(job.nodes()) if node == 1}
    assert on_1 <= set(MOVING)
    assert len(on_1) >= len(MOVING) - 4
    running = subprocess.run(["pgrep", "-x", "perf"], capture_output=True, check=False)
    assert running.stdout == b""
    assert not list(scratch.iterdir())


@pytest.mark.usefixtures("without_modules")
def test_an_idle_process_is_an_error_that_says_what_perf_saw(
    job: Profiled, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UsageError, match="perf saw page faults only"):
        main(["profile", "--record", "1s", "--pid", str(job.pid)], standalone_mode=False)
    assert capsys.readouterr().out == ""
