"""Lines of /proc/PID/maps, proc_pid_maps(5)."""

from __future__ import annotations

import bisect
from collections.abc import Iterator
from dataclasses import dataclass


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

    @classmethod
    def parse(cls, start: int, rest: bytes) -> MapsLine:
        """Parse a line from behind the first dash. Raise ValueError or IndexError."""
        words = rest.split(None, 5)
        major, _, minor = words[3].partition(b":")
        return cls(
            start=start,
            end=int(words[0], 16),
            is_shared=words[1][3:4] == b"s",
            offset=int(words[2], 16),
            device=f"{int(major, 16)}:{int(minor, 16)}",
            inode=int(words[4]),
            name=words[5].replace(b"\\012", b"\n") if len(words) > 5 else b"",
        )


class Maps:
    """The file /proc/PID/maps. A line is parsed when it is asked for."""

    def __init__(self, data: bytes) -> None:
        # The keys stay text: converting a hundred thousand to numbers takes as long as all the
        # rest.
        self._rest: dict[bytes, bytes] = {}
        for text in data.split(b"\n"):
            start, dash, rest = text.partition(b"-")
            if dash:
                self._rest[start] = rest
        self._starts: list[int] | None = None

    def __iter__(self) -> Iterator[MapsLine]:
        return (each for key in self._rest if (each := self._parse(key)) is not None)

    def shared(self) -> Iterator[MapsLine]:
        """Yield the mappings that were made with MAP_SHARED."""
        for key, rest in self._rest.items():
            if rest.partition(b" ")[2][3:4] == b"s" and (line := self._parse(key)) is not None:
                yield line

    def find(self, start: int, size: int, bound: int | None) -> MapsLine | None:
        """Return the mapping that an area with `size` resident bytes from `start` on has become.

        It can be a part of a larger mapping, or several mappings joined; it ends at `bound` at the
        latest. None if nothing is mapped there any more.
        """
        mapping = self._at(start) or self._around(start)
        if mapping is None:
            return None
        while size > mapping.end - start:  # it was split: join the parts
            if bound is not None and mapping.end >= bound:
                break
            following = self._at(mapping.end)
            if following is None or following.end <= mapping.end:
                break
            mapping.end = following.end
        if bound is not None:
            mapping.end = min(mapping.end, bound)
        return mapping

    def _at(self, start: int) -> MapsLine | None:
        return self._parse(b"%08x" % start)

    def _around(self, start: int) -> MapsLine | None:
        """Return the part from `start` on of a mapping that was merged across that address."""
        if self._starts is None:
            self._starts = sorted(mapping.start for mapping in self)
        index = bisect.bisect_right(self._starts, start) - 1
        mapping = self._at(self._starts[index]) if index >= 0 else None
        if mapping is None or mapping.end <= start:
            return None
        if mapping.has_file:
            mapping.offset += start - mapping.start
        mapping.start = start
        return mapping

    def _parse(self, key: bytes) -> MapsLine | None:
        """Return the line that begins with `key`; None if there is none, or it is truncated."""
        rest = self._rest.get(key)
        if rest is None:
            return None
        try:
            return MapsLine.parse(int(key, 16), rest)
        except (ValueError, IndexError):
            return None
