"""Strategy hot-first: how soon most accesses are local, as the job itself sees them.

The job asks the kernel of every 256th access where the page is.
"""

from __future__ import annotations

import errno
import mmap
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from schedhook.control.damon import count_accesses
from schedhook.migration.sweeper import Sweeper
from schedhook.relocation import pipeline
from schedhook.testing.native import HUGE
from tests.balancing import setting
from tests.numa.programs import program

pytestmark = pytest.mark.nodes(4)

KDAMONDS = Path("/sys/kernel/mm/damon/admin/kdamonds")
MIB, HOME = 160, 2
CHUNK_KIB = max(4096, HUGE >> 10)
"""At least a huge page: heat is told of parts that none crosses."""
RATE = 8
"""MB/s: a move of 21 seconds."""
WINDOW = 0.1
TOGETHER = 5
"""Windows that are looked at together: in one of them there may be few accesses."""


class Hot:
    """A running hot.c."""

    def __init__(self, pages: str) -> None:
        words = [program("hot"), str(MIB), str(CHUNK_KIB), str(HOME)]
        words += ["huge"] if pages == "huge" else []
        self.process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.pid = self.process.pid
        assert self.process.stdout
        self.start = int(self.process.stdout.readline().split()[1], 16)

    def say(self, line: str) -> str:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def seconds_until_local(self, share: float) -> float:
        """Return when, since `watch`, that share of the accesses was local for the first time."""
        windows = {}
        for word in self.say("told").split():
            number, _, counts = word.partition(":")
            windows[int(number)] = [int(each) for each in counts.split("/")]
        for number in range(max(windows) + 1):
            its = [windows[n] for n in range(number, number + TOGETHER) if n in windows]
            local, seen = sum(each[0] for each in its), sum(each[1] for each in its)
            if seen >= 100 and local >= share * seen:
                return (number + TOGETHER) * WINDOW
        raise AssertionError(f"never: {windows}")


@contextmanager
def hot(pages: str) -> Iterator[Hot]:
    job = Hot(pages)
    try:
        yield job
    finally:
        job.process.kill()
        job.process.communicate()


@pytest.fixture
def damon() -> Iterator[Path]:
    """Return the file with the number of DAMON's monitors, of which there are none afterwards."""
    number = KDAMONDS / "nr_kdamonds"
    if not number.exists():
        pytest.skip("this kernel has no DAMON")
    own_monitor = Path("/sys/module/damon_stat/parameters/enabled")
    with setting(own_monitor, "N") if own_monitor.exists() else nullcontext():
        yield number
    assert number.read_text().strip() == "0"


@dataclass(frozen=True, slots=True)
class Course:
    """What it took until 90 % of the accesses were local."""

    seconds: float
    """Since the plan was made; on an emulated machine they say little."""
    first: float
    """Seconds until something had moved, since then."""
    moved: float
    """The part of the memory that had moved by then: at one bandwidth, the part of the time."""


PLAIN: dict[str, Course] = {}
"""By move-pages, by size of page."""


def course_of(run: Any, strategy: str, job: Hot, *more: object) -> Course:
    began: list[float] = []
    moved: list[tuple[float, int]] = []
    carry_out, record = pipeline.carry_out, Sweeper.record

    def timed(*arguments: Any) -> Any:
        began.append(time.monotonic())
        return carry_out(*arguments)

    def noted(sweeper: Sweeper, part: Any, sizes: Any) -> None:
        record(sweeper, part, sizes)
        moved.append((time.monotonic(), sum(sizes.values())))

    watched = time.monotonic()
    assert job.say("watch") == "ok"
    words = ("relocate", "--pid", job.pid, "--from", 0, "--to", HOME, "--kinds", "anon")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "carry_out", timed)
        patch.setattr(Sweeper, "record", noted)
        status, report = run(*words, "--bandwidth", RATE, "--strategy", strategy, *more)
    assert (status, report["bytes_left"]) == (0, 0), report
    local = watched + job.seconds_until_local(0.9)
    before = sum(size for when, size in moved if when <= local)
    first = moved[0][0] - began[0]
    return Course(local - began[0], first, before / report["bytes_moved"])


def compare(run: Any, early: Course, pages: str) -> float:
    """Return how much had moved when most accesses were local, by move-pages as 1."""
    if pages not in PLAIN:
        with hot(pages) as job:
            PLAIN[pages] = course_of(run, "move-pages", job)
    plain = PLAIN[pages]
    print(f"{early}, {plain}")
    print(f"bytes {early.moved / plain.moved:.2f}, time {early.seconds / plain.seconds:.2f}")
    return early.moved / plain.moved


@pytest.mark.usefixtures("damon")
def test_damon_tells_what_is_used_most() -> None:
    """It estimates, and a busy host may let the job run too seldom."""
    with hot("small") as job:
        assert any(is_ranked_right(job) for _ in range(8))


def is_ranked_right(job: Hot) -> bool:
    """Return whether DAMON finds the hot fifth of the job's memory."""
    window, chunk = 2 << 20, CHUNK_KIB << 10
    end = job.start + (MIB << 20)
    ranges = {job.pid: [(at, at + window) for at in range(job.start, end, window)]}
    rows = sorted(count_accesses(ranges)[job.pid], key=lambda row: -row[2])
    found = {(start - job.start) // chunk % 5 for start, *_ in rows[: len(rows) // 5]}
    print([row[2] for row in rows])
    return found == {3}


@pytest.mark.usefixtures("damon")
@pytest.mark.parametrize("pages", ["small", "huge"])
@pytest.mark.short(0)
def test_when_most_accesses_are_local_by_damon(run: Any, pages: str) -> None:
    """Print it: a single hot part that DAMON misjudges delays it much."""
    with hot(pages) as job:
        early = course_of(run, "hot-first", job)
    compare(run, early, pages)


@pytest.mark.parametrize("pages", ["small", "huge"])
@pytest.mark.short(1)
def test_most_accesses_are_local_early_by_a_profile(run: Any, tmp_path: Path, pages: str) -> None:
    """The log has every 16th page, and nine times as many accesses to the hot ones as to others."""
    log = tmp_path / "log.csv"
    with hot(pages) as job:
        chunk = CHUNK_KIB << 10
        rows = [
            f"{job.pid},{HOME},{job.start + at:x},{36 if at // chunk % 5 == 3 else 1}\n"
            for at in range(0, MIB << 20, 16 * mmap.PAGESIZE)
        ]
        log.write_text("pid,node,address,weight\n" + "".join(rows))
        early = course_of(run, "hot-first", job, "--profile", log)
    assert compare(run, early, pages) <= 0.35


def test_a_kernel_without_damon(run: Any) -> None:
    if KDAMONDS.exists():
        pytest.skip("this kernel has DAMON")
    with hot("small") as job:
        words = ("relocate", "--pid", job.pid, "--from", 0, "--to", HOME, "--kinds", "anon")
        status, report = run(*words, "--strategy", "hot-first")
    assert (status, report["outcome"]) == (0, "complete")
    (note,) = report["notes"]
    assert "this kernel has no DAMON" in note


def test_damon_that_another_program_uses_is_left_alone(run: Any, damon: Path) -> None:
    damon.write_text("1")
    with hot("small") as job:
        words = ("relocate", "--pid", job.pid, "--from", 0, "--to", HOME, "--kinds", "anon")
        status, report = run(*words, "--strategy", "hot-first")
    assert (status, report["outcome"]) == (0, "complete")
    assert ["another program uses DAMON" in note for note in report["notes"]] == [True]
    assert damon.read_text().strip() == "1"
    damon.write_text("0")


def test_damon_ends_if_the_command_is_killed(damon: Path) -> None:
    with hot("small") as job:
        words = (
            "relocate",
            "--pid",
            job.pid,
            "--from",
            "0",
            "--to",
            HOME,
            "--strategy",
            "hot-first",
        )
        command = [sys.executable, "-m", "schedhook.cli.main", *map(str, words)]
        killed = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        wait_for(is_monitoring, 120)
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        wait_for(lambda: damon.read_text().strip() == "0", 30)


def is_monitoring() -> bool:
    state = KDAMONDS / "0/state"
    try:
        return state.exists() and state.read_text().strip() == "on"
    except OSError as error:
        return error.errno == errno.EBUSY  # another process waits for the result


def wait_for(reached: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < end
        time.sleep(0.01)
