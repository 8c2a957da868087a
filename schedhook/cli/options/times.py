"""Times as option values."""

from __future__ import annotations

import re
import time
from datetime import datetime
from typing import Any

import click

from schedhook.cli.options.types import ParamType

_AGO = re.compile(r"([0-9]{1,9})([smhdw])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


class SinceType(ParamType):
    """A time, or how long ago, as seconds since the epoch."""

    name = "time"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        if isinstance(value, float):
            return value
        ago = _AGO.fullmatch(value)
        if ago:
            return time.time() - int(ago[1]) * _SECONDS[ago[2]]
        try:
            return datetime.fromisoformat(value).timestamp()
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is no time; write it like 90m, 2h, 3d or 2026-11-23", param, ctx)


SINCE = SinceType()
