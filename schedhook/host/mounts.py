"""What is mounted where; proc_pid_mountinfo(5).

Users may mount file systems too (fusermount), on directories of any name: the kernel writes blanks
and newlines of a name as octal, and all else at which Python would end a line as it is.
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
    """A mounted file system; names are decoded as those of files."""

    top: str
    """The directory of the file system that shows at `point`."""
    point: str
    kind: str
    """Of file system: `ext4`, `cgroup2`."""
    options: str


def read_mounts(root: Path = Path("/")) -> list[Mount]:
    """In the order in which they were mounted; empty where nobody says."""
    for name, parse in (("self/mountinfo", parse_mountinfo), ("mounts", _parse_mounts)):
        with contextlib.suppress(OSError):
            return list(parse((root / "proc" / name).read_bytes()))
    return []


def parse_mountinfo(data: bytes) -> Iterator[Mount]:
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
