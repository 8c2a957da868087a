"""Where pictures are written, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.unit.clikit import SIMULATED, Run
from tests.unit.picturekit import texts
from tests.unit.screenkit import SCATTERED, make_host


@pytest.fixture
def host(tmp_path: Path) -> Path:
    return make_host(tmp_path / "host", SCATTERED)


def test_a_file_that_cannot_be_written_is_refused_before_anything_moves(
    run: Run, host: Path, tmp_path: Path
) -> None:
    target = tmp_path / "elsewhere"
    target.write_text("keep this")
    (tmp_path / "link").symlink_to(target)
    for place, words in (
        (tmp_path / "link", "plain file"),
        (tmp_path, "plain file"),
        (Path("/dev/null"), "plain file"),
        (tmp_path / "no/x.svg", "cannot write"),
        (target / "x.svg", "Not a directory"),
    ):
        command = ["relocate", "--root", host, "--job", 72, *SIMULATED, "--map", "0:252"]
        status, _, err = run(*command, "--svg", place)
        assert (status, err.count("\n")) == (2, 1)
        assert words in err
    assert target.read_text() == "keep this"


def test_a_file_is_replaced_atomically(
    run: Run, host: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "x.svg"
    file.write_text("earlier")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fchmod", fail)
        status, out, err = run("show", "--root", host, "--svg", file)
    assert status == 1
    assert "3 jobs" in out
    assert err == f"schedhook: cannot write {file}: No space left on device; name another file\n"
    assert file.read_text() == "earlier"
    assert run("show", "--root", host, "--svg", file)[0] == 0
    assert texts(file.read_text())[0] == "3 jobs on this host"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["host", "x.svg"]


@pytest.mark.parametrize("umask, before, after", [(0o077, None, 0o600), (0o022, 0o600, 0o600)])
def test_a_file_that_others_may_not_read_stays_so(
    run: Run, host: Path, tmp_path: Path, umask: int, before: int | None, after: int
) -> None:
    """It has the names of jobs and users."""
    file = tmp_path / "x.html"
    if before is not None:
        file.touch(before)
        file.chmod(before)
    umask = os.umask(umask)
    try:
        assert run("show", "--root", host, "--html", file)[0] == 0
    finally:
        os.umask(umask)
    assert file.stat().st_mode & 0o777 == after
