"""Parse a hook's message; `schedhook.hook.delivery` describes the format."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass

from schedhook.hook import delivery
from schedhook.values.errors import UsageError

_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")
_OLDEST = 30 * 86400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A hook's message, whose meaning only the scheduler's adapter knows."""

    scheduler: str
    point: str
    environ: Mapping[str, str]
    data: bytes
    at: float
    """When the hook ran, in seconds after the epoch, by its own clock."""
    wait: bool


def parse_message(raw: bytes) -> Message:
    """Parse a message. Raise UsageError for one that `delivery.make_message` cannot have made."""
    if len(raw) > delivery.MOST_BYTES:
        raise UsageError(f"the message has more than {delivery.MOST_BYTES} bytes")
    parts = raw.split(b"\0", 6)
    if len(parts) < 7 or parts[0] != delivery.MAGIC or parts[1] not in (b"", b"wait"):
        raise UsageError("not a message of a schedhook hook")
    scheduler, point = (part.decode("ascii", "replace") for part in parts[3:5])
    if not (_WORD.fullmatch(scheduler) and _WORD.fullmatch(point)):
        raise UsageError("the message has no valid scheduler or point")
    try:
        at, count = float(parts[2]), int(parts[5])
    except ValueError:
        raise UsageError("the message's time or number of variables is not a number") from None
    if not 0 <= count <= len(parts[6]):
        raise UsageError(f"the message cannot have {count} variables")
    *variables, data = parts[6].split(b"\0", count) if count else [parts[6]]
    if len(variables) != count:
        raise UsageError("the message ends before its variables do")
    now = time.time()
    return Message(
        scheduler=scheduler,
        point=point,
        environ=dict(_variable(variable) for variable in variables),
        data=data,
        # A wrong clock must not put the event before the job's start, or after all other events.
        at=at if math.isfinite(at) and now - _OLDEST < at <= now else now,
        wait=bool(parts[1]),
    )


def _variable(raw: bytes) -> tuple[str, str]:
    name, _, value = raw.decode("utf-8", "surrogateescape").partition("=")
    return name, value
