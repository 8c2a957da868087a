"""Steps of a set-up that can be shown, carried out and undone: files to place, commands to run."""

from __future__ import annotations

import contextlib
import shlex
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from schedhook.values.errors import NoPermissionError, SchedhookError, UsageError

_OURS = "schedhook"
"""What each placed file has in it, by which it is recognised."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A file that is placed, and removed by undo; parents are made."""

    path: Path
    text: str
    has_own_directory: bool = False
    """Undo removes its directory as well, if that is empty then."""

    def show(self, undo: bool) -> str:
        return f"{'remove' if undo else 'write'} {self.path}"

    def carry_out(self, undo: bool) -> None:
        """Write or remove the file. Raise SchedhookError if it is another's, or cannot be written.

        It is replaced atomically.
        """
        try:
            if self.path.exists() and _OURS not in self.path.read_text(errors="replace"):
                raise UsageError(f"{self.path} is not schedhook's: move it away first")
            if undo:
                self.path.unlink(missing_ok=True)
                if self.has_own_directory:
                    with contextlib.suppress(OSError):  # not empty
                        self.path.parent.rmdir()
                return
            self.path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            new = self.path.with_name(f".{self.path.name}.new")
            new.write_text(self.text)
            new.chmod(0o644)
            new.replace(self.path)
        except PermissionError as error:
            raise NoPermissionError(f"{self.path}: {error.strerror}; run as root") from error
        except OSError as error:
            remedy = f"check {self.path.parent} and the disk"
            raise SchedhookError(f"{self.path}: {error.strerror}; {remedy}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A command, and the one that undoes it; none if it has no words."""

    words: Sequence[str] = ()
    undo_words: Sequence[str] = ()
    tells: bool = False
    """The command itself tells what it does."""

    def show(self, undo: bool) -> str:
        if self.tells:
            return ""
        return shlex.join(self.undo_words if undo else self.words)

    def carry_out(self, undo: bool) -> None:
        """Run the command, with this process's output. Raise SchedhookError if it fails.

        One that tells what it does has said why it failed: leave with its exit status.
        """
        words = self.undo_words if undo else self.words
        if not words:
            return
        try:
            done = subprocess.run(words, check=False)
        except OSError as error:
            raise SchedhookError(f"{words[0]}: {error.strerror}") from error
        if done.returncode and self.tells:
            raise click.exceptions.Exit(done.returncode)
        if done.returncode:
            raise SchedhookError(f"{shlex.join(words)}: exit status {done.returncode}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Directory:
    """A directory that a service makes when it starts; undo removes it if it is empty."""

    path: Path

    def show(self, undo: bool) -> str:
        return f"remove {self.path} if it is empty" if undo else ""

    def carry_out(self, undo: bool) -> None:
        """Remove the directory, to undo, unless something is in it."""
        if undo:
            with contextlib.suppress(OSError):
                self.path.rmdir()


Step = Place | Run | Directory


def carry_out(steps: Iterable[Step], *, undo: bool, dry_run: bool) -> None:
    """Say each step and carry it out, unless `dry_run`; to undo, in the opposite order."""
    ordered = list(steps)
    for step in reversed(ordered) if undo else ordered:
        line = step.show(undo)
        if line:
            click.echo(line)
        if not dry_run:
            step.carry_out(undo)
