"""Check of what `policies = "rebind"` needs."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Iterable
from contextlib import suppress

from schedhook.cli.doctor.setup import Setup
from schedhook.plugins.findings import Finding, ok, problem
from schedhook.values.model import Policies

_SUBJECT = "ptrace"
_WAIT_NS = 5_000_000_000


def check_policies(setup: Setup) -> Iterable[Finding]:
    """Try to stop a child of this process, if memory policies are to be rebound."""
    if setup.config.relocation.policies is Policies.LEAVE:
        return
    number = _stop_child()
    if not number:
        yield ok(_SUBJECT, "works: memory policies can be rebound")
    elif number == errno.ENOSYS:
        yield problem(
            _SUBJECT, "only x86-64 is supported", 'set policies = "leave" in [relocation]'
        )
    else:
        what = f"denied ({os.strerror(number)}): memory policies cannot be rebound"
        remedy = (
            "let no seccomp filter deny it (SystemCallFilter=ptrace in the agent's unit), and no"
            " security module (kernel.yama.ptrace_scope below 3)"
        )
        yield problem(_SUBJECT, what, remedy)


def _stop_child() -> int:
    """Return the errno with which that fails, 0 if it works."""
    from schedhook.backends.native import _core

    child = os.fork()
    if not child:
        try:
            signal.pause()
        finally:
            os._exit(0)
    try:
        _core.remote_stop(child, _WAIT_NS)
    except OSError as error:
        return error.errno or 0
    finally:
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    return 0
