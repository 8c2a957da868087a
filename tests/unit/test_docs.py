"""The documents keep up with the code."""

from __future__ import annotations

import inspect
import re
import tomllib
from pathlib import Path

import pytest

from schedhook import hookspecs
from schedhook.config import Config, load_config
from schedhook.model import Reason
from schedhook.selection import WHY_KEPT

PROJECT = Path(__file__).parents[2]
HOOKS = [name for name in vars(hookspecs) if name.startswith("schedhook_")]


@pytest.mark.parametrize("name", HOOKS)
def test_every_hook_is_documented_with_its_arguments(name: str) -> None:
    reference = (PROJECT / "docs/hooks.md").read_text()
    arguments = ", ".join(inspect.signature(getattr(hookspecs, name)).parameters)
    assert re.search(rf"^### `{name}\({arguments}\)", reference, re.MULTILINE), name


def test_no_hook_is_documented_that_does_not_exist() -> None:
    reference = (PROJECT / "docs/hooks.md").read_text()
    assert set(re.findall(r"^### `(\w+)", reference, re.MULTILINE)) == set(HOOKS)


@pytest.mark.parametrize("name", HOOKS)
def test_every_hook_has_a_test(name: str) -> None:
    tests = [path for path in (PROJECT / "tests").rglob("*.py") if path != Path(__file__)]
    assert any(name in path.read_text() for path in tests), name


def rows(page: str, heading: str) -> set[str]:
    """What the first column of the first table below a heading of a page names."""
    text = (PROJECT / "docs" / page).read_text()
    table = text.partition(f"\n## {heading}")[2].partition("\n|---")[2].partition("\n\n")[0]
    return set(re.findall(r"^\| `([\w-]+)` \|", table, re.MULTILINE))


def test_every_reason_is_explained_and_no_other() -> None:
    assert rows("reasons.md", "Left") == {reason.value for reason in Reason}
    assert rows("reasons.md", "Kept") == set(WHY_KEPT)


def test_the_documented_configuration_is_the_default(tmp_path: Path) -> None:
    guide = (PROJECT / "docs/operating.md").read_text()
    text = "\n".join(re.findall(r"```toml\n(.*?)```", guide, re.DOTALL))
    file = tmp_path / "config.toml"
    file.write_text(text)
    loaded = load_config(file)
    for section in tomllib.loads(text):
        assert getattr(loaded, section) == getattr(Config(), section), section


def test_links_lead_somewhere() -> None:
    for page in (PROJECT / "README.md", *(PROJECT / "docs").glob("*.md")):
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
