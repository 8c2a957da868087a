"""Pictures for a ticket: the files that --svg and --html name."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from schedhook.cli.options import PathType
from schedhook.values.errors import SchedhookError, UsageError
from schedhook.values.files import replace_file

if TYPE_CHECKING:
    from schedhook.cli.output.charts import Chart

_Command = TypeVar("_Command", bound=Callable[..., Any])


def picture_options(command: _Command) -> _Command:
    """--svg and --html: the values that `Pictures` takes."""
    for name, what in (("--html", "page with the numbers"), ("--svg", "picture")):
        command = click.option(
            name,
            type=PathType(),
            metavar="FILE",
            help=f"Also write a {what}, before and after where something moves.",
        )(command)
    return command


@dataclass(frozen=True, slots=True, kw_only=True)
class Pictures:
    """The files that were asked for."""

    svg: Path | None
    html: Path | None

    def __post_init__(self) -> None:
        """UsageError for a place that cannot be written to: before anything is done, not after."""
        for path in filter(None, (self.svg, self.html)):
            _check(path)

    def __bool__(self) -> bool:
        return self.svg is not None or self.html is not None

    def write(self, chart: Chart) -> None:
        """Write them, each whole or not at all. SchedhookError where that fails."""
        from schedhook.cli.output.svg import to_html, to_svg

        if self.svg is not None:
            _write(self.svg, to_svg(chart))
        if self.html is not None:
            _write(self.html, to_html(chart))


def _check(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        mode = stat.S_IFREG
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    if not stat.S_ISREG(mode):
        raise UsageError(f"{path} is not a file that could be replaced: name a plain file")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise UsageError(f"{path}: cannot write to the directory {path.parent}: name another")


def _write(path: Path, text: str) -> None:
    """Replace the file at once. A link at its place is replaced, not followed."""
    try:
        replace_file(path, text.encode(errors="backslashreplace"))
    except OSError as error:
        raise SchedhookError(f"cannot write {path}: {error.strerror}") from error
