"""Run programs for a limited time; say why those that a scheduler's hook runs cannot be run."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from schedhook.values.errors import SchedhookError
from schedhook.values.ownership import explain_untrusted

_SECONDS = 20.0


class NotRunError(SchedhookError):
    """A program did not start, or did not end in time. The message lacks its name."""


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


def run_program(
    words: Sequence[str], seconds: float, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a program without input for at most so many seconds, and return what it printed.

    Raise NotRunError if it does not start, or does not end.
    """
    try:
        return subprocess.run(
            words,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise NotRunError(f"did not end within {seconds:.1f} s") from None
    except OSError as error:
        raise NotRunError(f"does not start: {error.strerror}") from None


def _try(path: Path, trial: Sequence[str]) -> str | None:
    try:
        done = run_program([str(path), *trial], _SECONDS)
    except NotRunError as error:
        return f"{path} {error}"
    if done.returncode == 0:
        return None
    lines = (done.stderr or done.stdout).strip().splitlines()
    return f"{path} ends with status {done.returncode}" + (f": {lines[-1][:200]}" if lines else "")
