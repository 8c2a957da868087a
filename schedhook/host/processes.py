"""Processes in /proc: identity, rights, and the nodes of their memory.

Sources: proc(5), numa(7), and the kernel's fs/proc/task_mmu.c and mm/mempolicy.c for what those
leave out. Every function that takes a pid raises ProcessGoneError if the process has exited, and
NoPermissionError if the caller may not read the file.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from schedhook.host._proc import (
    is_exiting,
    is_io_worker,
    is_kernel_thread,
    live_task,
    proc_path,
    read,
    read_beginning,
    stat_fields,
    task_file,
    thread_ids,
    translated,
)
from schedhook.host.areas import read_areas, read_memory, residency
from schedhook.host.bounded import call_bounded
from schedhook.host.listing import list_numbers
from schedhook.host.topology import read_online_cpus, read_online_nodes
from schedhook.host.vanishing import read_living
from schedhook.values.errors import NoPermissionError, NotAnsweringError, SchedhookError
from schedhook.values.sets import CpuSet, NodeSet
from schedhook.values.text import printable

__all__ = [
    "Identity",
    "Stat",
    "Status",
    "all_pids",
    "answers",
    "boot_id",
    "boot_time",
    "is_exiting",
    "is_io_worker",
    "is_kernel_thread",
    "live_task",
    "open_cgroup",
    "open_memory",
    "open_pagemap",
    "open_task",
    "read_areas",
    "read_cgroup",
    "read_command",
    "read_environment",
    "read_first_entry",
    "read_identity",
    "read_memory",
    "read_parent",
    "read_start_time",
    "read_stat",
    "read_status",
    "read_threads_cpus",
    "residency",
    "thread_ids",
]

_STATUS_KEYS = frozenset(
    b"Name State Tgid PPid Uid Threads Cpus_allowed_list Mems_allowed_list CapEff VmSwap".split()
)
_COMMAND_LENGTH = 80
_MOST_WORDS = 4096
"""Bytes of a command line that are read: a process can make it as long as its memory, prctl(2)."""
_LONGEST_ENVIRONMENT = 1 << 20
"""A process can declare any part of its memory to be its environment: PR_SET_MM_MAP, prctl(2)."""
_ENTRY = 8
"""Bytes for each page in pagemap."""
_MOST_DIGITS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Distinguishes a process from a later one with the same number."""

    pid: int
    start_time: int
    """Clock ticks since boot; field 22 of /proc/PID/stat."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stat:
    """What distinguishes programs, from /proc/PID/stat."""

    start_time: int
    """Clock ticks since boot; field 22."""
    stack_start: int
    """The address of the bottom of the stack; 0 if the caller may not see it. Field 28.

    Each execve(2) draws it again unless address randomization is off.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """The parts of /proc/PID/status that a relocation needs."""

    name: str
    """The name of the command, at most 15 characters, made printable."""
    state: str
    """One letter: R, S, D, T (stopped), t, Z (exited, not yet waited for), X, I."""
    tgid: int
    """The process that this thread belongs to; the number itself for a process."""
    parent: int
    """The parent's number; 0 if the parent is outside this pid namespace."""
    uid: int
    """The real user."""
    threads: int
    allowed_cpus: CpuSet
    allowed_nodes: NodeSet
    """Mems_allowed: the nodes of its cpuset. All online nodes on a kernel without cpusets."""
    cap_effective: int
    """The bit mask of effective capabilities, capabilities(7)."""
    swapped: int = 0
    """Anonymous bytes in swap."""


def read_identity(pid: int, root: Path = Path("/")) -> Identity:
    """Return what shows, compared later, whether the number still means the same process."""
    return Identity(pid=pid, start_time=read_start_time(pid, root))


def read_start_time(pid: int, root: Path = Path("/"), task: int | None = None) -> int:
    """Return when the process, or its thread `task`, started, in clock ticks since boot."""
    return read_stat(pid, root, task).start_time


def read_stat(pid: int, root: Path = Path("/"), task: int | None = None) -> Stat:
    """Return what /proc/PID/stat shows of the process, or of its thread `task`."""
    fields = stat_fields(pid, root, task)
    start_time, stack_start = fields[19], fields[25]
    if not (start_time.isdigit() and stack_start.isdigit()):
        raise SchedhookError(f"cannot parse {proc_path(pid, 'stat', root)}")
    return Stat(
        start_time=int(start_time[:_MOST_DIGITS]), stack_start=int(stack_start[:_MOST_DIGITS])
    )


def read_parent(pid: int, root: Path = Path("/")) -> int:
    """Return the parent's number; 0 if the parent is outside this pid namespace."""
    return int(stat_fields(pid, root)[1])


def open_task(pid: int, task: int, root: Path = Path("/")) -> int:
    """Return a descriptor that can be read, again at offset 0, until that thread has ended.

    Reading then fails with ESRCH, even if another thread has got the number.
    """
    with translated(pid, name := task_file("comm", task), root):
        return os.open(proc_path(pid, name, root), os.O_RDONLY | os.O_CLOEXEC)


def open_cgroup(pid: int, task: int, root: Path = Path("/")) -> tuple[int, bytes]:
    """Return a descriptor of the thread's file `cgroup`, and what that shows now.

    `read_cgroup` reads it again.
    """
    text = read(pid, name := task_file("cgroup", task), root)
    with translated(pid, name, root):
        return os.open(proc_path(pid, name, root), os.O_RDONLY | os.O_CLOEXEC), text


def read_cgroup(pid: int, descriptor: int, most: int, root: Path = Path("/")) -> bytes:
    """Return at most so many bytes of what a descriptor of `open_cgroup` shows by now.

    Raise ProcessGoneError once the thread has ended (the first: has been waited for), even if
    another one has got the number; SchedhookError if the kernel cannot show the cgroup: older ones
    fail with ENAMETOOLONG if its name has more than 4095 bytes.
    """
    with translated(pid, "cgroup", root):
        return os.pread(descriptor, most, 0)


def open_memory(pid: int, task: int, root: Path = Path("/")) -> int:
    """Return a descriptor of the thread's memory, to read it at its addresses."""
    with translated(pid, name := task_file("mem", task), root):
        return os.open(proc_path(pid, name, root), os.O_RDONLY | os.O_CLOEXEC)


def open_pagemap(pid: int, task: int, root: Path = Path("/")) -> int:
    """Return a descriptor of /proc/PID/pagemap: 64 bits for each page of the address space."""
    with translated(pid, name := task_file("pagemap", task), root):
        return os.open(proc_path(pid, name, root), os.O_RDONLY | os.O_CLOEXEC)


def read_first_entry(pagemap: int) -> bytes:
    """Return the first entry of an open pagemap; nothing if the address space has ended."""
    return os.pread(pagemap, _ENTRY, 0)


def read_status(pid: int, root: Path = Path("/"), *, task: int | None = None) -> Status:
    """Return the state, user, rights and cpuset of the process, or of its thread `task`."""
    lines = read(pid, task_file("status", task), root).split(b"\n")
    values = {
        key: value.strip().decode("ascii", "replace")
        for key, value in _pairs(lines)
        if key in _STATUS_KEYS
    }
    try:
        return Status(
            name=printable(values.get(b"Name", "")),
            state=values[b"State"][:1],
            tgid=int(values.get(b"Tgid", pid)),
            parent=int(values.get(b"PPid", 0)),
            uid=int(values[b"Uid"].split()[0]),
            threads=int(values.get(b"Threads", 1)),
            allowed_cpus=CpuSet.parse(values[b"Cpus_allowed_list"])
            if b"Cpus_allowed_list" in values
            else read_online_cpus(root),
            allowed_nodes=NodeSet.parse(values[b"Mems_allowed_list"])
            if b"Mems_allowed_list" in values
            else read_online_nodes(root),
            cap_effective=int(values.get(b"CapEff", "0"), 16),
            swapped=_kilobytes(values.get(b"VmSwap", "0")),
        )
    except (KeyError, ValueError, IndexError):
        raise SchedhookError(
            f"cannot parse {proc_path(pid, 'status', root)}; is /proc mounted there?"
        ) from None


def read_threads_cpus(pid: int, root: Path = Path("/")) -> CpuSet:
    """Return the processors that at least one thread of the process may run on."""
    cpus = CpuSet()
    threads = thread_ids(pid, root)
    for _, status in read_living(threads, lambda tid: read_status(pid, root, task=tid)):
        cpus = cpus | status.allowed_cpus
    return cpus


def _pairs(lines: Iterable[bytes]) -> Iterator[tuple[bytes, bytes]]:
    for line in lines:
        key, colon, value = line.partition(b":")
        if colon:
            yield key, value


def _kilobytes(text: str) -> int:
    return int(text.split(maxsplit=1)[0]) << 10


def read_command(pid: int, root: Path = Path("/")) -> str:
    """Return the command line, or `[name]` if there is none, as one short printable line.

    The process chooses these words, so control characters are escaped. If it does not answer, only
    its name can be read.
    """
    try:
        words = read_beginning(pid, "cmdline", root, _MOST_WORDS).rstrip(b"\0")
    except NotAnsweringError:
        words = b""
    if words:
        text = printable(words.replace(b"\0", b" ").decode("utf-8", "backslashreplace"))
    else:
        name = read(pid, "comm", root).removesuffix(b"\n").decode("utf-8", "backslashreplace")
        text = f"[{printable(name)}]"
    return text if len(text) <= _COMMAND_LENGTH else text[: _COMMAND_LENGTH - 1] + "…"


def answers(pid: int, root: Path = Path("/")) -> bool:
    """Return whether the lock of the process's memory can be had; True if it has ended."""

    def read_entry() -> None:
        file = open_pagemap(pid, pid, root)
        try:
            read_first_entry(file)
        finally:
            os.close(file)

    try:
        try:
            call_bounded(pid, read_entry, root)
        except NoPermissionError:  # it belongs to another user
            read_beginning(pid, "cmdline", root, 1)
    except NotAnsweringError:
        return False
    except (SchedhookError, OSError):  # it has ended
        return True
    return True


def read_environment(pid: int, root: Path = Path("/")) -> bytes:
    """Return the beginning of the process's initial environment, /proc/PID/environ.

    The process can write anything there.
    """
    return read_beginning(pid, "environ", root, _LONGEST_ENVIRONMENT)


def boot_time(root: Path = Path("/")) -> float:
    """Return when the host started, in seconds since the epoch; /proc/stat. 0 if unknown."""
    with suppress(OSError, ValueError):
        for line in (root / "proc/stat").read_text(encoding="ascii").splitlines():
            if line.startswith("btime "):
                return float(line.split()[1])
    return 0.0


def boot_id(root: Path = Path("/")) -> str | None:
    """Return the kernel's id of this boot; random(4). None if unknown."""
    with suppress(OSError):
        return (root / "proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return None


def all_pids(root: Path = Path("/")) -> list[int]:
    """Return all processes that /proc shows to the caller, in ascending order."""
    try:
        return list_numbers(root / "proc")
    except OSError as error:
        raise SchedhookError(f"cannot list {root / 'proc'}: {error.strerror}") from error
