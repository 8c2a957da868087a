"""The fixtures for authors of plug-ins: always available, and costing nothing if unused."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import schedhook
from schedhook.host.topology import read_topology
from schedhook.testing import SimulatedArea, SimulatedBackend, pytest_plugin
from schedhook.values.model import Outcome, Report

PROJECT = Path(__file__).parents[3]


def test_the_host_has_four_nodes(schedhook_host: Path) -> None:
    assert str(read_topology(schedhook_host).memory_nodes) == "0-3"


def test_a_relocation_moves_memory(
    schedhook_backend: SimulatedBackend, schedhook_relocate: Callable[..., Report]
) -> None:
    schedhook_backend.add_process(100, areas=[SimulatedArea(start=0x10000, nodes=[0] * 5)])
    report = schedhook_relocate(node_map="0:3")
    assert (report.outcome, report.bytes_moved) == (Outcome.COMPLETE, 5 * 4096)


def test_a_plug_in_that_cannot_be_used_fails_the_test(
    schedhook_relocate: Callable[..., Report],
) -> None:
    with pytest.raises(AssertionError, match="has no plug-in hooks"):
        schedhook_relocate(object(), pids=())


def test_a_test_without_the_fixtures_loads_nothing_of_schedhook(tmp_path: Path) -> None:
    (tmp_path / "test_other.py").write_text(
        "import sys\n\n\n"
        "def test_nothing_is_loaded():\n"
        "    names = sorted(name for name in sys.modules if name.startswith('schedhook'))\n"
        "    plugin = ['schedhook', 'schedhook.testing', 'schedhook.testing.pytest_plugin']\n"
        "    assert names == plugin\n"
        "    assert not {'structlog', 'tenacity', 'rich'} & set(sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-m", "pytest", "-p", "no:cacheprovider", "-q", str(tmp_path)],
        check=False, capture_output=True, text=True, cwd=tmp_path, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


def test_only_the_test_kit_imports_pytest() -> None:
    package = Path(schedhook.__file__).parent
    for path in package.rglob("*.py"):
        if "testing" in path.relative_to(package).parts:
            continue
        for statement in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(statement, ast.Import):
                names = [each.name for each in statement.names]
            elif isinstance(statement, ast.ImportFrom):
                names = [statement.module or ""]
            for name in names:
                assert name.partition(".")[0] != "pytest", path
                assert not name.startswith("schedhook.testing"), path


def test_every_fixture_is_documented() -> None:
    text = (PROJECT / "docs/how-to/plugins.md").read_text()
    fixtures = [name for name in vars(pytest_plugin) if name.startswith("schedhook_")]
    assert len(fixtures) == 3
    for name in fixtures:
        assert f"- `{name}`" in text, name
