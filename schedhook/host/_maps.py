"""Lines of /proc/PID/maps, proc_pid_maps(5)."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from schedhook.host._short_texts import keep_results

_BEYOND = 1 << 64
"""An address above all mappings."""
_MOST_TEXTS = 4096
_LONGEST_TEXT = 512
_KERNELS = (b"[vdso]", b"[vvar", b"[uprobes")
"""How names of mappings of the kernel's own pages begin: the vDSO, its data, what uprobes run. Also
in _joined.c."""


@dataclass(slots=True)
class MapsLine:
    """A mapping as maps shows it."""

    start: int
    end: int
    is_shared: bool
    offset: int
    device: str
    inode: int
    name: bytes

    @property
    def has_file(self) -> bool:
        """Whether a file, or a shared memory object, backs it."""
        # Not the inode: a System V segment's is its id, and the first id is 0.
        return self.device != "0:0"

    @property
    def is_kernels(self) -> bool:
        """Whether its pages are the kernel's own: the process only sees them, and none can move."""
        return self.name.startswith(_KERNELS)

    @classmethod
    def parse(cls, start: int, rest: bytes) -> MapsLine:
        """Parse a line from behind the first dash. Raise ValueError or IndexError."""
        end, _, rest = rest.partition(b" ")
        return cls.behind(start, int(end, 16), rest)

    @classmethod
    def behind(cls, start: int, end: int, rest: bytes) -> MapsLine:
        """Parse a line from behind the addresses. Raise ValueError or IndexError."""
        return cls(start, end, *_parse_rest(rest))


@keep_results(_MOST_TEXTS, _LONGEST_TEXT)  # a job's processes map the same files
def _parse_rest(rest: bytes) -> tuple[bool, int, str, int, bytes]:
    """Return whether a line behind the addresses is shared, its offset, device, inode and name."""
    words = rest.split(None, 4)
    major, _, minor = words[2].partition(b":")
    return (
        words[0][3:4] == b"s",
        int(words[1], 16),
        f"{int(major, 16)}:{int(minor, 16)}",
        int(words[3]),
        words[4].rstrip(b"\n").replace(b"\\012", b"\n") if len(words) > 4 else b"",
    )


def parse_maps(data: bytes) -> Iterator[MapsLine]:
    """Yield all mappings of the file; truncated lines are left out."""
    return _parse_all(io.BytesIO(data))


def parse_shared(data: bytes) -> Iterator[MapsLine]:
    """Yield the mappings of the file that were made with MAP_SHARED."""
    return (mapping for mapping in _parse_all(_lines_with(b"s ", data)) if mapping.is_shared)


def _parse_all(lines: Iterable[bytes]) -> Iterator[MapsLine]:
    for line in lines:
        start, _, rest = line.partition(b"-")
        try:
            yield MapsLine.parse(int(start, 16), rest)
        except (ValueError, IndexError):
            continue


def _lines_with(text: bytes, data: bytes) -> Iterator[bytes]:
    end = 0
    while (at := data.find(text, end)) >= 0:
        end = data.find(b"\n", at)
        end = len(data) if end < 0 else end
        yield data[data.rfind(b"\n", 0, at) + 1 : end]


class Maps:
    """The file /proc/PID/maps, read on from line to line: ask for ascending addresses.

    A program can have a hundred thousand mappings, so a line is parsed when it is asked for.
    """

    def __init__(self, data: bytes) -> None:
        self._lines = io.BytesIO(data)
        self._start = self._end = 0
        self._rest = b""

    def seek(self, offset: int) -> None:
        """Go on at a line that begins at this byte of the file."""
        self._lines.seek(offset)
        self._start = self._end = 0

    def find(self, start: int, size: int, bound: int | None) -> MapsLine | None:
        """Return the mapping that an area with `size` resident bytes from `start` on has become.

        It can be a part of a larger mapping, or several mappings joined; it ends at `bound` at the
        latest. None if nothing of the process is mapped there any more.
        """
        while self._end <= start and self._advance():
            pass
        mapping = self._current() if self._start <= start < self._end else None
        if mapping is None or mapping.is_kernels:
            return None
        if mapping.start < start:  # it was merged across that address
            if mapping.has_file:
                mapping.offset += start - mapping.start
            mapping.start = start
        while size > mapping.end - start:  # it was split: join the parts
            if bound is not None and mapping.end >= bound:
                break
            if not self._advance() or self._start != mapping.end:
                break
            mapping.end = self._end
        if bound is not None:
            mapping.end = min(mapping.end, bound)
        return mapping

    def _advance(self) -> bool:
        """Go on to the next line that has addresses. Return False at the end of the file."""
        for line in self._lines:
            addresses, _, rest = line.partition(b" ")
            start, _, end = addresses.partition(b"-")
            try:
                self._start, self._end, self._rest = int(start, 16), int(end, 16), rest
            except ValueError:
                continue
            if self._start < self._end <= _BEYOND:
                return True
        self._start = self._end = _BEYOND
        return False

    def _current(self) -> MapsLine | None:
        """Return the line that was reached; None if it is truncated."""
        try:
            return MapsLine.behind(self._start, self._end, self._rest)
        except (ValueError, IndexError):
            return None
