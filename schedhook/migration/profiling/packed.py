"""Open a log that may be compressed, or refuse a file that is not the text of a log."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, BinaryIO, TypeVar, cast

from schedhook.values.errors import UsageError

_MOST_MEMORY = 256 << 20
"""Bytes. A file of xz says itself how much its reader needs, up to 4 GiB; `xz -9` takes 65 MiB."""
_CHUNK = 1 << 16
_NOT_TEXT = {
    rb"\x28\xb5\x2f\xfd": "it is compressed by zstd: unpack it by"
    " `zstd -dc FILE | schedhook profile - …`",
    rb"PERFILE2": "it is perf's recording: print it by"
    " `perf script -i FILE -F comm,pid,tid,cpu,time,event,addr`",
    rb"\xff\xfe.\0|\xfe\xff\0": "it is UTF-16: convert it by `iconv -f UTF-16 -t UTF-8 FILE`",
    rb"PK\x03\x04": "it is a zip archive: print the log in it by `unzip -p FILE`",
}
_T = TypeVar("_T")


@contextmanager
def opened(log: BinaryIO) -> Iterator[BinaryIO]:
    """Give the text of a log, unpacked if it is compressed (gzip, bzip2, xz).

    A byte-order mark is left out. Raise UsageError for what is no text, with what makes it one, and
    for a compressed log that is damaged.
    """
    packed = io.BufferedReader(cast("io.RawIOBase", _Unclosed(log)))
    unpack = _find(_PACKED, packed)
    try:
        text = io.BufferedReader(cast("io.RawIOBase", unpack(packed))) if unpack else packed
        if remedy := _find(_NOT_TEXT, text):
            raise UsageError(f"the log cannot be read: {remedy}")
        if text.peek().startswith(codecs.BOM_UTF8):
            text.read(len(codecs.BOM_UTF8))
        yield text
    except (EOFError, OSError, lzma.LZMAError, zlib.error) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise UsageError(f"the compressed log is damaged: {error}") from error


def _find(table: Mapping[bytes, _T], file: io.BufferedReader[Any]) -> _T | None:
    """Return the value of the pattern with which the file begins; None if there is none."""
    begin = file.peek()
    return next((found for magic, found in table.items() if re.match(magic, begin, re.S)), None)


class _Unclosed(io.RawIOBase):
    """Reads from a file, and leaves it open when it is closed itself."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        found = self._file.read(len(buffer)) or b""
        buffer[: len(found)] = found
        return len(found)


class _Xz(io.RawIOBase):
    """Unpacks the streams of a file of xz. Raise UsageError if one needs too much memory."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._stream = lzma.LZMADecompressor(lzma.FORMAT_XZ, _MOST_MEMORY)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        while (packed := self._next()) is not None:
            found = self._unpack(packed, len(buffer))
            if found:
                buffer[: len(found)] = found
                return len(found)
        return 0

    def _next(self) -> bytes | None:
        """Return what is to be unpacked next; None at the end of the file."""
        if not self._stream.eof:
            if not self._stream.needs_input:
                return b""
            if packed := self._file.read(_CHUNK):
                return packed
            raise EOFError("Compressed file ended before the end-of-stream marker was reached")
        rest = self._stream.unused_data.lstrip(b"\0")  # padding between streams
        while not rest:
            packed = self._file.read(_CHUNK)
            if not packed:
                return None
            rest = packed.lstrip(b"\0")
        self._stream = lzma.LZMADecompressor(lzma.FORMAT_XZ, _MOST_MEMORY)
        return rest

    def _unpack(self, packed: bytes, most: int) -> bytes:
        try:
            return self._stream.decompress(packed, most)
        except lzma.LZMAError as error:
            if "limit" not in str(error):
                raise
            raise UsageError(
                f"the compressed log needs more than {_MOST_MEMORY >> 20} MiB of memory: unpack it"
                " by `xz -dc FILE | schedhook profile - …`"
            ) from error


_PACKED: dict[bytes, Callable[[BinaryIO], object]] = {
    rb"\x1f\x8b": lambda file: gzip.GzipFile(fileobj=file),
    rb"BZh": bz2.BZ2File,
    rb"\xfd7zXZ\0": _Xz,
}
