"""Run each hook of contrib/slurm under each fault.

It exits 0 within its limit, prints nothing, and logs one line that names the fault.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import pytest

from schedhook.hook import delivery
from tests.unit.conftest import Count
from tests.unit.faults.faults import (
    CONFIGURATIONS,
    ENVIRONMENT,
    HOST,
    KEPT,
    NOBODY,
    PROGRAM,
    PYTHON,
    SPOOL,
    Fault,
    an_agent,
    configuration,
    served_with,
)
from tests.unit.faults.room import Room, room

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounts file systems")

INSTALL = Path(__file__).parents[3] / "contrib/slurm/install"
HOOKS = {"prolog": 0, "epilog": 0, "task_prolog": NOBODY}
"""Each hook, and the user that runs it."""
LIMIT = 8.0
"""Seconds, as installed; the limit of run.py is lower."""
SLACK = 6.0
"""Seconds that a loaded host may add."""
SOONER = {True: [("--timeout 4.8", "--timeout .5")], False: [("-k 1 8 ", "-k .3 .7 ")]}
"""Lower limits, if a hook only waits for its limit: the agent's (True), or the whole hook's."""
PATIENT = [("--timeout", "--patience 4 --timeout")]
"""For the other faults: an agent on a loaded host answers in time."""
SITE = Path(delivery.__file__).parent
MAYBE = "not known to belong to user"
"""A user's hook may run before its job's prolog here, or after the epilog."""


@cache
def installed() -> dict[str, str]:
    """Return the text of each hook as installed for this Python."""
    with tempfile.TemporaryDirectory() as name:
        subprocess.run(
            [sys.executable, INSTALL, "--directory", name, "--seconds", f"{LIMIT:g}"],
            check=True,
            timeout=60,
            capture_output=True,
        )
        return {hook: (Path(name) / hook).read_text() for hook in HOOKS}


def install(directory: Path, fault: Fault) -> Path:
    """Write hooks that have the fault, and a schedhook that every user can run."""
    site, hooks = directory / "schedhook", directory / "hooks"
    for each in (site, hooks):
        each.mkdir()
    for name in ("run.py", "delivery.py", "fallback.py"):
        (site / name).write_bytes((SITE / name).read_bytes())
    python = fault.python(directory / "python")
    for name, text in installed().items():
        for old, new in (
            (sys.executable, f"{python} {PYTHON}"),
            (str(SITE), str(site)),
            *(SOONER[fault.named == "has not answered"] if fault.waits else PATIENT),
            *fault.edits,
        ):
            assert old in text
            text = text.replace(old, new)  # noqa: PLW2901
        (hooks / name).write_text(text)
        (hooks / name).chmod(0o755)
    return hooks


def run_hooks(hooks: Path, fault: Fault, inside: Room) -> None:
    """Run each hook under the fault, and check status, output, time and log."""
    environ = {
        "SLURM_JOB_ID": "7",
        "SLURM_JOB_UID": str(NOBODY),
        "SLURM_LOCALID": "0",
        **fault.environ,
    }

    def run(hook: str) -> tuple[str, float, subprocess.CompletedProcess[bytes]]:
        began = time.monotonic()
        done = inside.run([hooks / hook], environ, HOOKS[hook])
        return hook, time.monotonic() - began, done

    with ThreadPoolExecutor(3) as pool:
        for hook, seconds, done in pool.map(run, HOOKS):
            assert (done.returncode, done.stdout, done.stderr) == (0, b"", b""), hook
            assert seconds < LIMIT + 1 + SLACK, hook
    lines = [line for line in inside.logged() if line != "full"]
    assert all(line.isprintable() for line in lines), lines
    for hook, user in HOOKS.items():
        told = [line for line in lines if re.search(rf"(slurm |schedhook: ){hook}:", line)]
        named = fault.users if user and fault.users is not None else fault.named
        if user and not named:
            told = [line for line in told if MAYBE not in line]
        assert len(told) == bool(named), (hook, told)
        assert not named or re.search(named, told[0]), (hook, told)
        assert "SLURM_JOB_ID" in fault.environ or all("job 7:" in line for line in told), told


@pytest.mark.parametrize("name", HOST | PROGRAM)
def test_a_hook_exits_0_under_each_fault_of_the_host(name: str, here: Path, count: Count) -> None:
    fault = (HOST | PROGRAM)[name]
    (here / "room").mkdir()
    with room(here / "room") as inside, fault.during(inside):
        run_hooks(install(here, fault), fault, inside)
        if name.startswith("agent ") and "garbage" not in name:
            # A hung agent leaves the time that is reserved for the spool.
            inside.sh(f"test $(ls {SPOOL} | wc -l) = 2")
    count(len(HOOKS))


def test_a_hook_exits_0_if_no_process_can_be_created(here: Path, count: Count) -> None:
    """Then sh gives up and nothing is logged, but the host must not be drained."""
    (here / "room").mkdir()
    hooks = install(here, Fault(named=""))
    with room(here / "room") as inside:
        for hook in HOOKS:
            limited = ["/usr/bin/prlimit", "--nproc=0", hooks / hook]
            assert inside.run(limited, {"SLURM_JOB_ID": "7"}, 54321).returncode == 0
    count(len(HOOKS))


def test_a_hook_exits_0_with_each_environment(here: Path, count: Count) -> None:
    """The agent accepts what is valid, and reports the rest."""
    (here / "room").mkdir()
    with room(here / "room") as inside, an_agent(inside):
        hooks = install(here, Fault(named=""))
        for fault in ENVIRONMENT.values():
            run_hooks(hooks, fault, inside)
        inside.sh("! test -e /run/pwned")
    count(len(HOOKS) * len(ENVIRONMENT))


@pytest.mark.parametrize("name", KEPT)
def test_an_agent_with_a_damaged_journal_delays_no_hook(
    name: str, here: Path, count: Count
) -> None:
    fault = KEPT[name]
    (here / "room").mkdir()
    with room(here / "room") as inside, served_with(fault.during)(inside):
        run_hooks(install(here, Fault(named="")), Fault(named=""), inside)
        told = (inside.directory / "agent.log").read_text().splitlines()
        assert [line for line in told if re.search(fault.named, line)], told
    count(len(HOOKS))


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_an_agent_with_a_bad_configuration_does_not_start(
    name: str, here: Path, count: Count
) -> None:
    """It says why in one line; the hooks, which read no configuration, find no agent."""
    path = configuration(name, here / "config.toml")
    (here / "room").mkdir()
    with room(here / "room") as inside:
        program = "from schedhook.cli.main import run; run()"
        agent = [sys.executable, "-P", "-c", program, "agent"]
        done = inside.run(agent, {"SCHEDHOOK_CONFIG": str(path)})
        lines = done.stderr.decode().splitlines()
        assert (done.returncode, len(lines)) == (2, 1), done
        assert CONFIGURATIONS[name][1] in lines[0]
        run_hooks(install(here, Fault(named="")), HOST["no agent"], inside)
    count(len(HOOKS))
