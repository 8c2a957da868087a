"""The host's users."""

from __future__ import annotations

import pwd


def user_name(uid: int | None) -> str:
    """Return the user's name, the number if it has none here, nothing if it is unknown."""
    if uid is None:
        return ""
    try:
        return pwd.getpwuid(uid).pw_name
    except (KeyError, OverflowError):
        return str(uid)
