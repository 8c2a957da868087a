"""schedhook.values.files."""

from __future__ import annotations

from pathlib import Path

import pytest

from schedhook.values.files import replace_file


def test_a_new_file_has_the_contents_and_permissions(tmp_path: Path) -> None:
    path = tmp_path / "file"
    replace_file(path, b"text", 0o640)
    assert path.read_bytes() == b"text"
    assert path.stat().st_mode & 0o777 == 0o640
    assert list(tmp_path.iterdir()) == [path]


def test_a_symbolic_link_is_replaced_not_followed(tmp_path: Path) -> None:
    other, path = tmp_path / "other", tmp_path / "file"
    other.write_text("kept")
    path.symlink_to(other)
    replace_file(path, b"text")
    assert not path.is_symlink()
    assert other.read_text() == "kept"


def test_a_failure_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fchmod", fail)
    with pytest.raises(OSError, match="No space left"):
        replace_file(path, b"new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_long_name_gets_a_short_temporary_name(tmp_path: Path) -> None:
    path = tmp_path / ("ä" * 127)
    replace_file(path, b"text")
    assert path.read_bytes() == b"text"
