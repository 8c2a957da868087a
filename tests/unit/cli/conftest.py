"""Fixtures for the tests of the command line."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from schedhook.cli.main import run as run_command
from schedhook.testing.hosts import FakeNode, write_host, write_process
from schedhook.values.config import PATH_VARIABLE
from tests.unit.clikit import Run
from tests.unit.screenkit import AREA, make_host


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Run:
    """Return how to run `schedhook`, on 80 columns by default, with a journal of its own."""
    config = tmp_path_factory.mktemp("config") / "config.toml"
    config.write_text(f'[journal]\npath = "{config.parent}/journal.db"\n')

    def run(*arguments: object, columns: int = 80, **environ: str) -> tuple[int, str, str]:
        for name in ("NO_COLOR", "FORCE_COLOR", "TERM"):
            monkeypatch.delenv(name, raising=False)
        for name, value in {"COLUMNS": str(columns), PATH_VARIABLE: str(config), **environ}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "argv", ["schedhook", *map(str, arguments)])
        with pytest.raises(SystemExit) as leave:
            run_command()
        printed = capfd.readouterr()
        assert isinstance(leave.value.code, int)
        return leave.value.code, printed.out, printed.err

    return run


@pytest.fixture
def four(tmp_path: Path) -> Path:
    """Return a host of four nodes with three jobs; see screenkit."""
    return make_host(tmp_path)


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """Return a host of four nodes of 1 GiB; process 100 has 8 MiB on node 0 and 4 on node 1."""
    write_host(tmp_path, nodes=[FakeNode(number=n, cpus=str(n)) for n in range(4)])
    write_process(tmp_path, 100, areas=[AREA], nodes="0-3")
    return tmp_path
