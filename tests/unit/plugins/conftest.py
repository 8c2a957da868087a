"""Fixtures: installed plug-ins, and the log as JSON."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

import pytest

from schedhook.values import log
from tests.unit.pluginkit import (
    BAD,
    Install,
)


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Return a function that installs a module as a plug-in, with package metadata."""
    monkeypatch.syspath_prepend(BAD)
    monkeypatch.syspath_prepend(tmp_path)

    def write(module: str, *, name: str = "", package: str = "", source: str = "") -> None:
        name, package = name or module.replace("_", "-"), package or module.replace("_", "-")
        if source:
            (tmp_path / f"{module}.py").write_text(textwrap.dedent(source))
        directory = tmp_path / f"{package.replace('-', '_')}-1.5.dist-info"
        directory.mkdir(exist_ok=True)
        (directory / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.5\n"
        )
        with (directory / "entry_points.txt").open("a") as points:
            points.write(f"[schedhook]\n{name} = {module}\n")
        # An earlier test may have imported another file under this name.
        monkeypatch.delitem(sys.modules, module, raising=False)

    return write


@pytest.fixture(autouse=True)
def _json_log() -> None:
    log.configure("json", "info")
