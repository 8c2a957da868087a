"""An agent that runs at once: a child of the tests' process, which has the imports."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from schedhook.cli.main import main
from schedhook.hook import run as hook
from tests.forked import in_child
from tests.numa.killing import kill_after

PATIENCE = 300
"""Seconds; the machine is emulated, and its files come over a network."""


def hook_command(directory: Path, point: str) -> list[str]:
    """Return the command of a hook of Slurm's, for the agent or the spool in that directory."""
    places = ["--socket", f"{directory}/s", "--spool", f"{directory}/spool"]
    return [sys.executable, "-I", "-S", hook.__file__, "slurm", point, *places]


def recorded(runs: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return each task's processors as the journal has them for the first of the job's runs.

    A task that the agent sees before it is bound has a second record soon, so the last one counts.
    """
    return {seen["task"]: seen["cpus"] for run in runs[:1] for seen in run["placements"]}


@contextmanager
def running_agent(log: Path, *options: object, prefix: Sequence[str] = ()) -> Iterator[int]:
    """Run `schedhook agent` for the block, end it by SIGTERM, and yield its process.

    An interpreter of its own takes some ten seconds to start in the guest; `prefix`, a command that
    runs a command, wants one.
    """
    words = ["agent", *map(str, options)]

    def work() -> int | None:
        if prefix:
            program = [sys.executable, "-P", "-m", "schedhook.cli.main", *words]
            os.execvp(prefix[0], [*prefix, *program])
        return main(words, standalone_mode=False)  # type: ignore[no-any-return]

    agent = in_child(work, log)
    try:
        yield agent
    except BaseException:
        if log.exists():
            print(log.read_text()[-3000:])  # shown where the test fails
        raise
    finally:
        os.kill(agent, signal.SIGTERM)
        status = kill_after(agent, PATIENCE)
    assert status == 0, log.read_text()[-3000:]
