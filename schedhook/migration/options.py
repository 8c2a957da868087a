"""How a move is carried out: threads, rates and retries."""

from __future__ import annotations

from dataclasses import dataclass, field

from schedhook.migration.retry import RetryPolicy
from schedhook.roles.backend import Limits
from schedhook.values.sets import CpuSet


@dataclass(frozen=True, slots=True, kw_only=True)
class MoveOptions:
    """How pages are moved."""

    threads: int = 1
    cpus: CpuSet = field(default_factory=CpuSet)
    """Processors that the threads are bound to; empty: those of the caller."""
    bandwidth: float = 0.0
    """Bytes per second; 0: no limit."""
    limits: Limits = field(default_factory=Limits)
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    reserve: int = 0
    """Bytes that must stay free on each destination."""
    sweep_leftovers: bool = True
    """Whether pages that a whole-process call left behind are moved page by page."""

    @property
    def is_throttled(self) -> bool:
        """Whether a limit applies that one whole-process call could exceed."""
        return bool(self.bandwidth or self.limits.call_seconds)
