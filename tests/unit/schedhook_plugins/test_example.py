"""The example plug-in, installed and used as a third party would."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from schedhook.testing import FakeArea, write_process
from tests.unit.stranger import Stranger


@pytest.fixture(scope="module")
def author(stranger: Stranger) -> Stranger:
    """Return the author, who has installed the example too."""
    stranger.pip_install(stranger.directory / "source/plugins/example")
    return stranger


@pytest.fixture
def relocation(schedhook_host: Path) -> list[object]:
    """Return the words of a relocation with the example's strategy."""
    area = FakeArea(start=0x7F0000000000, size=1 << 20, pages={0: 256})
    write_process(schedhook_host, 100, areas=[area], nodes="0-3")
    words = ["relocate", "--root", schedhook_host, "--backend", "simulated", "--pid", 100]
    return [*words, "--from", 0, "--to", 2, "--strategy", "largest-first"]


def strategies(answer: dict[str, list[dict[str, str]]]) -> list[str]:
    return [each["name"] for each in answer["plugins"] if each["role"] == "strategy"]


def test_it_is_listed_with_its_package(author: Stranger) -> None:
    answer = author.schedhook("plugins")
    assert answer["problems"] == []
    assert {
        "role": "strategy",
        "name": "largest-first",
        "summary": "the largest process first",
        "provider": "largest-first",
        "package": "schedhook-largest-first 1.0",
    } in answer["plugins"]


def test_it_is_chosen_by_name(author: Stranger, relocation: list[object]) -> None:
    report = author.schedhook(*relocation)
    assert (report["outcome"], report["strategy"]) == ("complete", "largest-first")


def test_it_is_chosen_by_configuration(
    author: Stranger, relocation: list[object], tmp_path: Path
) -> None:
    config = tmp_path / "config.toml"
    config.write_text('[relocation]\nstrategy = "largest-first"\n')
    report = author.schedhook(*relocation[:-2], SCHEDHOOK_CONFIG=str(config))
    assert report["strategy"] == "largest-first"


def test_its_own_tests_pass(author: Stranger) -> None:
    tests = author.directory / "source/plugins/example"
    done = author.run("pytest", "-p", "no:cacheprovider", tests, cwd=tests)
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout


@pytest.mark.parametrize("names", ["largest-first", "schedhook-largest-first", "other,all"])
def test_it_is_disabled_for_one_command(
    author: Stranger, relocation: list[object], names: str
) -> None:
    off = {"SCHEDHOOK_DISABLE_PLUGINS": names}
    answer = author.schedhook("plugins", **off)
    assert "move-pages" in strategies(answer)
    assert "largest-first" not in strategies(answer)
    done = author.run("schedhook", *relocation, **off)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("schedhook: no strategy is called 'largest-first'; there are: ")


def test_calls_of_its_plug_in_hooks_are_traced(author: Stranger, relocation: list[object]) -> None:
    done = author.run("schedhook", *relocation, "--json", SCHEDHOOK_TRACE_PLUGINS="1")
    assert done.returncode == 0
    assert json.loads(done.stdout)["outcome"] == "complete", "the log must not mix with the data"
    lines = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    calls = [
        (line["event"], line["hook"])
        for line in lines
        if line.get("plugin") == "largest-first (schedhook-largest-first 1.0)"
    ]
    assert calls == [
        ("plug-in hook called", "schedhook_strategies"),
        ("plug-in hook returned", "schedhook_strategies"),
        ("plug-in hook called", "schedhook_after_migrate"),
        ("plug-in hook returned", "schedhook_after_migrate"),
    ]
    assert author.run("schedhook", *relocation).stderr == ""
