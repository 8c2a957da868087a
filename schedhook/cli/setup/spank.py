"""Build Slurm's SPANK plug-in on this host: it has to fit the version of Slurm that loads it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from schedhook.cli.setup.shipped import shipped
from schedhook.cli.setup.steps import Directory, Run, Step
from schedhook.values.errors import UsageError
from schedhook.values.ownership import explain_untrusted_parents
from schedhook.values.text import printable

DIRECTORY = Path("/etc/slurm/schedhook")
_NAME = "schedhook.so"
_PLAIN = re.compile(r"/[\w./+@:=-]*")
"""A path that plugstack.conf can name, which has no quotes."""
_FLAGS = ("-O2", "-Wall", "-Wextra", "-shared", "-fPIC")


def spank_steps(directory: Path, *, undo: bool) -> tuple[Step, ...]:
    """Return the steps that build the plug-in in a directory, on a local disk of every host.

    Raise UsageError if it cannot be built here.
    """
    source, library = shipped("slurm/spank/schedhook.c"), directory / _NAME
    new = directory / f".{_NAME}.new"
    if not undo:
        _check_directory(directory)
        _check(source)
    return (
        Directory(path=directory, is_made=True),
        Run(words=("cc", *_FLAGS, "-o", str(new), str(source))),
        # A job that starts now loads the old plug-in or the new one.
        Run(
            words=("mv", "-f", str(new), str(library)),
            undo_words=("rm", "-f", str(new), str(library)),
        ),
    )


def spank_lines(directory: Path) -> tuple[str, ...]:
    """Return what is left to the administrator."""
    return (
        "in plugstack.conf, beside slurm.conf, on every host, login hosts too:",
        f"    optional {directory / _NAME}",
        "build it again after Slurm was upgraded: Slurm leaves out what another version has built",
    )


def _check_directory(directory: Path) -> None:
    """Raise UsageError unless Slurm can load a plug-in from there, and only root can change it."""
    if not _PLAIN.fullmatch(str(directory)):
        raise UsageError(
            f"{str(directory)!r}: choose a directory whose path has only letters, digits and"
            " ./+@:=-_, as plugstack.conf takes it"
        )
    existing = next(each for each in (directory, *directory.parents) if each.exists())
    if others := explain_untrusted_parents(existing / _NAME):
        raise UsageError(f"{others}, and Slurm loads the plug-in as root: choose another directory")


def _check(source: Path) -> None:
    """Raise UsageError unless the plug-in compiles."""
    try:
        words = ["cc", "-fsyntax-only", str(source)]
        done = subprocess.run(words, capture_output=True, text=True, errors="replace", check=False)
    except OSError as error:
        why = f"cc: {error.strerror}"
    else:
        if done.returncode == 0:
            return
        lines = [line for line in done.stderr.splitlines() if "error" in line]
        why = printable((lines or ["cc fails"])[0])[:200]
    raise UsageError(
        f"the SPANK plug-in cannot be built ({why}): install a C compiler and Slurm's headers"
        " (libslurm-dev, slurm-devel); CPATH names them elsewhere"
    )
