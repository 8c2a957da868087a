"""The documentation agrees with the code."""

from __future__ import annotations

import inspect
import re
import shlex
import tomllib
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path

import click
import pytest

import schedhook
from schedhook.cli.main import main
from schedhook.migration.selection import WHY_KEPT
from schedhook.plugins import hookspecs
from schedhook.plugins.descriptors import MapperPlugin, StrategyPlugin
from schedhook.plugins.loading import load_plugins
from schedhook.values.config import Config, PluginsSection, parse_config
from schedhook.values.reasons import Reason
from schedhook_plugins.schedulers.slurm.command import command as job_migrate

PROJECT = Path(__file__).parents[3]
PAGES = sorted(
    [PROJECT / "README.md", *(PROJECT / "docs").rglob("*.md"), *PROJECT.glob("contrib/*/README.md")]
)
HOOKS = [name for name in vars(hookspecs) if name.startswith("schedhook_")]


def sections() -> dict[str, str]:
    """Return the text of the plug-in hook reference, by heading."""
    parts = re.split(
        r"^##+ (.*)$", (PROJECT / "docs/reference/hooks.md").read_text(), flags=re.MULTILINE
    )
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.mark.parametrize("name", HOOKS)
def test_every_hook_is_documented_as_it_is(name: str) -> None:
    signature = inspect.signature(getattr(hookspecs, name))
    returns = signature.return_annotation
    arrow = "" if returns == "None" else f" -> {returns}"
    text = sections()[f"`{name}({', '.join(signature.parameters)}){arrow}`"]
    assert len(text.split()) > 4, "the section has no text"
    for word in re.findall(r"\w+Plugin", returns):
        for field in fields(getattr(schedhook, word)):
            assert re.search(rf"\b{field.name}\b", text), f"{word}.{field.name}"


def test_no_hook_is_documented_that_does_not_exist() -> None:
    reference = (PROJECT / "docs/reference/hooks.md").read_text()
    assert set(re.findall(r"^### `(\w+)", reference, re.MULTILINE)) == set(HOOKS)


@pytest.mark.parametrize("name", HOOKS)
def test_every_hook_has_a_test(name: str) -> None:
    tests = [path for path in (PROJECT / "tests").rglob("*.py") if path != Path(__file__)]
    assert any(name in path.read_text() for path in tests), name


def rows(page: str, heading: str) -> set[str]:
    """Return the names in the first column of the first table below a heading of a page."""
    text = (PROJECT / "docs/reference" / page).read_text()
    table = text.partition(f"\n## {heading}")[2].partition("\n|---")[2].partition("\n\n")[0]
    return set(re.findall(r"^\| `([\w-]+)` \|", table, re.MULTILINE))


def test_every_reason_is_explained_and_no_other() -> None:
    assert rows("reasons.md", "Left") == {reason.value for reason in Reason}
    assert rows("reasons.md", "Kept") == set(WHY_KEPT)


SITUATIONS = (PROJECT / "docs/reference/situations.md").read_text()


def situations() -> list[list[str]]:
    """Return the cells of each row of the tables of situations; the last cell names its tests."""
    tables = re.findall(r"^\| situation \|.*\n\|---.*\n((?:\|.*\n)+)", SITUATIONS, re.MULTILINE)
    return [row.strip("| ").split(" | ") for table in tables for row in table.splitlines()]


def test_situations_name_tests_that_exist() -> None:
    """Ensure that a test that a row names is not renamed or removed alone."""
    contracts = (PROJECT / "schedhook/testing/contracts").glob("*.py")
    files = [*(PROJECT / "tests").rglob("*.py"), *contracts]
    there = {name for file in files for name in re.findall(r"def (test_\w+)\(", file.read_text())}
    assert set(re.findall(r"`(test_\w+)`", SITUATIONS)) <= there
    assert len(situations()) > 60
    for cells in situations():
        assert len(cells) == 6, cells
        assert re.search(r"`(test_\w+|tests/numa/test_\w+\.py)`", cells[-1]), cells


@pytest.mark.parametrize(
    "file", sorted(PROJECT.glob("tests/numa/test_*situations*.py")), ids=lambda file: str(file.stem)
)
def test_every_test_of_a_situation_is_named_in_a_row(file: Path) -> None:
    named = {test for cells in situations() for test in re.findall(r"`(test_\w+)`", cells[-1])}
    assert set(re.findall(r"^def (test_\w+)\(", file.read_text(), re.MULTILINE)) <= named


def test_every_strategy_that_ships_is_explained() -> None:
    page = (PROJECT / "docs/reference/strategies.md").read_text()
    config = Config(plugins=PluginsSection(third_party=False))
    shipped = load_plugins(config).names(StrategyPlugin)
    assert sorted(re.findall(r"^## `([a-z-]+)`$", page, re.MULTILINE)) == shipped


def test_every_mapper_that_ships_is_explained() -> None:
    page = (PROJECT / "docs/reference/node-maps.md").read_text()
    config = Config(plugins=PluginsSection(third_party=False))
    headings = set(re.findall(r"^## ([a-z-]+)$", page, re.MULTILINE))
    assert headings == set(load_plugins(config).names(MapperPlugin))


def toml_blocks(page: Path) -> list[str]:
    return re.findall(r"```toml\n(.*?)```", page.read_text(), re.DOTALL)


def test_the_documented_configuration_is_complete_and_the_default() -> None:
    guide = PROJECT / "docs/how-to/operating.md"
    text = "\n".join(toml_blocks(guide))
    assert replace(parse_config(text, guide), source=None) == Config()
    documented = tomllib.loads(text)
    sections = {each.name: getattr(Config(), each.name) for each in fields(Config)}
    del sections["source"]
    assert {name: set(keys) for name, keys in documented.items()} == {
        name: {each.name for each in fields(section)} for name, section in sections.items()
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_documented_configuration_is_accepted(page: Path) -> None:
    known = {each.name for each in fields(Config)}
    for text in toml_blocks(page):
        if set(tomllib.loads(text)) <= known:  # otherwise for another program
            parse_config(text, page)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^):]+)\)", page.read_text()):
        name, _, part = target.partition("#")
        there = (page.parent / name) if name else page
        assert there.exists(), target
        if part:
            headings = re.findall(r"^#+ (.*)$", there.read_text(), re.MULTILINE)
            plain = (re.sub(r"[^a-z0-9 -]", "", each.lower()) for each in headings)
            assert part in {each.replace(" ", "-") for each in plain}, target


# -- every command line parses -------------------------------------------------------------------

PLACEHOLDERS = {"PID": "1", "ID": "7", "JOB": "7", "NODES": "0-1", "FILE": "file", "PATH": "/x"}
COMMANDS = {"schedhook": main, "job-migrate": job_migrate}


def command_lines(page: Path) -> Iterator[tuple[str, bool]]:
    """Yield each command line, and whether it is in a code block and not in running text."""
    text = page.read_text()
    lines = [
        (line, True)
        for block in re.findall(r"```\w*\n(.*?)```", text, re.DOTALL)
        for line in block.splitlines()
    ]
    text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    lines += [(line, True) for line in re.findall(r"^(?: {4}|\t)(.*)$", text, re.MULTILINE)]
    lines += [(line, False) for line in re.findall(r"`([^`\n]+)`", text)]
    for line, in_block in lines:
        words = re.sub(r"^[$#] ", "", line.strip())
        if re.match(r"(\S*/)?(schedhook|job-migrate) [\w-]+( |$)", words) and "…" not in words:
            yield re.split(r" [>|&] | && |\]", words)[0], in_block


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_every_command_line_parses(page: Path) -> None:
    for line, in_block in command_lines(page):
        program, *words = shlex.split(line, comments=True)
        name = Path(program).name
        words = [PLACEHOLDERS.get(word, word) for word in words]
        try:
            context = COMMANDS[name].make_context(name, list(words))
            if isinstance(context.command, click.Group):
                found, command, rest = context.command.resolve_command(context, words)
                assert command is not None
                command.make_context(found, rest, parent=context)
        except click.exceptions.Exit:
            pass  # --help, --version
        except click.MissingParameter as error:
            # In running text it may be only the name of a command.
            assert not in_block, f"{line}: {error.format_message()}"
        except click.ClickException as error:
            pytest.fail(f"{line}: {error.format_message()}")


def test_the_documents_have_command_lines() -> None:
    assert sum(in_block for page in PAGES for _, in_block in command_lines(page)) > 15
