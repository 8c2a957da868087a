"""The mounted file systems; proc_pid_mountinfo(5).

Users can mount file systems too (fusermount), on directories of any name. The kernel writes blanks
and newlines in a name as octal escapes; other characters at which str.splitlines() splits appear
unescaped.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_OCTAL = re.compile(rb"\\([0-3][0-7]{2})")


class Mount(NamedTuple):
    """A mounted file system. Names are decoded like file names (os.fsdecode)."""

    top: str
    """The directory of the file system that is visible at `point`."""
    point: str
    kind: str
    """The type of the file system: `ext4`, `cgroup2`."""
    options: str


def read_mounts(root: Path = Path("/")) -> list[Mount]:
    """Return the mounts in the order in which they were made; none if /proc is not readable."""
    for name, parse in (("self/mountinfo", parse_mountinfo), ("mounts", _parse_mounts)):
        with contextlib.suppress(OSError):
            return list(parse((root / "proc" / name).read_bytes()))
    return []


def parse_mountinfo(data: bytes) -> Iterator[Mount]:
    """Yield the mounts in the text of /proc/PID/mountinfo."""
    for line in data.split(b"\n"):
        mount, _, source = line.partition(b" - ")
        words, more = mount.split(b" "), source.split(b" ")
        if len(words) > 4 and len(more) > 2:
            yield _mount(words[3], words[4], more[0], more[2])


def _parse_mounts(data: bytes) -> Iterator[Mount]:
    for line in data.split(b"\n"):
        words = line.split(b" ")
        if len(words) > 3:
            yield _mount(b"/", words[1], words[2], words[3])


def _mount(*fields: bytes) -> Mount:
    return Mount(*(os.fsdecode(_OCTAL.sub(_byte, field)) for field in fields))


def _byte(match: re.Match[bytes]) -> bytes:
    return bytes([int(match[1], 8)])
