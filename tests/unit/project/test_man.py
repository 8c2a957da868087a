"""The manual pages and completions, written from the commands' help."""

from __future__ import annotations

import runpy
from pathlib import Path

import click

from schedhook.cli.main import COMMANDS, main
from schedhook_plugins.schedulers.slurm.command import command as job_migrate

PROJECT = Path(__file__).parents[3]


def test_there_is_a_page_for_each_command_with_each_of_its_options(tmp_path: Path) -> None:
    runpy.run_path(str(PROJECT / "docs/man.py"))["write"](tmp_path)
    pages = {path.name: path.read_text() for path in (tmp_path / "man").iterdir()}
    context = click.Context(main)
    commands = {f"schedhook-{name}": main.get_command(context, name) for name in COMMANDS}
    commands["job-migrate"] = job_migrate
    assert set(pages) == {"schedhook.1", *(f"{name}.1" for name in commands)}
    for name, command in commands.items():
        assert command is not None
        page = pages[f"{name}.1"]
        for option in command.params:
            if isinstance(option, click.Option) and not option.hidden:
                assert option.opts[0].replace("-", "\\-") in page, f"{name} {option.opts[0]}"
    assert all(f"schedhook-{name}(1)" in pages["schedhook.1"] for name in COMMANDS)
    assert "show where memory is" in pages["schedhook-show.1"].partition(".SH SYNOPSIS")[0]
    found = {str(path.relative_to(tmp_path)) for path in (tmp_path / "completions").rglob("*.*")}
    assert found == {"completions/fish/schedhook.fish"}
    for path in ("bash/schedhook", "zsh/_schedhook", "fish/schedhook.fish"):
        assert "_SCHEDHOOK_COMPLETE=" in (tmp_path / "completions" / path).read_text()
    # By this word `schedhook setup shell` knows its files again.
    assert all("schedhook" in page for page in pages.values())
