"""Packages for other distributions say the same as pyproject.toml."""

from __future__ import annotations

import re
import runpy
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from schedhook import __version__

PROJECT = Path(__file__).parents[3]
DECLARED = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
SPEC = (PROJECT / "packaging/rpm/schedhook.spec").read_text()
ROLE = PROJECT / "packaging/ansible/roles/schedhook"


def names_and_versions(ranges: list[str]) -> dict[str, str]:
    """Return the lowest version by name, from `click>=8.1.3`."""
    return dict(re.findall(r"^([\w-]+)>=([\w.]+)", "\n".join(ranges), re.MULTILINE))


def test_the_rpm_package_has_the_version_and_what_it_bundles() -> None:
    assert re.findall(r"^Version: +(\S+)$", SPEC, re.MULTILINE) == [__version__]
    bundled = set(re.findall(r"bundled\(python3dist\(([\w-]+)\)\)", SPEC))
    extras = DECLARED["optional-dependencies"]
    assert bundled >= set(names_and_versions([*DECLARED["dependencies"], *extras["metrics"]]))


def test_spacks_recipe_has_the_version_and_dependencies(monkeypatch: pytest.MonkeyPatch) -> None:
    called: dict[str, list[tuple[Any, dict[str, Any]]]] = {}

    def directive(name: str) -> Any:
        return lambda what, **more: called.setdefault(name, []).append((what, more))

    names = ("license", "version", "variant", "depends_on", "requires")
    modules: dict[str, dict[str, Any]] = {
        "spack": {},
        "spack.package": {name: directive(name) for name in names},
        "spack_repo": {},
        "spack_repo.builtin": {},
        "spack_repo.builtin.build_systems": {},
        "spack_repo.builtin.build_systems.python": {"PythonPackage": object},
    }
    for name, members in modules.items():
        module = ModuleType(name)
        vars(module).update(members)
        monkeypatch.setitem(sys.modules, name, module)
    runpy.run_path(str(PROJECT / "packaging/spack/package.py"))
    assert __version__ in [what for what, _ in called["version"]]
    ranges = dict(called["depends_on"])
    extras = DECLARED["optional-dependencies"]
    for when, wanted in (
        (None, DECLARED["dependencies"]),
        ("+metrics", extras["metrics"]),
        ("+cluster", extras["cluster"]),
    ):
        for name, version in names_and_versions(wanted).items():
            assert ranges[f"py-{name.lower()}@{version}:"].get("when") == when
    assert f"python@{DECLARED['requires-python'].removeprefix('>=')}:" in ranges


def test_every_variable_of_ansibles_role_has_a_default() -> None:
    defaults = yaml.safe_load((ROLE / "defaults/main.yml").read_text())
    text = "".join(
        path.read_text() for path in (ROLE / "tasks/main.yml", ROLE / "handlers/main.yml")
    )
    inner = set(re.findall(r"register: (\w+)", text)) | set(
        re.findall(r"^ +(schedhook_\w+): ", text, re.M)
    )
    assert set(re.findall(r"\bschedhook_\w+", text)) - inner <= set(defaults)
