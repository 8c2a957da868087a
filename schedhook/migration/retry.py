"""Which failures may pass, and how long to wait for that."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from dataclasses import dataclass

_TRANSIENT = frozenset({errno.EBUSY, errno.EAGAIN, errno.EFAULT})


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often and how long pages are tried again. Times in seconds."""

    attempts: int = 5
    """All in all, the first one included."""
    first_wait: float = 0.05
    longest_wait: float = 2.0
    give_up: float = 30.0
    """No further attempt begins after this time."""


def is_transient(number: int, *, has_room: bool) -> bool:
    """Whether a page that failed with errno `number` may move a moment later.

    EBUSY: in use just now, or pinned for ever, which nobody can tell; hence the bound on attempts.
    EFAULT: unmapped when its turn came, and mapped and touched anew since; of a kind that cannot
    move if it stays so.
    ENOMEM: only while the destination has room (`has_room`), since then memory was short for a
    moment or in one place.
    """
    return number in _TRANSIENT or (number == errno.ENOMEM and has_room)


def retry(policy: RetryPolicy, attempt: Callable[[], bool]) -> None:
    """Call `attempt` again while it returns True (something may still pass) and the policy lasts.

    For use after a first attempt, which counts as one. Waits grow exponentially, with jitter, so
    that several hosts or processes do not try in step.
    """
    if policy.attempts < 2:
        return
    from tenacity import (  # heavy, and needed only where pages have failed
        Retrying,
        retry_if_result,
        stop_after_attempt,
        stop_after_delay,
        wait_exponential,
        wait_random,
    )

    time.sleep(policy.first_wait)
    Retrying(
        retry=retry_if_result(bool),
        stop=stop_after_attempt(policy.attempts - 1) | stop_after_delay(policy.give_up),
        wait=wait_exponential(multiplier=2 * policy.first_wait, max=policy.longest_wait)
        + wait_random(0, policy.first_wait),
        retry_error_callback=lambda _: None,
    )(attempt)
