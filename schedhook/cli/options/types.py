"""Types of option values: each converts a word of the command line, or fails with one line."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from schedhook.host.users import user_number

if TYPE_CHECKING:
    ParamType = click.ParamType[Any]
else:  # click 8.1 to 8.3 have no such generic class
    ParamType = click.ParamType

_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)(s|min|m|h)?")
_UNITS = {"s": 1, "m": 60, "min": 60, "h": 3600}
_MOST_SECONDS = 3600


class NameType(ParamType):
    """A name that is looked up later, since a plug-in may provide it."""

    name = "name"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not str(value).strip():
            self.fail("it is empty", param, ctx)
        return str(value)


class WholeType(click.IntRange):
    """A whole number within bounds."""

    name = "whole number"


class NumberType(click.FloatRange):
    """A finite number within bounds."""

    name = "number"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number", param, ctx)
        return number


class DurationType(ParamType):
    """Seconds, such as 30s or 2m, or a number of seconds, up to an hour."""

    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        found = _DURATION.fullmatch(str(value))
        seconds = float(found[1]) * _UNITS[found[2] or "s"] if found else 0.0
        if not 0 < seconds <= _MOST_SECONDS:
            self.fail(
                f"{value!r} is no duration up to an hour; write it like 30s or 2m", param, ctx
            )
        return seconds


class UserType(ParamType):
    """A user's name or number, as the number."""

    name = "user"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        found = user_number(str(value))
        if found is None:
            self.fail(f"{value!r} is no user of this host", param, ctx)
        return found


class PathType(click.Path):
    """A path that is not empty: the empty path would mean the current directory."""

    def __init__(self, *, exists: bool = False, files: bool = True, directories: bool = True):
        super().__init__(path_type=Path, exists=exists, file_okay=files, dir_okay=directories)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not str(value):
            self.fail("it is empty", param, ctx)
        return super().convert(value, param, ctx)


NAME = NameType()
FILE = PathType(directories=False)
