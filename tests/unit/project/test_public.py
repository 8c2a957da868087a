"""What plug-ins may rely on is what docs/stability.md says."""

from __future__ import annotations

import inspect
import re
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

import schedhook
from schedhook import testing

STABILITY = Path(__file__).parents[3] / "docs/stability.md"


def public() -> dict[str, list[str]]:
    """Names by module, as docs/stability.md has them."""
    text = STABILITY.read_text()
    table = text.partition("|---|---|\n")[2].partition("\n\n")[0]
    cells = [line.split("|")[1:3] for line in table.splitlines()]
    return {module.strip(" `"): re.findall(r"`(\w+)`", names) for module, names in cells}


@pytest.mark.parametrize("module", [schedhook, testing], ids=lambda each: each.__name__)
def test_what_is_public_is_what_is_exported(module: ModuleType) -> None:
    assert public()[module.__name__] == module.__all__
    for name in module.__all__:
        assert getattr(module, name) is not None
    unknown = "no_such_name"
    with pytest.raises(AttributeError, match=unknown):
        getattr(module, unknown)


@pytest.mark.parametrize(("module", "names"), public().items())
def test_what_is_public_exists_and_says_what_it_is(module: str, names: list[str]) -> None:
    assert names
    for name in names:
        found = getattr(import_module(module), name)
        if inspect.isclass(found) or inspect.isfunction(found):
            assert inspect.getdoc(found), f"{module}.{name} has no docstring"
