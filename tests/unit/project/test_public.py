"""Names in docs/reference/stability.md are public; what ships as plug-ins imports no others."""

from __future__ import annotations

import ast
import configparser
import inspect
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

import schedhook
from schedhook import testing

PROJECT = Path(__file__).parents[3]
PLUGINS = PROJECT / "plugins"
COMMAND = {PLUGINS / "schedulers/slurm" / name for name in ("command.py", "remote.py")}
"""A console command, which is not loaded as a plug-in."""
SHIPPED = sorted(
    path for path in PLUGINS.rglob("*.py") if path not in COMMAND and "example" not in path.parts
)


def public() -> dict[str, list[str]]:
    """Names by module, as docs/reference/stability.md has them."""
    text = (PROJECT / "docs/reference/stability.md").read_text()
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


# -- what ships imports only that ----------------------------------------------------------------


def imports(tree: ast.AST) -> Iterator[tuple[int, str, str]]:
    """Yield (line, module, name) for each import of schedhook; the name is empty if there is none.

    An import by a text, such as `import_module("schedhook.x")`, counts as one of a whole module.
    """
    for each in ast.walk(tree):
        if isinstance(each, ast.ImportFrom) and _is_core(each.module or ""):
            for alias in each.names:
                yield each.lineno, each.module or "", alias.name
        elif isinstance(each, ast.Import):
            for alias in each.names:
                if _is_core(alias.name):
                    yield each.lineno, alias.name, ""
        elif isinstance(each, ast.Call) and ast.unparse(each.func).endswith(
            ("import_module", "__import__", "find_spec")
        ):
            for argument in each.args:
                if isinstance(argument, ast.Constant) and _is_core(str(argument.value)):
                    yield each.lineno, str(argument.value), ""


def _is_core(module: str) -> bool:
    return module.partition(".")[0] == "schedhook"


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: str(path.relative_to(PLUGINS)))
def test_what_ships_imports_only_what_is_public(path: Path) -> None:
    names = public()
    private = [
        f"line {line}: {module}.{name}".rstrip(".")
        for line, module, name in imports(ast.parse(path.read_text()))
        if name not in names.get(module, ())
    ]
    assert not private, f"not in docs/reference/stability.md: {private}"


@pytest.mark.parametrize(
    "text",
    [
        "from schedhook.host._proc import read",
        "from schedhook.host import cgroups",
        "import schedhook.agent",
        "def f():\n    from schedhook.cli.main import main",
        "import_module('schedhook.agent.server')",
    ],
)
def test_the_check_finds_what_is_not_public(text: str) -> None:
    ((_, module, name),) = imports(ast.parse(text))
    assert name not in public().get(module, ())


def test_import_linter_forbids_the_rooms_in_which_nothing_is_public() -> None:
    linter = configparser.ConfigParser()
    linter.read(PROJECT / ".importlinter")
    forbidden = linter["importlinter:contract:public"]["forbidden_modules"].split()
    rooms = {
        f"schedhook.{path.parent.name}" for path in (PROJECT / "schedhook").glob("*/__init__.py")
    }
    open_rooms = {".".join(module.split(".")[:2]) for module in public()}
    assert set(forbidden) == rooms - open_rooms | {"schedhook.testing"}
