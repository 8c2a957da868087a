"""Sizes and rates as option values: a number in the option's own unit, or one with a unit."""

from __future__ import annotations

import re
from typing import Any

import click

from schedhook.cli.options.types import NumberType, ParamType
from schedhook.values.sizes import MIB

_MB = 1_000_000
_WITH_UNIT = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([kKmMgGtT])(iB|B)?")
_MOST = 1 << 50
"""Bytes; no host has or needs more."""


class RateType(NumberType):
    """Megabytes per second, such as `500`, `500MB/s`, `1.5G` or `800MiB`.

    K, M, G and T are powers of 1000, as in MB/s; KiB and so on are powers of 1024.
    """

    name = "rate"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        size = _read(str(value).removesuffix("/s"), letter=1000)
        if size is None and not _is_number(value):
            self.fail(f"{value!r} is no rate; write it like 500, 500MB/s or 1.5GB/s", param, ctx)
        return super().convert(value if size is None else size / _MB, param, ctx)


class SizeType(ParamType):
    """Bytes, from a number of MiB or a size with a unit: `512`, `2G`, `1.5GiB` or `500MB`.

    K, M, G and T alone are powers of 1024, as Slurm has them; KB and so on are powers of 1000.
    """

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        size = _read(str(value), letter=1024)
        if size is None:
            if not _is_number(value) or not float(value) >= 0:
                self.fail(f"{value!r} is no size; write it like 512 (MiB), 512M or 2G", param, ctx)
            size = float(value) * MIB
        if size > _MOST:
            self.fail(f"{str(value)[:40]} is more than {_MOST // MIB} MiB", param, ctx)
        return int(size)


def _read(text: str, letter: int) -> float | None:
    """Return the bytes that a number with a unit means; None if it is no such number.

    `letter` is the base of a unit that is one letter: 1000 or 1024.
    """
    matched = _WITH_UNIT.fullmatch(text)
    if matched is None:
        return None
    base = {"iB": 1024, "B": 1000}.get(matched[3], letter)
    return float(matched[1]) * float(base ** ("KMGT".index(matched[2].upper()) + 1))


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True
