"""The host's users."""

from __future__ import annotations

import pwd

_MOST_DIGITS = 10


def user_name(uid: int | None) -> str:
    """Return the user's name, the number if it has none here, nothing if it is unknown."""
    if uid is None:
        return ""
    try:
        return pwd.getpwuid(uid).pw_name
    except (KeyError, OverflowError):
        return str(uid)


def user_number(text: str) -> int | None:
    """Return the number of the user with this name or number, None if there is no such name."""
    try:
        return pwd.getpwnam(text).pw_uid
    except (KeyError, ValueError):
        return (
            int(text) if text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS else None
        )
