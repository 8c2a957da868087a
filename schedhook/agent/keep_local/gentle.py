"""How keep_local moves memory: gently, and no faster than configured."""

from __future__ import annotations

from dataclasses import replace

from schedhook.agent.keeper.keeper import Rules
from schedhook.roles.request import Request


def gently(request: Request, rules: Rules) -> Request:
    """Return the request as keep_local asks for it."""
    return replace(request, gentle=True, bandwidth_mb_s=rules.rate / 1e6)
