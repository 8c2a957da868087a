"""Run one command with several NUMA nodes: on this host if it has them, else in a guest."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

from tests.vm import machine, roots

NO_RESULT = 125
HUNG = 124
BOOT_SECONDS = 300
SILENT = 0.4
"""For what part of its time a command may print nothing, before it is taken for hung."""
WAITING = "ps ww --ppid 2 -p 2 --deselect -o pid,ppid,stat,wchan:24,args"
"""Shows what each process waits for, without the kernel's threads."""
EXPORTED = (
    "CI",
    "PYTEST_ADDOPTS",
    "SCHEDHOOK_BALANCING",
    "SCHEDHOOK_CHAOS_SECONDS",
    "SCHEDHOOK_DIRTY",
    "SCHEDHOOK_KILLS",
    "SCHEDHOOK_MIGRATIONS",
    "SCHEDHOOK_REBINDS",
    "SCHEDHOOK_SEED",
)
"""Variables that the guest gets from this process's environment."""


def memory_nodes(root: Path = Path("/sys/devices/system/node")) -> int:
    """Return how many NUMA nodes of this host have memory."""
    try:
        ranges = (root / "has_memory").read_text().strip()
    except FileNotFoundError:
        return 1
    bounds = [part.partition("-") for part in ranges.split(",") if part]
    return sum(int(last or first) - int(first) + 1 for first, _, last in bounds)


def where(nodes: int | None) -> str:
    """Return where a command that needs ``nodes`` nodes runs; None: in a guest anyway."""
    return "a virtual machine" if nodes is None or memory_nodes() < nodes else "this host"


def run(
    command: list[str], results: Path, *, seconds: float, nodes: int | None, setup: machine.Setup
) -> int:
    """Run ``command`` in the project's directory, print its output, return its exit status."""
    if where(nodes) == "this host":
        return run_on_host(command, seconds)
    return run_in_guest(command, results, seconds, setup)


def run_in_guest(
    command: list[str], results: Path, seconds: float, setup: machine.Setup, *, boots: int = 2
) -> int:
    """Run ``command`` in a guest; the directory ``results`` gets its output and status.

    An emulated guest now and then hangs while it boots; then another one is tried. A command that
    hangs is aborted, and its output ends with what each process was waiting for.
    """
    output, status, new = results / "out", results / "status", results / "status.new"
    silent, pid = results / "silent", results / "pid"
    exported = {name: os.environ[name] for name in EXPORTED if name in os.environ}
    exported["TESTS_IN_VM"] = "1"
    script = "\n".join(
        [
            f"cd {shlex.quote(str(roots.PROJECT))}",
            "export " + shlex.join(f"{name}={value}" for name, value in exported.items()),
            f"( until [[ -e {shlex.quote(str(silent))} ]]; do sleep 10; done",
            f"{WAITING} >> {shlex.quote(str(output))}",
            f"kill -ABRT $(< {shlex.quote(str(pid))}) ) &",
            # In the foreground: else it would ignore SIGINT, and its children as well.
            f"( echo $BASHPID > {shlex.quote(str(pid))}",
            f"exec {shlex.join(command)} < /dev/null >> {shlex.quote(str(output))} 2>&1 )",
            f"echo $? > {shlex.quote(str(new))}",
            f"mv {shlex.quote(str(new))} {shlex.quote(str(status))}",
        ]
    )
    with machine.running(script, shared=results, seconds=seconds, setup=setup) as guest:
        position, last = 0, time.monotonic()
        booted_by = last + BOOT_SECONDS
        while True:
            ended = guest.poll() is not None or status.exists()
            hangs = not output.exists() and time.monotonic() > booted_by
            before, position = position, machine.follow(output, position, ended=ended or hangs)
            if ended or hangs:
                break
            if position > before:
                last = time.monotonic()
            elif time.monotonic() > last + seconds * SILENT:
                silent.touch()
            time.sleep(0.2)
    if hangs and boots > 1:
        print(f"the guest did not boot within {BOOT_SECONDS} s; another one is tried", flush=True)
        return run_in_guest(command, results, seconds, setup, boots=boots - 1)
    if status.exists():
        return int(status.read_text())
    console = (results / "console.log").read_text(errors="replace").splitlines()
    print("\n".join(["the guest's console ended with:", *console[-20:]]), file=sys.stderr)
    hung = guest.returncode in {124, 137}
    why = f"was stopped after {seconds:g} s" if hung else f"ended (status {guest.returncode})"
    print(f"the guest {why} without a result", file=sys.stderr)
    return HUNG if hung else NO_RESULT


def run_on_host(command: list[str], seconds: float) -> int:
    """Run ``command`` here, with a time limit for it and its children by timeout(1)."""
    bounded = ["timeout", "--kill-after=10", str(seconds), *command]
    return subprocess.run(bounded, cwd=roots.PROJECT, check=False).returncode
