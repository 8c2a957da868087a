"""A tier of `make test` that cannot run is a failure, and the others run all the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.vm import machine, tiers


def test_a_root_that_could_not_be_made_fails_its_tier(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tiers, "RESULTS", tmp_path)
    tier = tiers.Tier.elsewhere(tmp_path / "debian", [Path("tests/slurm"), Path("tests/contract")])
    setup = machine.Setup(shape=machine.Shape())
    assert not tiers.run(tier, seconds=1, nodes=None, setup=setup)
    assert "make trixie" in capsys.readouterr().err
    assert tiers.summary([tier.name]) == 1
    assert "debian: did not run to its end" in capsys.readouterr().out


def test_the_tests_of_one_guest_are_given_by_their_paths(tmp_path: Path) -> None:
    root = tmp_path / "debian"
    tier = tiers.Tier.elsewhere(root, [Path("tests/contract"), Path("tests/slurm")])
    command = tiers.pytest_command(tier, tmp_path)
    first = command.index(str(Path("tests/contract").resolve()))
    assert command[first + 1] == str(Path("tests/slurm").resolve())
    assert (tier.name, tier.root) == ("debian", root)
