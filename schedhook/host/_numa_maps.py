"""Lines of /proc/PID/numa_maps.

The format is that of show_numa_map() in the kernel's fs/proc/task_mmu.c and mpol_to_str() in
mm/mempolicy.c; numa(7) documents most of it.
"""

from __future__ import annotations

import contextlib
import mmap
import re
from dataclasses import dataclass, field

_OCTAL = re.compile(rb"\\([0-7]{3})")
_OTHER_FIELDS = frozenset(
    (b"heap", b"stack", b"dirty", b"mapped", b"swapcache", b"active", b"writeback")
)


@dataclass(slots=True)
class NumaLine:
    """A mapping as numa_maps shows it."""

    start: int
    policy: str = "default"
    name: bytes = b""
    is_huge: bool = False
    anon: int = 0
    """Pages that are the process's own copies."""
    most_mappers: int = 1
    page_size: int = mmap.PAGESIZE
    pages: dict[int, int] = field(default_factory=dict)
    """Pages per node."""

    @property
    def size(self) -> int:
        """Resident bytes."""
        return sum(self.pages.values()) * self.page_size


def parse_numa_maps(data: bytes, resident_only: bool) -> list[NumaLine]:
    """Return the lines of the file.

    `resident_only` leaves out those of mappings without pages in memory and without a policy.
    """
    lines = []
    for text in data.split(b"\n"):
        # Blanks in file names are escaped, so " N" can only begin a count of pages.
        if text and (b" N" in text or b" default" not in text or not resident_only):
            with contextlib.suppress(ValueError):  # a truncated line
                lines.append(_parse_line(text))
    return lines


def _parse_line(text: bytes) -> NumaLine:
    words = text.split(b" ")
    line = NumaLine(int(words[0], 16))
    policy = words[1:2]
    in_policy = True
    for word in words[2:]:
        key, _, value = word.partition(b"=")
        if key[:1] == b"N" and key[1:].isdigit():
            line.pages[int(key[1:])] = int(value)
        elif key == b"file":
            line.name = _unescape(value)
        elif key == b"anon":
            line.anon = int(value)
        elif key == b"mapmax":
            line.most_mappers = int(value)
        elif key == b"kernelpagesize_kB":
            line.page_size = int(value) << 10
        elif key == b"huge":
            line.is_huge = True
        elif key not in _OTHER_FIELDS:
            # `prefer (many):0-1` and `weighted interleave:0-1` contain a blank.
            if in_policy:
                policy.append(word)
            continue
        in_policy = False
    line.policy = b" ".join(policy).decode("ascii", "replace")
    return line


def policy_text(line: bytes) -> str:
    """Return the policy of one line of the file."""
    return _parse_line(line).policy


def _unescape(name: bytes) -> bytes:
    return _OCTAL.sub(lambda match: bytes((int(match[1], 8) & 0xFF,)), name)
