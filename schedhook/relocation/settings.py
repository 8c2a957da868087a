"""The settings of one relocation: each choice of the request or the configuration, made once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from schedhook.migration.retry import RetryPolicy
from schedhook.plugins.descriptors import StrategyPlugin
from schedhook.plugins.manager import Plugins
from schedhook.roles.backend import Limits
from schedhook.roles.request import Request
from schedhook.values.config import Config, RelocationSection
from schedhook.values.model import MemoryKind, Policies, Shared

_T = TypeVar("_T")
_GENTLE_CALL_MS = 20.0
"""Milliseconds that one call may take in a gentle relocation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What applies to one relocation: the request's value, else the configured one."""

    request: Request
    strategy: StrategyPlugin
    plugin_options: Mapping[str, Any]
    """[plugins.options.NAME] of the strategy."""
    backend: str
    mapper: str
    kinds: frozenset[MemoryKind]
    shared: Shared
    reserve: int
    """Bytes that must stay free on each destination."""
    overcommit: bool
    """Memory that cgroups are entitled to and do not use counts as room."""
    threads: int
    """0: choose by the destinations' processors."""
    bandwidth: float
    """Bytes per second; 0: no limit."""
    limits: Limits
    retry: RetryPolicy
    freeze: bool
    policies: Policies


def resolve_settings(request: Request, config: Config, plugins: Plugins) -> Settings:
    """Return the settings. Raise PluginError if the strategy does not exist."""
    section = config.relocation
    strategy = plugins.strategy(request.strategy or section.strategy)
    gentle = _given(request.gentle, section.gentle)
    return Settings(
        request=request,
        strategy=strategy,
        plugin_options=config.plugins.options.get(strategy.name, {}),
        backend=request.backend or section.backend,
        mapper=request.mapper or section.mapper,
        kinds=request.kinds or frozenset(section.kinds),
        shared=request.shared or section.shared,
        reserve=_given(request.reserve, section.reserve_mb << 20),
        overcommit=section.overcommit,
        threads=request.threads or section.threads or int(gentle),
        bandwidth=_given(request.bandwidth_mb_s, section.bandwidth_mb_s) * 1e6,
        limits=_limits(section, gentle=gentle),
        retry=RetryPolicy(
            attempts=config.retry.attempts,
            first_wait=config.retry.first_wait_s,
            longest_wait=config.retry.longest_wait_s,
            give_up=config.retry.give_up_s,
        ),
        freeze=_given(request.freeze, section.freeze),
        policies=request.policies or section.policies,
    )


def _given(value: _T | None, configured: _T) -> _T:
    return configured if value is None else value


def _limits(section: RelocationSection, *, gentle: bool) -> Limits:
    call_ms = section.call_ms or (_GENTLE_CALL_MS if gentle else 0)
    return Limits(batch_bytes=section.batch_kb << 10, call_seconds=call_ms / 1e3)
