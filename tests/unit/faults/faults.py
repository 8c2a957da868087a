"""What may be wrong on a host. Each fault is brought about in a room, with the real thing."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from tests.unit.faults.room import Room

NOBODY = 65534
SOCKET = "/run/schedhook/agent.sock"
SPOOL = "/var/spool/schedhook"
JOURNAL = "/var/lib/schedhook/journal.db"

During = Callable[[Room], AbstractContextManager[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """`during` is a context manager in which it holds."""

    during: During = field(default=lambda _: nullcontext())
    named: str
    """What a line of the log says, as a regular expression; empty where nothing went wrong."""
    wrapper: str = 'exec "$@"'
    """Shell lines in the place of a hook's Python; `exec "$@"` is what that would do."""
    environ: Mapping[str, str] = field(default_factory=dict)
    user: int | None = None
    """The only user for whom it is one."""


def shell(lines: str) -> During:
    """A fault that shell lines bring about."""

    def during(room: Room) -> AbstractContextManager[None]:
        room.sh(lines)
        return nullcontext()

    return during


@contextmanager
def beside(room: Room, program: str) -> Any:
    """Python lines that run meanwhile, from when they have printed `begun`."""
    command = [*room.words(), sys.executable, "-c", program]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"begun\n"
            yield
        finally:
            process.kill()


def served(program: str, user: int = 0) -> During:
    """Something that is no agent serves the agent's socket: `program` has it as `server`."""
    words = f"""
import os, socket, time
os.umask(0)
server = socket.socket(socket.AF_UNIX)
os.makedirs('/run/schedhook')
if {user}:
    os.chown('/run/schedhook', {user}, {user}); os.setgid({user}); os.setuid({user})
server.bind({SOCKET!r})
server.listen(100)
print('begun', flush=True)
{program}
"""

    return lambda room: beside(room, words)


def answering(program: str) -> During:
    """A server that answers every connection by `program`."""
    return served(f"while True:\n    connection = server.accept()[0]\n    {program}\n")


def journal(lines: str) -> During:
    """The journal is there, and then Python lines (with `path`) break it."""
    program = (
        "from pathlib import Path\nfrom schedhook.journal import Journal\n"
        f"path = Path({JOURNAL!r})\nJournal.open(path).close()\n{lines}"
    )

    def during(room: Room) -> AbstractContextManager[None]:
        done = room.run([sys.executable, "-c", program])
        assert done.returncode == 0, done.stderr
        return nullcontext()

    return during


def locked_journal(room: Room) -> AbstractContextManager[None]:
    """Another process has it for itself."""
    program = (
        f"from pathlib import Path\nfrom schedhook.journal import Journal\nimport sqlite3, time\n"
        f"Journal.open(Path({JOURNAL!r})).close()\nit = sqlite3.connect({JOURNAL!r})\n"
        "it.execute('PRAGMA locking_mode = EXCLUSIVE')\nit.execute('BEGIN EXCLUSIVE')\n"
        "print('begun', flush=True)\ntime.sleep(600)\n"
    )
    return beside(room, program)


@contextmanager
def an_agent(room: Room) -> Any:
    """A real agent, whose log is in the room's directory."""
    program = "from schedhook.cli.agent import command; command()"
    command = [*room.words(), sys.executable, "-c", program, "--no-watch"]
    with (room.directory / "agent.log").open("wb") as log:
        process = subprocess.Popen(command, stderr=log, stdin=subprocess.DEVNULL, env={})
        try:
            end = time.monotonic() + 40
            while "agent serves" not in (room.directory / "agent.log").read_text():
                assert process.poll() is None, (room.directory / "agent.log").read_text()
                assert time.monotonic() < end
                time.sleep(0.05)
            yield
        finally:
            process.kill()
            process.wait()


def served_with(fault: During) -> During:
    """The same fault where an agent runs."""

    @contextmanager
    def during(room: Room) -> Any:
        with fault(room), an_agent(room):
            yield

    return during


FULL = f"""
mkdir -m 700 -p {SPOOL} && mount -t tmpfs -o size=8k,mode=700 none {SPOOL}
! cat /dev/zero > {SPOOL}/full 2> {SPOOL}/../errors
"""

HOST: Mapping[str, Fault] = {
    "nothing is wrong": Fault(during=an_agent, named=""),
    "no agent": Fault(named=r"agent\.sock: No such file"),
    "agent dead": Fault(during=served("os._exit(0)"), named=r"agent\.sock: Connection refused"),
    "agent hung": Fault(during=served("time.sleep(600)"), named="timed out|not done after"),
    "agent somebody else's": Fault(
        during=served("time.sleep(600)", 54321), named="served by user 54321"
    ),
    "agent hangs up": Fault(
        during=answering("connection.close()"), named="hung up|reset by peer|Broken pipe"
    ),
    "agent talks garbage": Fault(
        during=answering(
            r"connection.recv(1 << 21); connection.sendall(b'\x1b[31m\xff\x00%s' * 50)"
            "; connection.close()"
        ),
        named=r"\?\[31m",
    ),
    "agent dies in mid-word": Fault(
        during=answering("connection.recv(10); os._exit(1)"),
        named="hung up|reset by peer|Broken pipe|refused",
    ),
    "spool's disk full": Fault(during=shell(FULL), named="No space left"),
    "spool somebody else's": Fault(
        during=shell(f"mkdir -m 700 {SPOOL} && chown {NOBODY} {SPOOL}"), named="this user's own"
    ),
    "spool open to all": Fault(
        during=shell(f"mkdir {SPOOL} && chmod 1777 {SPOOL}"), named="writable by no other"
    ),
    "spool a link": Fault(
        during=shell(f"mkdir -m 700 /var/spool/it && ln -s it {SPOOL}"), named="is not a directory"
    ),
    "spool a file": Fault(during=shell(f"echo > {SPOOL}"), named="is not a directory"),
    "spool read-only": Fault(
        during=shell(f"mkdir -m 700 {SPOOL} && mount -t tmpfs -o ro,mode=700 none {SPOOL}"),
        named="Read-only file system",
    ),
}
"""Between any hook and the agent."""

PROGRAM: Mapping[str, Fault] = {
    "program missing": Fault(wrapper="exec /nowhere/python3", named="status 127|not found"),
    "program crashes": Fault(wrapper="kill -SEGV $$", named="status 139|signal 11"),
    "program killed": Fault(wrapper="kill -KILL $$", named="status 137|signal 9"),
    "program fails": Fault(wrapper="exit 3", named="status 3"),
    "program hangs": Fault(wrapper="exec sleep 60", named="status 124|no answer within"),
    "program deaf": Fault(
        wrapper="trap '' TERM INT HUP; while :; do sleep 60; done",
        named="status 137|no answer within",
    ),
    "program talks garbage": Fault(wrapper=r"printf '\033[31m\377\nexport X=1\n'", named=""),
    "no memory to start": Fault(wrapper='ulimit -v 4000; exec "$@"', named="status [1-9]|signal"),
    "no memory to work": Fault(wrapper='ulimit -v 10000; exec "$@"', named="status [1-9]|Memory"),
    "no descriptors": Fault(wrapper='ulimit -n 3; exec "$@"', named="status [1-9]"),
    "few descriptors": Fault(
        wrapper='ulimit -n 4; exec "$@"', named="status [1-9]|No such file|Error processing"
    ),
}
"""Of the program that a hook runs."""

ENVIRONMENT: Mapping[str, Fault] = {
    "lines in values": Fault(
        environ={"SLURM_JOB_PARTITION": "a\nschedhook: all is well", "SLURM_JOB_USER": "\n\r\x1b"},
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
        environ={"SLURM_SCRIPT_CONTEXT": "prolog_slurmctld"}, named="has to be"
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
"""What Slurm, or a job's user, may have in the environment; with an agent that would take it."""

_READ_ONLY = (
    "mount -t tmpfs none /mnt; cp -a /var/lib/schedhook /mnt; mount -o remount,ro /mnt;"
    "mount --rbind /mnt /var/lib"
)

KEPT: Mapping[str, Fault] = {
    "journal locked": Fault(during=locked_journal, named="kept it locked"),
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
        named="Read-only file system|cannot be written",
    ),
    "journal's disk full": Fault(
        during=shell(
            "mkdir -m 700 /var/lib/schedhook;"
            "mount -t tmpfs -o size=8k,mode=700 none /var/lib/schedhook;"
            "! cat /dev/zero > /var/lib/schedhook/full 2> /var/lib/errors"
        ),
        named="disk is full|disk fails",
    ),
    "journal somebody else's": Fault(
        during=journal(f"import os; os.chown(path, {NOBODY}, {NOBODY})"),
        named="belongs to user 65534",
    ),
    "journal a directory": Fault(
        during=shell(f"mkdir -m 700 -p {JOURNAL}"), named="cannot be used|cannot be opened"
    ),
}
"""Of the journal, told by whoever opens it: the agent, or a hook that is handled in process."""
