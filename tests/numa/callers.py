"""`schedhook` run by another user, or in another environment, than these tests."""

from __future__ import annotations

import ctypes
import json
import os
import struct
import sys
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from tempfile import TemporaryFile
from typing import Any

from schedhook.cli.errors import run_command
from schedhook.cli.main import main
from tests.numa.puppet import Call
from tests.users import NOBODY

CLONE_NEWNS = 1 << 17
MS_REC, MS_PRIVATE = 1 << 14, 1 << 18

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass
class Answer:
    status: int
    printed: str
    said: str
    """The text on standard error."""

    @property
    def report(self) -> dict[str, Any]:
        report: dict[str, Any] = json.loads(self.printed)
        return report


def call(*words: object, become: Callable[[], object] = lambda: None) -> Answer:
    """Run `schedhook words` in a child of this process, which has the imports, after `become`."""
    with TemporaryFile() as out, TemporaryFile() as error:
        child = os.fork()
        if not child:
            status = 70
            try:
                become()
                sys.stdout = open(out.fileno(), "w", closefd=False)  # noqa: SIM115
                sys.stderr = open(error.fileno(), "w", closefd=False)  # noqa: SIM115
                sys.argv = ["schedhook", *map(str, words)]
                run_command(main, "schedhook")
            except SystemExit as leave:
                status = int(leave.code or 0)
            except BaseException:  # noqa: BLE001 - reported to the parent
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(status)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        texts = []
        for file in (out, error):
            file.seek(0)
            texts.append(file.read().decode())
    answer = Answer(status, *texts)
    print(words, answer)  # shown if the test fails
    return answer


def be_nobody() -> None:
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)


def go_on_in_child() -> None:
    """Return in a child; in the parent, wait for it and exit with its status."""
    child = os.fork()
    if child:
        os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


def private_mounts() -> None:
    """Hide the mounts that follow from other processes."""
    _check(_libc.unshare(CLONE_NEWNS), "unshare")
    mount("none", "/", "", MS_REC | MS_PRIVATE)


def mount(what: str, where: str, kind: str, flags: int = 0, options: str = "") -> None:
    words = (what.encode(), where.encode(), kind.encode(), flags, options.encode())
    _check(_libc.mount(*words), f"mount {where}")


def deny(calls: Iterable[str], error: int) -> None:
    """Let these system calls fail with `error` from now on, by a seccomp(2) filter.

    Container runtimes set such filters.
    """
    rows = [(0x20, 0, 0, 0)]  # load the call's number
    numbers = [int(Call[name.upper()]) for name in calls]
    for index, number in enumerate(numbers):
        rows.append((0x15, len(numbers) - index, 0, number))  # equal: to the last row
    rows += [(0x06, 0, 0, 0x7FFF0000), (0x06, 0, 0, 0x50000 | error)]  # allow; fail
    program = b"".join(struct.pack("HBBI", *row) for row in rows)
    buffer = ctypes.create_string_buffer(program)
    head = struct.pack("HxxxxxxP", len(rows), ctypes.addressof(buffer))
    _check(_libc.prctl(38, 1, 0, 0, 0), "PR_SET_NO_NEW_PRIVS")
    _check(_libc.prctl(22, 2, head, 0, 0), "PR_SET_SECCOMP")


def _check(result: int, what: str) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
