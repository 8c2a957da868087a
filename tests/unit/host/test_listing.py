"""schedhook.host.listing."""

from __future__ import annotations

from pathlib import Path

import pytest

from schedhook.host.listing import find_directories, list_directories, list_numbers


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("b", "a", "10", "9"):
        (tmp_path / name).mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "a")
    return tmp_path


def test_directories_are_sorted_by_name_without_files_and_links(tree: Path) -> None:
    assert list_directories(tree) == ["10", "9", "a", "b"]
    assert find_directories(tree) == ["10", "9", "a", "b"]


def test_numbers_are_sorted_by_value(tree: Path) -> None:
    assert list_numbers(tree) == [9, 10]


def test_a_directory_that_is_gone_has_none_or_is_an_error(tmp_path: Path) -> None:
    assert find_directories(tmp_path / "gone") == []
    for read in (list_directories, list_numbers):
        with pytest.raises(FileNotFoundError):
            read(tmp_path / "gone")
