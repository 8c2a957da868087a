"""Faults of a host. Each is made in a room, by the real cause."""

from __future__ import annotations

import resource
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.unit.faults.room import Room
from tests.users import NOBODY

SOCKET = "/run/schedhook/agent.sock"
SPOOL = "/var/spool/schedhook"
JOURNAL = "/var/lib/schedhook/journal.db"

During = Callable[[Room], AbstractContextManager[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One fault. `during` returns a context manager in which the host has it."""

    during: During = field(default=lambda _: nullcontext())
    named: str
    """A regular expression for a line of the log; empty if nothing is logged."""
    users: str | None = None
    """The same for a user's hook, if its line differs."""
    waits: bool = False
    """A hook waits until its time limit."""
    wrapper: str = 'exec "$@"'
    """Shell lines that replace a hook's Python; `exec "$@"` runs it unchanged."""
    mode: int | None = 0o755
    """The mode of the file that replaces Python; None if the file is missing."""
    edits: tuple[tuple[str, str], ...] = ()
    """Texts of a hook's script, and their replacements."""
    environ: Mapping[str, str] = field(default_factory=dict)

    def python(self, path: Path) -> Path:
        """Write the file that replaces Python, and return its path."""
        if self.mode is not None:
            path.write_text(f"#!/bin/sh\n{self.wrapper}\n")
            path.chmod(self.mode)
        return path


def shell(lines: str) -> During:
    """Return a fault that shell lines make."""

    def during(room: Room) -> AbstractContextManager[None]:
        room.sh(lines)
        return nullcontext()

    return during


@contextmanager
def background(room: Room, program: str) -> Iterator[None]:
    """Run Python lines in the background; the block starts once they have called `begun`."""
    program = f"def begun(): print('begun', flush=True)\n{program}"
    command = [*room.words(), sys.executable, "-c", program]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"begun\n"
            yield
        finally:
            process.kill()


def served(program: str, user: int = 0, kind: str = "STREAM") -> During:
    """Return a fault in which `program`, not an agent, serves the agent's socket as `server`."""
    words = f"""
import os, socket, time
os.umask(0)
server = socket.socket(socket.AF_UNIX, socket.SOCK_{kind})
os.makedirs('/run/schedhook')
if {user}:
    os.chown('/run/schedhook', {user}, {user}); os.setgid({user}); os.setuid({user})
server.bind({SOCKET!r})
{program}
"""

    return lambda room: background(room, words)


def answering(program: str) -> During:
    """Return a fault in which a server answers each connection by `program`."""
    return served(
        f"""
import contextlib, threading
def answer(connection):
    with contextlib.suppress(OSError): {program}
server.listen(100)
begun()
while True: threading.Thread(target=answer, args=(server.accept()[0],), daemon=True).start()
"""
    )


SILENT = "server.listen(100)\nbegun()\ntime.sleep(600)\n"
MUTE = "server.listen(100)\nbegun()\nkept = []\nwhile True: kept.append(server.accept()[0])\n"
CROWDED = f"""
server.listen(1)
waiting = []
try:
    while True:
        waiting.append(socket.socket(socket.AF_UNIX))
        waiting[-1].setblocking(False)
        waiting[-1].connect({SOCKET!r})
except BlockingIOError:
    begun()
time.sleep(600)
"""


def journal(lines: str) -> During:
    """Return a fault in which Python lines damage an existing journal, `path`."""
    program = (
        "from pathlib import Path\nfrom schedhook.journal.journal import Journal\n"
        f"path = Path({JOURNAL!r})\nJournal.open(path).close()\n{lines}"
    )

    def during(room: Room) -> AbstractContextManager[None]:
        done = room.run([sys.executable, "-c", program])
        assert done.returncode == 0, done.stderr
        return nullcontext()

    return during


def locked_journal(room: Room) -> AbstractContextManager[None]:
    """Return a fault in which another process has the journal locked."""
    program = (
        "from pathlib import Path\nfrom schedhook.journal.journal import Journal\n"
        "import sqlite3, time\n"
        f"Journal.open(Path({JOURNAL!r})).close()\nit = sqlite3.connect({JOURNAL!r})\n"
        "it.execute('PRAGMA locking_mode = EXCLUSIVE')\nit.execute('BEGIN EXCLUSIVE')\n"
        "begun()\ntime.sleep(600)\n"
    )
    return background(room, program)


@contextmanager
def an_agent(room: Room, environ: Mapping[str, str] | None = None) -> Iterator[int]:
    """Yield the process of a real agent, which logs to agent.log in the room's directory."""
    program = "from schedhook.cli.commands.agent import command; command()"
    command = [*room.words(), sys.executable, "-c", program, "--no-watch"]
    with (room.directory / "agent.log").open("wb") as log:
        process = subprocess.Popen(
            command, stderr=log, stdin=subprocess.DEVNULL, env=dict(environ or {})
        )
        try:
            end = time.monotonic() + 40
            while "agent started" not in (room.directory / "agent.log").read_text():
                assert process.poll() is None, (room.directory / "agent.log").read_text()
                assert time.monotonic() < end
                time.sleep(0.05)
            yield process.pid
        finally:
            process.kill()
            process.wait()


@contextmanager
def agent_without(room: Room, what: int, left: Callable[[int], int]) -> Iterator[None]:
    """Run an agent that has reached the limit of a resource; see setrlimit(2)."""
    with an_agent(room) as pid:
        resource.prlimit(pid, what, (left(pid),) * 2)
        yield


def no_descriptors(room: Room) -> AbstractContextManager[None]:
    return agent_without(
        room, resource.RLIMIT_NOFILE, lambda pid: len(list(Path(f"/proc/{pid}/fd").iterdir()))
    )


@contextmanager
def crowded_log(room: Room) -> Iterator[None]:
    """Fill the queue of the system log, which no process reads."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.setblocking(False)
        sender.connect(str(room.directory / "syslog"))
        try:
            while True:
                sender.send(b"full")
        except BlockingIOError:
            yield


def served_with(fault: During) -> During:
    """Return the same fault with a running agent."""

    @contextmanager
    def during(room: Room) -> Any:
        with fault(room), an_agent(room):
            yield

    return during


PYTHON = Path(sys.executable).resolve()
"""The real interpreter: other users may not be able to run that of a virtual environment."""
UNREACHED = r"agent\.sock"
"""A user's hook does not use root's spool, so it reports why it could not reach the agent."""
FULL = f"""
mkdir -m 700 -p {SPOOL} && mount -t tmpfs -o size=8k,mode=700 none {SPOOL}
! cat /dev/zero > {SPOOL}/full 2> {SPOOL}/../errors
"""

HOST: Mapping[str, Fault] = {
    "nothing is wrong": Fault(during=an_agent, named=""),
    "no agent": Fault(named=r"agent\.sock: No such file"),
    "agent dead": Fault(
        during=served("server.listen(100); begun(); os._exit(0)"),
        named=r"agent\.sock: Connection refused",
    ),
    "agent accepts nothing": Fault(during=served(SILENT), named="has not answered", waits=True),
    "agent answers nothing": Fault(during=served(MUTE), named="has not answered", waits=True),
    "agent with a full queue": Fault(during=served(CROWDED), named="temporarily unavailable"),
    "agent without descriptors": Fault(during=no_descriptors, named="has not answered", waits=True),
    "agent answers by drops": Fault(
        during=answering("[(connection.send(b'x'), time.sleep(0.1)) for _ in range(99)]"),
        named="has not answered",
        waits=True,
    ),
    "agent answers without end": Fault(
        during=answering("[connection.sendall(b'x' * 65536) for _ in range(9999)]"),
        named="answer has more than",
    ),
    "agent of another user": Fault(during=served(SILENT, 54321), named="served by uid 54321"),
    "agent closes the connection": Fault(
        during=answering("connection.close()"),
        named="closed the connection|reset by peer|Broken pipe",
    ),
    "agent answers garbage": Fault(
        during=answering(
            r"connection.recv(1 << 21); connection.sendall(b'\x1b[31m\xff\x00%s' * 50)"
            "; connection.close()"
        ),
        named=r"\?\[31m",
    ),
    "agent dies while answering": Fault(
        during=answering("connection.recv(10); os._exit(1)"),
        named="closed the connection|reset by peer|Broken pipe|refused",
    ),
    "socket a file": Fault(
        during=shell(f"mkdir /run/schedhook && echo > {SOCKET} && chmod 666 {SOCKET}"),
        named="Connection refused",
    ),
    "socket a loop": Fault(
        during=shell(f"mkdir /run/schedhook && ln -s agent.sock {SOCKET}"),
        named="Too many levels of symbolic links",
    ),
    "socket of another type": Fault(
        during=served("begun(); time.sleep(600)", kind="DGRAM"), named="wrong type for socket"
    ),
    "socket out of users' reach": Fault(
        during=served_with(shell("mkdir -m 700 /run/schedhook")),
        named="",
        users="Permission denied",
    ),
    "spool's disk full": Fault(during=shell(FULL), named="No space left", users=UNREACHED),
    "spool of another user": Fault(
        during=shell(f"mkdir -m 700 {SPOOL} && chown {NOBODY} {SPOOL}"),
        named="must belong to this user",
        users=UNREACHED,
    ),
    "spool open to all": Fault(
        during=shell(f"mkdir {SPOOL} && chmod 1777 {SPOOL}"),
        named="writable by no other",
        users=UNREACHED,
    ),
    "spool a link": Fault(
        during=shell(f"mkdir -m 700 /var/spool/it && ln -s it {SPOOL}"),
        named="is not a directory",
        users=UNREACHED,
    ),
    "spool a file": Fault(
        during=shell(f"echo > {SPOOL}"), named="is not a directory", users=UNREACHED
    ),
    "spool read-only": Fault(
        during=shell(f"mkdir -m 700 {SPOOL} && mount -t tmpfs -o ro,mode=700 none {SPOOL}"),
        named="Read-only file system",
        users=UNREACHED,
    ),
    "log missing": Fault(during=shell("rm /dev/log"), named=""),
    "log hangs": Fault(during=crowded_log, named="", waits=True),
}
"""Faults between a hook and the agent."""

PROGRAM: Mapping[str, Fault] = {
    "program missing": Fault(mode=None, named="status 127|No such file"),
    "program not executable": Fault(mode=0o644, named="status 126|Permission denied"),
    "program crashes": Fault(wrapper="kill -SEGV $$", named="status 139|signal 11"),
    "program killed": Fault(wrapper="kill -KILL $$", named="status 137|signal 9"),
    "program fails": Fault(wrapper="exit 3", named="status 3"),
    "program fails for a strange job": Fault(
        wrapper="exit 3", environ={"SLURM_JOB_ID": "7\n-p 0 $(touch /run/pwned)"}, named="status 3"
    ),
    "program hangs": Fault(
        wrapper="exec sleep 60", named="status 124|no answer within", waits=True
    ),
    "program deaf": Fault(
        wrapper="trap '' TERM INT HUP; while :; do sleep 60; done",
        named="status 137|no answer within",
        waits=True,
    ),
    "program stops": Fault(
        wrapper="kill -STOP $$", named="status 1[23]|no answer within", waits=True
    ),
    "program leaves a child": Fault(wrapper="sleep 60 &", named=""),
    "program prints garbage": Fault(wrapper=r"printf '\033[31m\377\nexport X=1\n'", named=""),
    "program prints without end": Fault(
        wrapper="exec cat /dev/zero", named="status 124|no answer within", waits=True
    ),
    "run.py missing": Fault(
        wrapper=f"exec {PYTHON} -I -S /nowhere/run.py", named="status 2|No such file"
    ),
    "delivery.py missing": Fault(
        wrapper=f"exec {PYTHON} -I -S -c 'import delivery'", named="status 1|No module"
    ),
    "delivery.py broken": Fault(
        wrapper=f"exec {PYTHON} -I -S -c 'def'", named="status 1|invalid syntax"
    ),
    "timeout(1) missing": Fault(edits=(("/usr/bin/timeout", "/nowhere/timeout"),), named=""),
    "logger(1) missing": Fault(
        edits=(("/usr/bin/logger", "/nowhere/logger"),), wrapper="exit 3", named=""
    ),
    "no memory to start": Fault(wrapper='ulimit -v 4000; exec "$@"', named="status [1-9]|signal"),
    "no memory to work": Fault(wrapper='ulimit -v 10000; exec "$@"', named="status [1-9]|Memory"),
    "no descriptors": Fault(wrapper='ulimit -n 3; exec "$@"', named="status [1-9]"),
    "few descriptors": Fault(
        # Python 3.13 gets further: an event that is handled has only no journal.
        wrapper='ulimit -n 4; exec "$@"',
        named="status [1-9]|No such file|Error processing|cannot be opened",
    ),
}
"""Faults of the program that a hook runs."""

ENVIRONMENT: Mapping[str, Fault] = {
    "lines in values": Fault(
        environ={"SLURM_JOB_PARTITION": "a\nschedhook: all is well", "SLURM_JOB_USER": "\n\r\x1b"},
        named="",
    ),
    "shell in names": Fault(
        environ={
            "SLURM_JOB_NAME": "'; touch /run/pwned; echo '$(touch /run/pwned)",
            "SLURM_JOB_COMMENT": "\n`touch /run/pwned`\nexport X=1\n",
            "SLURM_JOB_ACCOUNT": "-",
            "SLURM_SUBMIT_DIR": "/tmp/\u202e\n\t\x07",
        },
        named="",
    ),
    "shell in values": Fault(
        environ=dict.fromkeys(
            ("SLURM_JOB_PARTITION", "SLURM_LOCALIDX", "SLURM_JOB_USER", "SLURM_CONF"),
            "$(touch /run/pwned)`touch /run/pwned`;touch /run/pwned;'\"&|>/run/pwned",
        ),
        named="",
    ),
    "not Unicode": Fault(
        environ={"SLURM_JOB_PARTITION": "\udcff\udc80", "SLURM_X": "\u202e\U0001f600"}, named=""
    ),
    "NUL by other names": Fault(
        environ={
            "SLURM_JOB_PARTITION": "\udcc0\udc80\x01\x1a\x1f\x7f\\0\\x00%00",
            "SLURM_JOB_USER": "\x85\u2028\ufeff\ufffe",
        },
        named="",
    ),
    "more than a user may say": Fault(
        environ={f"SLURM_X{number}": "x" * 120_000 for number in range(3)},
        named="",
        users="more than 262144 bytes",
    ),
    "a MiB of values": Fault(
        environ={f"SLURM_X{number}": "x" * 120_000 for number in range(9)},
        named="more than 1048576",
    ),
    "job of two lines": Fault(environ={"SLURM_JOB_ID": "7\n8"}, named="not a job's number"),
    "job a path": Fault(environ={"SLURM_JOB_ID": "../../etc"}, named="not a job's number"),
    "job a command": Fault(
        environ={"SLURM_JOB_ID": "$(touch /run/pwned)"}, named="not a job's number"
    ),
    "no job": Fault(environ={"SLURM_JOB_ID": ""}, named="not a job's number"),
    "user no number": Fault(environ={"SLURM_JOB_UID": "root"}, named="not a user's number"),
    "local number a command": Fault(environ={"SLURM_LOCALID": "! -e / -o x ="}, named=""),
    "another hook's environment": Fault(
        environ={"SLURM_SCRIPT_CONTEXT": "prolog_slurmctld"}, named="this is Slurm's"
    ),
    "Python's variables": Fault(
        environ={
            "PYTHONPATH": "/nowhere",
            "PYTHONHOME": "/nowhere",
            "PYTHONSTARTUP": "/nowhere",
            "LD_LIBRARY_PATH": "/nowhere",
            "SCHEDHOOK_CONFIG": "/nowhere",
            "IFS": "/",
            "ENV": "/nowhere",
        },
        named="",
    ),
}
"""Environments that Slurm or a job's user may pass, while an agent runs."""

CONFIGURATIONS: Mapping[str, tuple[bytes | None, str]] = {
    "missing": (None, "no such configuration file"),
    "not TOML": (b"[agent\n", "not TOML"),
    "unknown key": (b"[agent]\nsokcet = 1\n", "did you mean socket"),
    "wrong value": (b"[agent]\nworkers = 0\n", "from 1 to 256"),
    "not UTF-8": (b"\xff\xfe", "not UTF-8"),
    "nested without end": (b"x = " + b"[" * 100_000, "not TOML"),
    "writable by others": (b"", "may be written by others"),
    "a directory": (None, "Is a directory"),
}
"""The content of the configuration file, and a part of the error."""


def configuration(name: str, path: Path) -> Path:
    """Make the configuration file of that name, and return its path."""
    text = CONFIGURATIONS[name][0]
    if text is not None:
        path.write_bytes(text)
        path.chmod(0o666 if name == "writable by others" else 0o644)
    elif name == "a directory":
        path.mkdir()
    return path


_READ_ONLY = (
    "mount -t tmpfs none /mnt; cp -a /var/lib/schedhook /mnt; mount -o remount,ro /mnt;"
    "mount --rbind /mnt /var/lib"
)

KEPT: Mapping[str, Fault] = {
    "journal locked": Fault(during=locked_journal, named="kept it locked", waits=True),
    "journal corrupt": Fault(
        during=journal("path.write_bytes(b'garbage' * 9999)"), named="not a journal, or damaged"
    ),
    "journal cut off": Fault(
        during=journal(
            "import os; os.truncate(path, 5000);"
            "[path.with_name(path.name + end).unlink(missing_ok=True) for end in ('-wal', '-shm')]"
        ),
        named="damaged|not those of schedhook",
    ),
    "journal newer": Fault(
        during=journal(
            "import sqlite3; it = sqlite3.connect(path); it.execute('PRAGMA user_version = 99')"
        ),
        named="written by a newer schedhook",
    ),
    "journal read-only": Fault(
        during=journal(
            f"import subprocess; subprocess.run({_READ_ONLY!r}, shell=True, check=True)"
        ),
        named="Read-only file system|not writable",
    ),
    "journal's disk full": Fault(
        during=shell(
            "mkdir -m 700 /var/lib/schedhook;"
            "mount -t tmpfs -o size=8k,mode=700 none /var/lib/schedhook;"
            "! cat /dev/zero > /var/lib/schedhook/full 2> /var/lib/errors"
        ),
        named="disk is full|disk fails",
    ),
    "journal of another user": Fault(
        during=journal(f"import os; os.chown(path, {NOBODY}, {NOBODY})"),
        named="belongs to user 65534",
    ),
    "journal a directory": Fault(
        during=shell(f"mkdir -m 700 -p {JOURNAL}"), named="cannot be used|cannot be opened"
    ),
}
"""Faults of the journal. The process that opens it logs them: the agent, or a hook without one."""
