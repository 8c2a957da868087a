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


def test_of_a_tier_without_results_the_summary_has_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tiers, "RESULTS", tmp_path)
    results = tmp_path / "numa-1"
    results.mkdir()
    (results / "out").write_text("test_a PASSED\n" * 100 + "test_b \n")
    (results / "console.log").write_text("Kernel panic - not syncing\n")
    assert tiers.summary(["numa-1"]) == 1
    assert list(tiers.table(["numa-1"]))[-1] == "| numa-1 | did not run to its end | | | |"
    said = capsys.readouterr().out
    assert said.count("test_a") < 50
    assert "test_b \n    Kernel panic - not syncing\nnuma-1: did not run to its end" in said


def test_the_tests_of_one_guest_are_given_by_their_paths(tmp_path: Path) -> None:
    root = tmp_path / "debian"
    tier = tiers.Tier.elsewhere(root, [Path("tests/contract"), Path("tests/slurm")])
    command = tiers.pytest_command(tier, tmp_path)
    first = command.index(str(Path("tests/contract").resolve()))
    assert command[first + 1] == str(Path("tests/slurm").resolve())
    assert (tier.name, tier.root) == ("debian", root)


@pytest.mark.parametrize(
    ("release", "own"),
    [("12", "6.1.0-57-amd64"), ("13", "6.12.1-amd64"), (None, "7.3.4+deb13-amd64")],
)
def test_a_guest_has_the_kernel_of_its_debian(
    tmp_path: Path, release: str | None, own: str
) -> None:
    for folder in ("boot", "etc"):
        (tmp_path / folder).mkdir()
    for version in ("6.1.0-9-amd64", "6.1.0-57-amd64", "6.12.1-amd64", "7.3.4+deb13-amd64"):
        (tmp_path / f"boot/vmlinuz-{version}").touch()
    about = f'VERSION_ID="{release}"\n' if release else "ID=debian\n"
    (tmp_path / "etc/os-release").write_text(about)
    assert machine.own_kernel(tmp_path).name == f"vmlinuz-{own}"


def test_a_table_says_why_tests_were_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiers, "RESULTS", tmp_path)
    (tmp_path / "numa").mkdir()
    skipped = '<testcase><skipped message="no room"/></testcase>'
    (tmp_path / "numa/junit.xml").write_text(
        '<testsuites><testsuite tests="5" failures="1" errors="0" skipped="2">'
        f"<testcase/><testcase/><testcase/>{skipped}{skipped}</testsuite></testsuites>"
    )
    assert list(tiers.table(["numa"]))[-1] == "| numa | 2 | 1 | 2 | no room (2) |"


def test_outcomes_are_told_by_test_and_kind_of_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiers, "RESULTS", tmp_path)
    one = '<testcase classname="tests.numa.test_a" name="test_x[1]"/>'
    two = '<testcase classname="tests.numa.test_a" name="test_x[2]">{}</testcase>'
    other = '<testcase classname="tests.numa.test_b" name="test_y"/>'
    for name, what in ("old", '<skipped message="no room"/>'), ("new", "<failure/>"):
        (tmp_path / name).mkdir()
        suite = f"<testsuite>{one}{two.format(what)}{other}</testsuite>"
        (tmp_path / name / "junit.xml").write_text(suite)
    columns = {"6.1": ["old"], "7.3": ["new"], "both": ["old", "new"]}
    assert list(tiers.outcomes(columns, ["test_a"])) == [
        "| Test | 6.1 | 7.3 | both |",
        "|---|---|---|---|",
        "| `test_a: test_x` | 1; no room | 1; 1 failed | 2; no room; 1 failed |",
    ]
