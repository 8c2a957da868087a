"""Lines of /proc/PID/numa_maps.

The format is that of show_numa_map() in the kernel's fs/proc/task_mmu.c and mpol_to_str() in
mm/mempolicy.c; numa(7) documents most of it.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from schedhook.host._short_texts import keep_results
from schedhook.host.page_sizes import BASE_PAGE

_OCTAL = re.compile(rb"\\([0-7]{3})")
_OTHER_FIELDS = frozenset(
    (b"heap", b"stack", b"dirty", b"mapped", b"swapcache", b"active", b"writeback")
)
_MOST_TEXTS = 1024
_LONGEST_TEXT = 512


@dataclass(slots=True)
class NumaLine:
    """What numa_maps shows of a mapping, besides its address."""

    policy: str = "default"
    name: bytes = b""
    is_huge: bool = False
    anon: int = 0
    """Pages that are the process's own copies."""
    most_mappers: int = 1
    page_size: int = BASE_PAGE
    pages: dict[int, int] = field(default_factory=dict)
    """Pages per node."""
    size: int = 0
    """Resident bytes."""


def parse_numa_maps(data: bytes, resident_only: bool) -> Iterator[tuple[int, NumaLine]]:
    """Yield address and line of each mapping.

    `resident_only` leaves out those of mappings without pages in memory and without a policy.
    """
    for text in io.BytesIO(data):
        # Blanks in file names are escaped, so " N" can only begin a count of pages.
        if resident_only and b" N" not in text and b" default" in text:
            continue
        address, _, shown = text.partition(b" ")
        try:
            yield int(address, 16), parse_line(shown)
        except ValueError:  # a truncated line
            continue


@keep_results(_MOST_TEXTS, _LONGEST_TEXT)  # the lines of a job's processes are alike
def parse_line(text: bytes) -> NumaLine:
    """Parse what follows the address. Raise ValueError if the line is truncated."""
    words = text.rstrip(b"\n").split(b" ")
    line = NumaLine()
    policy = words[:1]
    in_policy = True
    for word in words[1:]:
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
    line.size = sum(line.pages.values()) * line.page_size
    return line


def policy_text(line: bytes) -> str:
    """Return the policy of one line of the file."""
    return parse_line(line.partition(b" ")[2]).policy


def _unescape(name: bytes) -> bytes:
    return _OCTAL.sub(lambda match: bytes((int(match[1], 8) & 0xFF,)), name)
