"""Record accesses by perf(1) for a bounded time, and give its samples as text.

perf samples loads and stores by hardware where the processor can (Intel PEBS, AMD IBS, Arm SPE),
and page faults anywhere else. A recording ends by itself, also if this process is killed.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import BinaryIO, cast

from schedhook.host.processes import answers, thread_ids
from schedhook.host.vanishing import call_with_living, read_living
from schedhook.values.errors import NoPermissionError, ProcessGoneError, UsageError
from schedhook.values.text import printable

_SLACK = 60.0
"""Seconds that perf may take to start and to end."""
_NO_PROCESS = "there is no process to record: name some that run"
_GONE = "No such process"
_MOST_DATA = "256M"
_MOST_EVENTS = 4096
_FIELDS = "pid,tid,cpu,time,event,addr"
"""Without `comm`, which the recorded program chooses."""
_DEVICES = ("cpu/events/mem-loads", "cpu_core/events/mem-loads", "ibs_op", "arm_spe_*")
_PARANOID = Path("/proc/sys/kernel/perf_event_paranoid")


class Source(StrEnum):
    """What perf samples."""

    HARDWARE = "hardware"
    PAGE_FAULTS = "page-faults"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """How accesses were recorded."""

    source: Source
    seconds: float
    why_not: str | None
    """Why the source is not a better one."""

    def explain_empty(self) -> str:
        """Return what a recording without a usable sample may lack, as the end of a sentence."""
        if self.source is Source.HARDWARE:
            return ""
        return (
            "; perf saw page faults only, which pages that stay mapped cause only while"
            " kernel.numa_balancing is 1"
        )


def record(
    pids: Sequence[int], seconds: float, data: Path, wanted: Source | None = None
) -> Recording:
    """Record the accesses of processes for so many seconds into the file `data`.

    Processes that end meanwhile, or do not answer, are left out. The best source that works is
    taken, or the one that is `wanted`. Raise UsageError if none works, NoPermissionError if the
    caller may not record these processes.
    """
    if not pids:
        raise UsageError(_NO_PROCESS)
    if shutil.which("perf") is None:
        raise UsageError(
            "perf is not installed, which --record runs: install linux-perf (Debian) or perf (RHEL)"
        )
    failed: _Failed | None = None
    pids = [pid for pid in pids if answers(pid)]  # perf would wait for the others
    for source in [wanted] if wanted else Source:
        act = partial(_record_from, source, seconds=seconds, data=data)
        try:
            if call_with_living(pids, act):
                why_not = failed.why if failed else None
                return Recording(source=source, seconds=seconds, why_not=why_not)
        except _Failed as error:
            failed = error
        else:
            raise UsageError(_NO_PROCESS)
    assert failed is not None
    raise failed.error()


@contextmanager
def printed(data: Path, recording: Recording) -> Iterator[BinaryIO]:
    """Give the samples of a recording as text. Raise UsageError if perf fails to print them."""
    more = ",data_src" if recording.source is Source.HARDWARE else ""
    command = ["perf", "script", "--input", str(data), "--fields", _FIELDS + more]
    with tempfile.TemporaryFile() as errors, _running(command, errors, subprocess.PIPE) as perf:
        try:
            yield cast("BinaryIO", perf.stdout)
        except UsageError:
            _check_printed(perf, errors)  # else an empty log would hide the cause
            raise
        _check_printed(perf, errors)


def _check_printed(perf: subprocess.Popen[bytes], errors: BinaryIO) -> None:
    if status := perf.wait(_SLACK):
        why = _last_line(errors) or f"it ends with status {status}"
        raise UsageError(f"perf cannot print its recording: {why}")


class _Failed(Exception):
    """A source does not work; `is_denied` if only because the caller may not use it."""

    def __init__(self, why: str, *, is_denied: bool = False) -> None:
        super().__init__(why)
        self.why = why
        self.is_denied = is_denied

    def error(self) -> Exception:
        if not self.is_denied:
            return UsageError(f"perf cannot record: {self.why}")
        level = _PARANOID.read_text(encoding="ascii").strip()
        return NoPermissionError(
            f"perf may not record these processes (kernel.perf_event_paranoid is {level}): run as"
            " root, or for your own processes let root set `sysctl kernel.perf_event_paranoid=1`"
        )


def _record_from(source: Source, pids: Sequence[int], *, seconds: float, data: Path) -> bool:
    """Record from a source; return True. Raise _Failed, or ProcessGoneError if a process ended."""
    if source is Source.HARDWARE:
        if not has_hardware():
            raise _Failed("this host has no hardware sampling of addresses (PEBS, IBS, SPE)")
        command = ["perf", "mem", "record"]  # which chooses the processor's event, with addresses
    else:
        command = ["perf", "record", "--event=page-faults", "--count=1", "--data"]
    command += ["--sample-cpu", f"--output={data}", f"--max-size={_MOST_DATA}", "-B"]
    command += [f"--pid={','.join(map(str, pids))}", *_per_thread(pids)]
    command += ["--", "sleep", str(seconds)]
    with tempfile.TemporaryFile() as errors:
        with _running(command, errors) as perf:
            try:
                status = perf.wait(seconds + _SLACK)
            except subprocess.TimeoutExpired:
                why = f"perf did not end within {_SLACK:g} s after the recording"
                raise _Failed(why) from None
        if status == 0 and data.exists():
            return True
        text = _text(errors)
        if _GONE in text:
            raise ProcessGoneError(_last_line(errors))
        is_denied = any(word in text for word in ("perf_event_paranoid", "ermission", "EACCES"))
        raise _Failed(_last_line(errors) or f"it ends with status {status}", is_denied=is_denied)


def has_hardware(root: Path = Path("/")) -> bool:
    """Return whether the processor samples addresses of loads and stores."""
    devices = root / "sys/bus/event_source/devices"
    return any(True for pattern in _DEVICES for _ in devices.glob(pattern))


def _per_thread(pids: Sequence[int]) -> list[str]:
    """Return the option that has one event for each thread, if there were too many otherwise.

    By default perf has one for each thread and processor, and then follows new threads, too.
    """
    threads = sum(len(each) for _, each in read_living(pids, thread_ids))
    return ["--per-thread"] if threads * (os.cpu_count() or 1) > _MOST_EVENTS else []


@contextmanager
def _running(
    command: Sequence[str], errors: BinaryIO, output: int = subprocess.DEVNULL
) -> Iterator[subprocess.Popen[bytes]]:
    """Run perf during the block, at whose end it and what it started are killed."""
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            env={**os.environ, "LC_ALL": "C"},
            start_new_session=True,
        )
    except OSError as error:  # such as E2BIG, for tens of thousands of processes
        raise UsageError(
            f"perf cannot be started: {error.strerror}; record fewer processes, by --pid"
        ) from error
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _text(file: BinaryIO) -> str:
    file.seek(0)
    return file.read(1 << 16).decode("utf-8", "replace")


def _last_line(file: BinaryIO) -> str:
    lines = [line.strip() for line in _text(file).splitlines() if line.strip()]
    return printable(lines[-1])[:200] if lines else ""
