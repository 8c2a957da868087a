"""Which failures are worth a retry, and how long to wait before it."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from dataclasses import dataclass

_TRANSIENT = frozenset({errno.EBUSY, errno.EAGAIN, errno.EFAULT})


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often and for how long failed pages are retried. Times in seconds."""

    attempts: int = 5
    """In total, the first one included."""
    first_wait: float = 0.05
    longest_wait: float = 2.0
    give_up: float = 30.0
    """No attempt begins later than this."""


def is_transient(number: int, *, has_room: bool) -> bool:
    """Return whether a page that failed with errno `number` may move a moment later.

    EBUSY, EAGAIN: in use at the moment, or pinned for good; the kernel does not say which, hence
    the limit on attempts.
    EFAULT: unmapped when tried and possibly remapped since; if it persists, the page cannot be
    migrated.
    ENOMEM: only if the destination has room (`has_room`), since memory was then short for a
    moment or in one zone only.
    ENOENT (hidden) may pass with the process's next access, but only the caller knows whether there
    is a better way than to wait for it.
    """
    return number in _TRANSIENT or (number == errno.ENOMEM and has_room)


def retry(policy: RetryPolicy, attempt: Callable[[], bool]) -> None:
    """Call `attempt` again while it returns True (a failure may still pass) and the policy allows.

    The caller has made the first attempt, which counts. Waits grow exponentially, with jitter, so
    that several hosts or processes do not retry in step.
    """
    if policy.attempts < 2:
        return
    from tenacity import (  # heavy, and needed only if pages have failed
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
