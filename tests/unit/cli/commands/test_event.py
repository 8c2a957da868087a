"""`schedhook event`: delivery to the spool, and that a hook goes on whatever happens."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from schedhook.values.config import PATH_VARIABLE
from tests.unit.clikit import SCHEDHOOK


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    directory = tmp_path / "spool"
    directory.mkdir(mode=0o700)
    return directory


def deliver(*words: object, config: str = "") -> subprocess.CompletedProcess[str]:
    """Run the command as Slurm's prolog of job 7 does."""
    environ = os.environ | {"SLURM_JOB_ID": "7", "SLURM_JOB_UID": "0", PATH_VARIABLE: config}
    return subprocess.run(
        [*SCHEDHOOK, "event", "slurm", "prolog", *map(str, words)],
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )


def test_without_an_agent_the_event_is_left_in_the_spool(tmp_path: Path, spool: Path) -> None:
    done = deliver("--socket", tmp_path / "none.sock", "--spool", spool)
    assert (done.returncode, done.stdout) == (0, "")
    (event,) = spool.iterdir()
    assert b"SLURM_JOB_ID" in event.read_bytes()


@pytest.mark.parametrize(("strict", "status"), [([], 0), (["--strict"], 1)])
def test_an_event_that_cannot_be_delivered(tmp_path: Path, strict: list[str], status: int) -> None:
    (tmp_path / "file").touch()
    nowhere = tmp_path / "file" / "spool"
    done = deliver("--socket", tmp_path / "none.sock", "--spool", nowhere, *strict)
    assert done.returncode == status
    assert done.stderr.count("\n") == 1


def test_with_a_broken_configuration_the_defaults_are_used(tmp_path: Path, spool: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text("nonsense")
    done = deliver("--socket", tmp_path / "none.sock", "--spool", spool, config=str(config))
    assert done.returncode == 0
    assert "using the defaults" in done.stderr
    assert len(list(spool.iterdir())) == 1
