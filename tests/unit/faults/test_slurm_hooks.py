"""contrib/slurm's hooks x faults: status 0 within the limit, nothing printed, one line in the log
that names the fault."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from schedhook import delivery
from tests.unit.faults.faults import (
    ENVIRONMENT,
    HOST,
    KEPT,
    NOBODY,
    PROGRAM,
    Fault,
    an_agent,
    served_with,
)
from tests.unit.faults.room import Room, room

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounts file systems")

INSTALL = Path(__file__).parents[3] / "contrib/slurm/install"
HOOKS = {"prolog": 0, "epilog": 0, "task_prolog": NOBODY}
"""Each with the user that runs it."""
LIMIT = 4.0
"""Seconds, as installed; the hook's own is less."""
SLACK = 6.0
"""What a loaded host adds."""


@pytest.fixture
def hooks(here: Path) -> Path:
    """Installed hooks, with a schedhook and a Python that every user may run."""
    package = here / "site/schedhook"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    for name in ("hook.py", "delivery.py"):
        (package / name).write_bytes(Path(delivery.__file__).with_name(name).read_bytes())
    subprocess.run(
        [sys.executable, INSTALL, "--directory", here / "hooks", "--seconds", f"{LIMIT:g}"],
        env={**os.environ, "PYTHONPATH": str(package.parent)},
        check=True,
        timeout=60,
        capture_output=True,
    )
    python = here / "python"
    python.write_text('#!/bin/sh\nexec "$@"\n')
    python.chmod(0o755)
    real = Path(sys.executable).resolve()  # a virtual environment may be where only root looks
    for hook in (here / "hooks").iterdir():
        hook.write_text(hook.read_text().replace(sys.executable, f"{python} {real}"))
    return here / "hooks"


def run_hooks(hooks: Path, fault: Fault, inside: Room) -> dict[str, list[str]]:
    """Run each hook; what each of them logged."""
    (hooks.parent / "python").write_text(f"#!/bin/sh\n{fault.wrapper}\n")
    environ = {
        "SLURM_JOB_ID": "7",
        "SLURM_JOB_UID": str(NOBODY),
        "SLURM_LOCALID": "0",
        **fault.environ,
    }

    def run(hook: str) -> tuple[str, float, subprocess.CompletedProcess[bytes]]:
        began = time.monotonic()
        user = HOOKS[hook] if fault.user is None else fault.user
        done = inside.run([hooks / hook], environ, user)
        return hook, time.monotonic() - began, done

    with ThreadPoolExecutor(3) as pool:
        for hook, seconds, done in pool.map(run, HOOKS):
            assert (done.returncode, done.stdout, done.stderr) == (0, b"", b""), hook
            assert seconds < LIMIT + 1 + SLACK, hook
    lines = inside.logged()
    assert all(line.isprintable() for line in lines), lines
    return {
        hook: [line for line in lines if re.search(rf"(slurm |schedhook: ){hook}:", line)]
        for hook in HOOKS
    }


def check(lines: dict[str, list[str]], named: str) -> None:
    for hook, told in lines.items():
        assert len(told) == bool(named), (hook, told)
        assert not named or re.search(named, told[0]), (hook, told)


@pytest.mark.parametrize("name", HOST | PROGRAM)
def test_a_hook_says_0_whatever_is_wrong_with_the_host(
    hooks: Path, here: Path, name: str, count: list[int]
) -> None:
    fault = (HOST | PROGRAM)[name]
    (here / "room").mkdir()
    with room(here / "room") as inside, fault.during(inside):
        lines = run_hooks(hooks, fault, inside)
        users = lines.pop("task_prolog")
        check(lines, fault.named)
        if name == "nothing is wrong":
            users = []  # where it comes before the prolog, the agent does not know the job
        # Root's spool is nothing to a user's hook: it tells why it could not reach the agent.
        check({"task_prolog": users}, r"agent\.sock" if name.startswith("spool") else fault.named)
    count[0] += len(HOOKS)


def test_no_process_can_be_made(hooks: Path, here: Path, count: list[int]) -> None:
    """Then sh gives up, and nobody can tell of it; but a host is not drained for that."""
    (here / "room").mkdir()
    with room(here / "room") as inside:
        for hook in HOOKS:
            limited = ["/usr/bin/prlimit", "--nproc=0", hooks / hook]
            assert inside.run(limited, {"SLURM_JOB_ID": "7"}, 54321).returncode == 0
    count[0] += len(HOOKS)


def test_whatever_is_in_the_environment(hooks: Path, here: Path, count: list[int]) -> None:
    """With an agent that takes what is fit to be taken, and tells of the rest."""
    (here / "room").mkdir()
    with room(here / "room") as inside, an_agent(inside):
        for name, fault in ENVIRONMENT.items():
            lines = run_hooks(hooks, fault, inside)
            users = lines.pop("task_prolog")
            check(lines, fault.named)
            # The prolog may have said by now whose the job is, or the epilog that it is over.
            told = fault.named or "not known to be of user"
            assert all(re.search(told, line) for line in users), (name, users)
            count[0] += len(HOOKS)
        inside.sh("! test -e /run/pwned")


@pytest.mark.parametrize("name", KEPT)
def test_an_agent_with_a_broken_journal_keeps_no_hook_waiting(
    hooks: Path, here: Path, name: str, count: list[int]
) -> None:
    fault = KEPT[name]
    (here / "room").mkdir()
    with room(here / "room") as inside, served_with(fault.during)(inside):
        lines = run_hooks(hooks, fault, inside)
        check({"prolog": lines["prolog"], "epilog": lines["epilog"]}, "")
        told = (inside.directory / "agent.log").read_text().splitlines()
        assert [line for line in told if re.search(fault.named, line)], told
    count[0] += len(HOOKS)
