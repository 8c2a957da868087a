"""The caller's own resource limits, getrlimit(2)."""

from __future__ import annotations

import resource


def raise_file_limit() -> bool:
    """Allow this process as many open files as it may allow itself; False where it has them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == hard:
        return False
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):
        return False
    return True


def is_near_file_limit(descriptor: int, spare: int) -> bool:
    """Whether, `descriptor` being the newest, fewer than `spare` further files may be opened."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft != resource.RLIM_INFINITY and descriptor + spare >= soft
