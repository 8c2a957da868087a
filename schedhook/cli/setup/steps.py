"""Steps of a set-up that can be shown, carried out and undone: files to place, commands to run."""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from schedhook.values.errors import NoPermissionError, SchedhookError, UsageError
from schedhook.values.files import replace_file

_OURS = "schedhook"
"""What each placed file has in it, by which it is recognised."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A file that is placed, and removed by undo; parents are made."""

    path: Path
    text: str
    has_own_directory: bool = False
    """Undo removes its directory as well, if that is empty then."""

    def is_foreign(self) -> bool:
        """Return whether another program's file is there. Raise SchedhookError if unreadable."""
        with _named(self.path):
            return self.path.exists() and _OURS not in self.path.read_text(errors="replace")

    def is_placed(self) -> bool:
        """Return whether the file is there. Raise SchedhookError if it cannot be read."""
        return not self.is_foreign() and self.path.exists()

    def check(self) -> None:
        """Raise UsageError if another program's file is there."""
        if self.is_foreign():
            raise UsageError(f"{self.path} is not schedhook's: move it away first")

    def show(self, undo: bool) -> str:
        if undo and self.is_foreign():
            return f"keep {self.path}, which is not schedhook's"
        return f"{'remove' if undo else 'write'} {self.path}"

    def carry_out(self, undo: bool) -> None:
        """Replace the file atomically, or remove it. Raise SchedhookError if that fails."""
        if undo and self.is_foreign():
            return
        with _named(self.path):
            if not undo:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                replace_file(self.path, self.text.encode())
                return
            self.path.unlink(missing_ok=True)
            if self.has_own_directory:
                with contextlib.suppress(OSError):  # not empty
                    self.path.parent.rmdir()


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """Raise an OSError of the block as a SchedhookError that names the file."""
    try:
        yield
    except PermissionError as error:
        raise NoPermissionError(f"{path}: {error.strerror}; run as root") from error
    except OSError as error:
        remedy = f"check {path.parent} and the disk"
        raise SchedhookError(f"{path}: {error.strerror}; {remedy}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A command, and the one that undoes it; none if it has no words."""

    words: Sequence[str] = ()
    undo_words: Sequence[str] = ()
    tells: bool = False
    """The command itself tells what it does."""
    undo_needs: Place | None = None
    """The file without which there is nothing to undo."""

    def check(self) -> None:
        """Do nothing: the command itself says what it cannot do."""

    def show(self, undo: bool) -> str:
        return "" if self.tells else shlex.join(self._words(undo))

    def _words(self, undo: bool) -> Sequence[str]:
        if undo and self.undo_needs is not None and not self.undo_needs.is_placed():
            return ()
        return self.undo_words if undo else self.words

    def carry_out(self, undo: bool) -> None:
        """Run the command, with this process's output. Raise SchedhookError if it fails.

        One that tells what it does has said why it failed: leave with its exit status.
        """
        words = self._words(undo)
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
    """A directory that is made, or that a service makes; undo removes it if it is empty."""

    path: Path
    is_made: bool = False

    def check(self) -> None:
        """Do nothing: what cannot be made is told then."""

    def show(self, undo: bool) -> str:
        if undo:
            return f"remove {self.path} if it is empty"
        return f"make {self.path}" if self.is_made else ""

    def carry_out(self, undo: bool) -> None:
        """Make the directory, or remove it unless something is in it.

        Raise SchedhookError if it cannot be made.
        """
        if undo:
            with contextlib.suppress(OSError):
                self.path.rmdir()
        elif self.is_made:
            with _named(self.path):
                self.path.mkdir(parents=True, exist_ok=True)


Step = Place | Run | Directory


def carry_out(steps: Sequence[Step], *, dry_run: bool) -> None:
    """Say each step and carry it out, unless `dry_run`. Users may read what is placed.

    Raise SchedhookError for the first step that fails; before any is carried out for a file that is
    another program's.
    """
    for step in steps:
        step.check()
    umask = os.umask(0o022)
    try:
        for step in steps:
            _say(step.show(undo=False))
            if not dry_run:
                step.carry_out(undo=False)
    finally:
        os.umask(umask)


def undo(steps: Sequence[Step], *, dry_run: bool) -> None:
    """Say each step, the last one first, and undo it, unless `dry_run`.

    One that fails does not stop the others. Raise SchedhookError if some have.
    """
    failures: list[SchedhookError] = []
    for step in reversed(steps):
        try:
            _say(step.show(undo=True))
            if not dry_run:
                step.carry_out(undo=True)
        except SchedhookError as error:
            failures.append(error)
    if failures:
        raise type(failures[0])("; ".join(map(str, failures)))


def _say(line: str) -> None:
    if line:
        click.echo(line)
