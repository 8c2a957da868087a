"""Running relocations for commands."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from schedhook.cli import running
from schedhook.plugins.manager import Plugins
from schedhook.roles.request import Request
from schedhook.values.config import Config
from schedhook.values.model import NodeMap, Outcome, Report


@pytest.mark.parametrize("dry_run", [False, True])
@pytest.mark.parametrize("outcome", [Outcome.COMPLETE, Outcome.REFUSED, Outcome.NOTHING_TO_DO])
def test_what_is_recorded(monkeypatch: pytest.MonkeyPatch, outcome: Outcome, dry_run: bool) -> None:
    """A plan that is refused is no relocation."""
    made = Report(outcome=outcome, strategy="s", backend="b", node_map=NodeMap(pairs={}))
    recorded: list[Report] = []
    monkeypatch.setattr(running, "relocate", lambda *_, **__: made)
    monkeypatch.setattr(running, "record", lambda report, _: recorded.append(report))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    request = Request(pids=(1,), dry_run=dry_run)
    running.carry_out(request, Config(), Plugins(), Path("/"), as_json=True)
    assert bool(recorded) == (outcome is not Outcome.NOTHING_TO_DO and not dry_run)
