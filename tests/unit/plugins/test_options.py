"""A misspelt [plugins.options.NAME] is an error."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from schedhook.plugins.loading import load_plugins
from schedhook.plugins.manager import Plugins
from schedhook.plugins.registry import DISABLE_VARIABLE
from schedhook.values.config import parse_config
from schedhook.values.errors import ConfigError
from tests.unit.pluginkit import Install, logged

FILE = Path("/etc/schedhook/config.toml")
PLUGIN = """
from schedhook import StrategyPlugin, hookimpl

@hookimpl
def schedhook_strategies():
    return [StrategyPlugin(name="busy-first", summary="busy pages first", move=print)]
"""


@pytest.fixture
def acme(install: Install, tmp_path: Path) -> Path:
    """Install the plug-in `acme` of the package `acme-numa`; return its module."""
    install("acme_plugin", name="acme", package="acme-numa", source=PLUGIN)
    return tmp_path / "acme_plugin.py"


def load(text: str, environ: dict[str, str] | None = None) -> Plugins:
    """Load the installed plug-ins with this configuration."""
    return load_plugins(parse_config(text, FILE), environ=environ or {})


def warnings(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """Return the logged lines about options."""
    return [line for line in logged(capsys) if line["event"] == "options not used"]


def test_a_misspelt_name_is_an_error_that_names_file_key_and_what_exists() -> None:
    with pytest.raises(ConfigError) as caught:
        load("[plugins.options.cpusett]\nallow_blocking = true\n")
    message = str(caught.value)
    assert message.startswith(f"{FILE}: plugins.options.cpusett: ")
    assert "did you mean cpuset?" in message
    assert "move-pages" in message
    assert "\n" not in message


def test_options_of_a_strategy_that_ships_are_accepted(capsys: pytest.CaptureFixture[str]) -> None:
    load("[plugins.options.cpuset]\nallow_blocking = true\n")
    assert not warnings(capsys)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("move-pages", "move-pages has no such option; it has none"),
        ("relative", "relative has no such option; it has none"),
        ("native", "native has no such option; it has none"),
        ("slurm", "slurm has no such option; it has none"),
        ("cpuset", "cpuset has no such option; its options are allow_blocking"),
    ],
)
def test_an_option_that_nothing_reads_is_an_error(name: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(f"[plugins.options.{name}]\nspeed = 7\n")
    assert str(caught.value) == f"{FILE}: plugins.options.{name}.speed: {says}"
    load(f"[plugins.options.{name}]\n")


@pytest.mark.parametrize("name", ["acme", "acme-numa", "busy-first"])
def test_options_of_an_installed_plug_in_are_accepted(acme: Path, name: str) -> None:
    assert acme.exists()
    load(f"[plugins.options.{name}]\ncolour = 1\n")


def test_a_misspelt_name_of_an_installed_plug_in_is_an_error(acme: Path) -> None:
    assert acme.exists()
    with pytest.raises(ConfigError, match=r"did you mean busy-first\? there are: acme, acme-numa,"):
        load("[plugins.options.busy-fist]\ncolour = 1\n")


@pytest.mark.parametrize("name", ["acme", "acme-numa"])
@pytest.mark.parametrize(
    ("section", "environ"),
    [
        ('[plugins]\ndisabled = ["acme"]\n', {}),
        ("[plugins]\nthird_party = false\n", {}),
        ("", {DISABLE_VARIABLE: "acme-numa"}),
        ("", {DISABLE_VARIABLE: "all"}),
    ],
)
def test_options_of_a_disabled_plug_in_are_accepted(
    acme: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    section: str,
    environ: dict[str, str],
) -> None:
    assert acme.exists()
    load(f"{section}[plugins.options.{name}]\ncolour = 1\n", environ=environ)
    assert not warnings(capsys)
    assert "acme_plugin" not in sys.modules


def test_a_name_that_a_disabled_plug_in_may_provide_is_logged(
    acme: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert acme.exists()
    load('[plugins]\ndisabled = ["acme"]\n[plugins.options.busy-first]\ncolour = 1\n')
    (line,) = warnings(capsys)
    assert line["key"] == f"{FILE}: plugins.options.busy-first"
    assert line["not_loaded"] == "acme (acme-numa 1.5)"


def test_a_broken_plug_in_makes_no_error_of_its_options(
    acme: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    acme.write_text("raise OSError('no such device')\n")
    load("[plugins.options.acme]\nx = 1\n[plugins.options.busy-first]\nx = 1\n")
    assert len(warnings(capsys)) == 1


def test_without_plug_ins_of_other_packages_a_misspelt_name_is_an_error() -> None:
    with pytest.raises(ConfigError, match="no plug-in has or provides this name"):
        load("[plugins]\nthird_party = false\n[plugins.options.busy-first]\ncolour = 1\n")
