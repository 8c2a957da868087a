"""The shipped files, and the programs and paths that are written into them."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from schedhook.values.errors import UsageError

CONTRIB = Path(__file__).resolve().with_name("contrib")


def shipped(name: str) -> Path:
    """Return the path of a shipped file, such as `systemd/schedhook-agent.service`."""
    path = CONTRIB / name
    if not path.exists():
        raise UsageError(f"{path} is missing: install schedhook again; in a clone, run `make man`")
    return path.resolve()


def find_program() -> Path:
    """Return the absolute path of the console script of this installation."""
    beside = Path(sys.executable).with_name("schedhook")
    found = beside if beside.exists() else shutil.which("schedhook")
    if found is None:
        raise UsageError("no console script `schedhook` on PATH: install schedhook with pip")
    return Path(found).absolute()
