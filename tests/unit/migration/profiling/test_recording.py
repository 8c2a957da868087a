"""How perf is run to record accesses: on which source, and how it ends. perf is a stand-in here."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from schedhook.host.topology import read_topology
from schedhook.migration.profiling import recording
from schedhook.migration.profiling.reading import read_profile
from schedhook.migration.profiling.recording import Source, printed, record
from schedhook.values.errors import NoPermissionError, UsageError

PERF = """#!/bin/sh
echo "$*" >>{calls}
case $1 in
mem) {mem} ;;
record) {record} ;;
script) {script} ;;
esac
"""
WORKS = """
for word; do case $word in --output=*) echo data >"${word#--output=}" ;; esac; done
while [ "$1" != -- ]; do shift; done
shift
"$@"
"""
DENIED = "echo 'perf_event_paranoid setting is 3:' >&2; exit 255"
SAMPLE = f"{os.getpid()}/{os.getpid()} [000] 1.5: page-faults: 7f0925122e64"

Perf = Callable[..., Callable[[], list[str]]]


@pytest.fixture
def perf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Perf:
    """Return how to put a stand-in on the path; that returns how to read its calls."""

    def install(*, hardware: bool = False, **does: str) -> Callable[[], list[str]]:
        calls = tmp_path / "calls"
        program = tmp_path / "bin/perf"
        program.parent.mkdir()
        does = {"mem": WORKS, "record": WORKS, "script": f"echo '{SAMPLE}'", **does}
        text = PERF.replace("{calls}", str(calls))
        for name, what in does.items():
            text = text.replace(f"{{{name}}}", what)
        program.write_text(text)
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
        monkeypatch.setattr(recording, "has_hardware", lambda: hardware)
        return lambda: calls.read_text().splitlines()

    return install


def test_hardware_is_tried_first(perf: Perf, tmp_path: Path) -> None:
    calls = perf(hardware=True)
    made = record([os.getpid()], 0.1, tmp_path / "data")
    assert (made.source, made.why_not) == (Source.HARDWARE, None)
    (call,) = calls()
    assert call.startswith("mem record --sample-cpu")
    assert f"--pid={os.getpid()}" in call
    assert call.endswith("-- sleep 0.1")


@pytest.mark.parametrize(
    ("hardware", "why"),
    [(False, "no hardware sampling of addresses"), (True, "failed: no such event")],
)
def test_page_faults_are_what_any_machine_has(
    perf: Perf, tmp_path: Path, hardware: bool, why: str
) -> None:
    perf(hardware=hardware, mem="echo; echo failed: no such event >&2; exit 255")
    made = record([os.getpid()], 0.1, tmp_path / "data")
    assert made.source is Source.PAGE_FAULTS
    assert why in str(made.why_not)
    with printed(tmp_path / "data", made) as text:
        profile, _ = read_profile(text, read_topology())
    assert profile.total(os.getpid()) == 1


def test_only_the_wanted_source_is_tried(perf: Perf, tmp_path: Path) -> None:
    calls = perf(hardware=True)
    assert record([1], 0.1, tmp_path / "data", Source.PAGE_FAULTS).why_not is None
    assert [call.split()[0] for call in calls()] == ["record"]


def test_a_wanted_source_that_does_not_work_is_an_error(perf: Perf, tmp_path: Path) -> None:
    perf()
    with pytest.raises(UsageError, match="perf cannot record: this host has no hardware"):
        record([1], 0.1, tmp_path / "data", Source.HARDWARE)


def test_processes_that_end_are_left_out(perf: Perf, tmp_path: Path) -> None:
    """Perf refuses to begin if one is gone that it was to record; a job has many short ones."""
    child = subprocess.Popen(["sleep", "60"])
    calls = perf(
        record=f"case $* in *--pid={child.pid},*) kill {child.pid};"
        f" while [ -e /proc/{child.pid} ]; do sleep 0.05; done;"
        " echo 'cannot create maps: No such process' >&2; exit 255 ;; esac; " + WORKS
    )
    reaper = threading.Thread(target=child.wait)
    reaper.start()
    made = record([4190001, child.pid, os.getpid()], 0.1, tmp_path / "data")
    reaper.join()
    assert made.source is Source.PAGE_FAULTS
    tried = [call.partition("--pid=")[2].split()[0] for call in calls()]
    assert tried == [f"{child.pid},{os.getpid()}", str(os.getpid())]
    with pytest.raises(UsageError, match="no process to record"):
        record([4190001, child.pid], 0.1, tmp_path / "data")


def test_a_process_that_does_not_answer_is_left_out(
    perf: Perf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Perf reads its mappings, and would wait for ever; one process of a job can do that."""
    monkeypatch.setattr(recording, "answers", lambda pid: pid != os.getppid())
    calls = perf()
    record([os.getppid(), os.getpid()], 0.1, tmp_path / "data")
    assert f"--pid={os.getpid()} " in calls()[0]
    with pytest.raises(UsageError, match="no process to record"):
        record([os.getppid()], 0.1, tmp_path / "data")


def test_who_may_not_record_gets_one_line(perf: Perf, tmp_path: Path) -> None:
    perf(record=DENIED)
    with pytest.raises(
        NoPermissionError, match=r"perf_event_paranoid is -?\d.*run as root"
    ) as error:
        record([os.getpid()], 0.1, tmp_path / "data")
    assert "\n" not in str(error.value)


def test_a_host_without_perf(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="install linux-perf"):
        record([os.getpid()], 0.1, tmp_path / "data")


def test_too_many_processes_for_one_command(perf: Perf, tmp_path: Path) -> None:
    perf()
    with pytest.raises(UsageError, match="Argument list too long; record fewer processes"):
        record([os.getpid()] * 40_000, 0.1, tmp_path / "data")
    with pytest.raises(UsageError, match="no process to record"):
        record([], 0.1, tmp_path / "data")


def test_perf_that_does_not_end_is_killed(
    perf: Perf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    perf(record=f"echo $$ >{tmp_path}/pid; exec sleep 60")
    monkeypatch.setattr(recording, "_SLACK", 0.3)
    with pytest.raises(UsageError, match="did not end within"):
        record([os.getpid()], 0.1, tmp_path / "data")
    assert_gone(tmp_path)


def test_an_interrupted_recording_leaves_no_perf(perf: Perf, tmp_path: Path) -> None:
    perf(record=f"echo $$ >{tmp_path}/pid; exec sleep 60")

    recorder = threading.get_ident()

    def interrupt() -> None:
        while not (tmp_path / "pid").exists():
            time.sleep(0.01)
        # If Popen() itself is interrupted, record() has nothing yet by which it could end perf.
        while "wait" not in sys._current_frames()[recorder].f_code.co_name:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            record([os.getpid()], 60, tmp_path / "data")
    finally:
        signal.signal(signal.SIGINT, previous)
        thread.join()
    assert_gone(tmp_path)


def test_why_perf_cannot_print(perf: Perf, tmp_path: Path) -> None:
    perf(script="echo incompatible file format >&2; exit 1")
    made = record([os.getpid()], 0.1, tmp_path / "data")
    with (
        pytest.raises(UsageError, match="cannot print its recording: incompatible file"),
        printed(tmp_path / "data", made) as text,
    ):
        read_profile(text, read_topology())


def test_a_job_of_many_threads_has_one_event_for_each(
    perf: Perf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = perf()
    monkeypatch.setattr(recording, "_MOST_EVENTS", 1)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    record([os.getpid()], 0.1, tmp_path / "data")
    assert "--per-thread" in calls()[0]


def assert_gone(directory: Path) -> None:
    """The recording perf is gone, or about to go: its new parent has yet to be told."""
    pid = int((directory / "pid").read_text())
    end = time.monotonic() + 20
    with pytest.raises(ProcessLookupError):
        while time.monotonic() < end:
            os.kill(pid, 0)
            time.sleep(0.01)
