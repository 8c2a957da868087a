"""Write the files that --svg and --html ask for."""

from __future__ import annotations

import os
import socket
import stat
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from schedhook.cli.output.text import when
from schedhook.values.errors import SchedhookError, UsageError
from schedhook.values.files import replace_file
from schedhook.values.text import printable

if TYPE_CHECKING:
    from schedhook.cli.output.charts import Chart


@dataclass(frozen=True, slots=True, kw_only=True)
class Pictures:
    """The files to write; None: not asked for.

    Raise UsageError at once if one of them cannot be written, before anything has moved.
    """

    svg: Path | None
    html: Path | None
    root: Path = Path("/")
    """What the picture is of: this host, or a snapshot below this directory."""

    def __post_init__(self) -> None:
        for path in filter(None, (self.svg, self.html)):
            check_file(path)

    def __bool__(self) -> bool:
        return self.svg is not None or self.html is not None

    def write(self, chart: Chart) -> None:
        """Replace each file atomically. Raise SchedhookError if that fails."""
        from schedhook.cli.output.html.picture import to_html
        from schedhook.cli.output.svg import to_svg

        origin = f"{host_name(self.root)}, {when(time.time())}"
        if self.svg is not None:
            write_file(self.svg, to_svg(chart, origin))
        if self.html is not None:
            write_file(self.html, to_html(chart, origin))


def host_name(root: Path) -> str:
    """Return the name of this host, or of the one that the snapshot below `root` is of."""
    try:
        return printable((root / "proc/sys/kernel/hostname").read_text().strip())
    except (OSError, ValueError):
        return socket.gethostname()


def check_file(path: Path) -> None:
    """Raise UsageError unless a regular file can be written at `path`, or replaced there."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        mode = stat.S_IFREG
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    if not stat.S_ISREG(mode):
        raise UsageError(
            f"{path} is not a plain file: name a plain file, or one that does not exist"
        )
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise UsageError(
            f"{path}: cannot write to the directory {path.parent}: name a file in another"
        )


def write_file(path: Path, text: str) -> None:
    """Replace the file atomically. A symbolic link in its place is replaced, not followed.

    Raise SchedhookError if that fails.
    """
    try:
        replace_file(path, text.encode(errors="backslashreplace"), _mode(path))
    except OSError as error:
        raise SchedhookError(f"cannot write {path}: {error.strerror}; name another file") from error


def _mode(path: Path) -> int:
    """Return the permissions of the file that is replaced, or those of a new one."""
    with suppress(FileNotFoundError):
        found = path.lstat().st_mode
        if stat.S_ISREG(found):
            return found & 0o777
    umask = os.umask(0o077)
    os.umask(umask)
    return 0o666 & ~umask
