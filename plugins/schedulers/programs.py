"""Programs that a scheduler's hook runs: whether they can be run."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from schedhook.values.ownership import explain_untrusted

_SECONDS = 20.0


def explain_unusable(path: Path, trial: Sequence[str] = ()) -> str | None:
    """Return why a program cannot be run; None if it can.

    `trial` are arguments with which it does nothing and ends with status 0; none: it is not tried.
    A program that another user could have written is not tried either.
    """
    if not path.exists():  # or it is a link to a file that does not exist
        return f"{path} does not exist"
    if not path.is_file() or not os.access(path, os.X_OK):
        return f"{path} is not executable, or its file system is mounted with noexec"
    return _try(path, trial) if trial and not explain_untrusted(path) else None


def _try(path: Path, trial: Sequence[str]) -> str | None:
    try:
        done = subprocess.run(
            [path, *trial],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"{path} does not end within {_SECONDS:g} s"
    except OSError as error:
        return f"{path} does not start: {error.strerror}"
    if done.returncode == 0:
        return None
    lines = (done.stderr or done.stdout).strip().splitlines()
    return f"{path} ends with status {done.returncode}" + (f": {lines[-1][:200]}" if lines else "")
