"""The plug-in hooks and the examples in their docstrings."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

import schedhook
from schedhook.plugins.findings import Severity, note, ok
from schedhook.values.model import NodeMap
from tests.unit.pluginkit import (
    ARGUMENTS,
    HOOKS,
    a_map,
    given,
    module,
)


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_is_documented(hook: str) -> None:
    assert inspect.getdoc(HOOKS[hook])


REGISTERING = [hook for hook in HOOKS if hook not in (*ARGUMENTS, "schedhook_doctor")]


@pytest.mark.parametrize("hook", REGISTERING)
def test_the_example_of_a_registration_hook_works(hook: str) -> None:
    text = inspect.getdoc(HOOKS[hook]) or ""
    example = text.partition("\n\n")[2]
    assert f"def {hook}():" in example
    names: dict[str, object] = {name: getattr(schedhook, name) for name in schedhook.__all__}
    names |= dict.fromkeys(["FluxScheduler", "RemoteBackend", "busy_first"], a_map)
    names["NodeMap"] = NodeMap
    exec(compile(example, hook, "exec"), names)
    plugins = given(module("example", **{hook: names[hook]}))
    assert plugins.problems == ()
    wanted = re.findall(r'name="([a-z-]+)"', example)
    listed = [each.name for each in plugins.listing() if each.source.package == "given"]
    assert listed == wanted


def test_the_example_of_the_answering_hook_works(tmp_path: Path) -> None:
    hook = "schedhook_doctor"
    example = (inspect.getdoc(HOOKS[hook]) or "").partition("\n\n")[2]
    names: dict[str, object] = {"hookimpl": schedhook.hookimpl, "ok": ok, "note": note}
    exec(compile(example, hook, "exec"), names)
    answers = given(module("example", **{hook: names[hook]})).ask(hook, root=tmp_path)
    (answer,) = [each for source, each in answers if source.package == "given"]
    assert [each.level for each in answer] == [Severity.NOTE]
