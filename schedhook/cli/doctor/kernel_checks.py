"""Checks of what the kernel allows this user, and of what else moves pages."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from schedhook.cli.doctor.setup import Setup
from schedhook.host.processes import read_status
from schedhook.plugins.findings import Finding, note, ok, problem

_CAPABILITIES = {
    # <linux/capability.h>
    "CAP_SYS_NICE": (23, "pages that several processes map stay, and cpusets cannot be crossed"),
    "CAP_SYS_PTRACE": (19, "only this user's own processes can be moved"),
    "CAP_SYS_ADMIN": (21, "pages that fork(2) shares count in each process, as upper bounds"),
}


def check_capabilities(_: Setup) -> Iterable[Finding]:
    """Find out which capabilities(7) this process holds."""
    effective = read_status(os.getpid()).cap_effective
    for name, (bit, without) in _CAPABILITIES.items():
        if effective >> bit & 1:
            yield ok(name, "held")
        else:
            remedy = "run as root, or grant it in the service's unit (AmbientCapabilities=)"
            yield note(name, f"missing: {without}", remedy)


def check_calls(setup: Setup) -> Iterable[Finding]:
    """Try the system calls and files that a relocation needs on this process itself."""
    from schedhook.backends.native import _core, access

    refusals = dict(access.probe(setup.root))
    for subject, refusal in refusals.items():
        if refusal is None:
            yield ok(subject, "works")
        else:  # the message of the refusal has the remedy
            yield problem(subject, "does not work: nothing can be moved", str(refusal))
    if refusals.get("/proc") is not None:
        return
    with (setup.root / "proc/self/pagemap").open("rb") as pagemap:
        scans = _core.can_scan(pagemap.fileno())
    if scans:
        yield ok("PAGEMAP_SCAN", "works")
    else:
        what = "missing: /proc/PID/pagemap is read instead, which is slower on sparse memory"
        yield note("PAGEMAP_SCAN", what, "run Linux 6.7 or later, if that matters")


def check_balancing(setup: Setup) -> Iterable[Finding]:
    """Find out whether the kernel's NUMA balancing moves pages, too."""
    if _read_number(setup.root / "proc/sys/kernel/numa_balancing"):
        what = "on: the kernel moves pages itself and may undo a relocation"
        remedy = "sysctl kernel.numa_balancing=0 on hosts whose jobs are bound"
        yield note("numa_balancing", what, remedy)
    else:
        yield ok("numa_balancing", "off")


def _read_number(path: Path) -> int:
    """Return what a sysctl file holds, 0 if it does not exist."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return 0
