"""Whether a thread can be stopped by ptrace(2), from /proc/PID/task/TID/status; proc(5)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from schedhook.host._proc import proc_path, read, task_file
from schedhook.values.errors import SchedhookError


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceStatus:
    """What concerns a tracer of a thread."""

    state: str
    """One letter: R, S, D, T (stopped), t, Z (exited), …"""
    tracer: int
    """The process that traces it; 0 if none does."""
    has_filter: bool
    """A seccomp filter, or strict mode, judges its system calls; seccomp(2)."""


def read_trace_status(pid: int, task: int, root: Path = Path("/")) -> TraceStatus:
    """Return the status of a thread. Raise ProcessGoneError if it has ended."""
    values: dict[bytes, bytes] = {}
    for line in read(pid, task_file("status", task), root).split(b"\n"):
        key, _, value = line.partition(b":")
        values[key] = value.strip()
    try:
        return TraceStatus(
            state=values[b"State"][:1].decode("ascii", "replace"),
            tracer=int(values[b"TracerPid"]),
            has_filter=values.get(b"Seccomp", b"0") != b"0",
        )
    except (KeyError, ValueError):
        raise SchedhookError(f"cannot parse {proc_path(pid, 'status', root)}") from None
