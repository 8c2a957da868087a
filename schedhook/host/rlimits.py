"""The caller's own resource limits, getrlimit(2)."""

from __future__ import annotations

import resource


def raise_file_limit() -> bool:
    """Raise the soft limit on open files to the hard limit; return whether that changed it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == hard:
        return False
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):
        return False
    return True


def is_near_file_limit(descriptor: int, spare: int) -> bool:
    """Return whether fewer than `spare` files can be opened after `descriptor`, the newest one."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft != resource.RLIM_INFINITY and descriptor + spare >= soft
