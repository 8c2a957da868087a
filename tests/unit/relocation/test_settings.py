"""Choices of the request override the configuration, one by one."""

from __future__ import annotations

from typing import Any

import pytest

from schedhook.plugins.loading import load_plugins
from schedhook.relocation.settings import Settings, resolve_settings
from schedhook.roles.backend import Limits
from schedhook.roles.request import Request
from schedhook.values.config import Config, PluginsSection, RelocationSection
from schedhook.values.errors import PluginError
from schedhook.values.model import MemoryKind, Policies, Shared


def resolve(section: dict[str, Any] | None = None, **request: Any) -> Settings:
    config = Config(
        relocation=RelocationSection(**(section or {})),
        plugins=PluginsSection(third_party=False, options={"cpuset": {"allow_blocking": True}}),
    )
    return resolve_settings(Request(**request), config, load_plugins(config, environ={}))


@pytest.mark.parametrize(
    ("section", "request_", "name", "expected"),
    [
        ({"backend": "simulated"}, {}, "backend", "simulated"),
        ({"backend": "simulated"}, {"backend": "native"}, "backend", "native"),
        ({"mapper": "nearest"}, {}, "mapper", "nearest"),
        ({"mapper": "nearest"}, {"mapper": "relative"}, "mapper", "relative"),
        ({"kinds": ("anon",)}, {}, "kinds", {MemoryKind.ANON}),
        ({}, {"kinds": frozenset({MemoryKind.HUGE})}, "kinds", {MemoryKind.HUGE}),
        ({"shared": Shared.ALL}, {}, "shared", Shared.ALL),
        ({"shared": Shared.ALL}, {"shared": Shared.NONE}, "shared", Shared.NONE),
        ({"reserve_mb": 3}, {}, "reserve", 3 << 20),
        ({"reserve_mb": 3}, {"reserve": 0}, "reserve", 0),
        ({"bandwidth_mb_s": 5.0}, {}, "bandwidth", 5e6),
        ({"bandwidth_mb_s": 5.0}, {"bandwidth_mb_s": 0.0}, "bandwidth", 0),
        ({"threads": 3}, {}, "threads", 3),
        ({"threads": 3}, {"threads": 2}, "threads", 2),
        ({"freeze": True}, {}, "freeze", True),
        ({"freeze": True}, {"freeze": False}, "freeze", False),
        ({}, {}, "policies", Policies.LEAVE),
        ({"policies": Policies.REBIND}, {}, "policies", Policies.REBIND),
        ({"policies": Policies.REBIND}, {"policies": Policies.LEAVE}, "policies", Policies.LEAVE),
    ],
)
def test_the_request_overrides_the_configuration(
    section: dict[str, Any], request_: dict[str, Any], name: str, expected: object
) -> None:
    assert getattr(resolve(section, **request_), name) == expected


@pytest.mark.parametrize(
    ("section", "request_", "threads", "call_seconds"),
    [
        ({}, {}, 0, 0.0),
        ({}, {"gentle": True}, 1, 0.02),
        ({"gentle": True}, {}, 1, 0.02),
        ({"gentle": True}, {"gentle": False}, 0, 0.0),
        ({"call_ms": 5.0}, {"gentle": True, "threads": 4}, 4, 0.005),
    ],
)
def test_gentle_means_one_thread_and_short_calls(
    section: dict[str, Any], request_: dict[str, Any], threads: int, call_seconds: float
) -> None:
    settings = resolve(section, **request_)
    assert settings.threads == threads
    assert settings.limits == Limits(
        batch_bytes=RelocationSection().batch_kb << 10, call_seconds=call_seconds
    )


def test_a_strategy_gets_its_own_options() -> None:
    assert resolve(strategy="cpuset").plugin_options == {"allow_blocking": True}
    assert resolve(strategy="move-pages").plugin_options == {}


def test_an_unknown_strategy_is_an_error() -> None:
    with pytest.raises(PluginError, match="telepathy"):
        resolve(strategy="telepathy")
