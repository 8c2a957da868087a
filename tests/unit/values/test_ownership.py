"""Who else could change a file, a directory, or one above it."""

from __future__ import annotations

import os
from pathlib import Path
from unittest.mock import patch

import pytest

from schedhook.values.ownership import (
    explain_untrusted,
    explain_untrusted_parents,
    explain_untrusted_tree,
    is_root_or_self,
    make_directory,
)

OTHER = 12345
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Return a file below two directories that only this user may change."""
    file = tmp_path / "above" / "here" / "file"
    file.parent.mkdir(parents=True)
    file.write_text("x")
    for path in (file, file.parent, file.parents[1]):
        path.chmod(0o755)
    return file


def test_root_and_this_user_are_trusted() -> None:
    with patch("os.geteuid", lambda: 77):
        assert [is_root_or_self(uid) for uid in (0, 77, 1)] == [True, True, False]


@pytest.mark.parametrize(
    ("mode", "trusted"), [(0o755, True), (0o700, True), (0o775, False), (0o757, False)]
)
def test_a_file_that_others_may_write_is_not_trusted(
    place: Path, mode: int, *, trusted: bool
) -> None:
    place.chmod(mode)
    said = None if trusted else f"{place} may be written by others"
    assert explain_untrusted(place) == said
    assert explain_untrusted(place, place.stat()) == said


@needs_root
def test_a_file_of_another_user_is_not_trusted(place: Path) -> None:
    os.chown(place, OTHER, 0)
    assert explain_untrusted(place) == f"{place} belongs to user {OTHER}"
    assert explain_untrusted(place.parent) is None


def test_directories_above_count(place: Path) -> None:
    assert explain_untrusted_parents(place) is None
    place.parents[1].chmod(0o777)
    assert explain_untrusted_parents(place) == f"{place.parents[1]} may be written by others"
    place.parents[1].chmod(0o1777)  # sticky, as /tmp
    assert explain_untrusted_parents(place) is None


@needs_root
def test_a_sticky_directory_of_another_user_is_not_trusted(place: Path) -> None:
    place.parents[1].chmod(0o1777)
    os.chown(place.parents[1], OTHER, 0)
    assert explain_untrusted_parents(place) == f"{place.parents[1]} belongs to user {OTHER}"


def test_directories_above_a_link_and_above_its_file_count(place: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(place)
    assert explain_untrusted_parents(link) is None
    place.parent.chmod(0o777)
    assert explain_untrusted_parents(link) == f"{place.parent} may be written by others"


@pytest.mark.parametrize("bad", ["", "here", "here/file", "here/more"])
def test_everything_in_a_tree_counts(place: Path, bad: str) -> None:
    top = place.parents[1]
    (place.parent / "more").write_text("x")
    (place.parent / "more").chmod(0o644)
    assert explain_untrusted_tree(top) is None
    (top / bad).chmod(0o777)
    assert explain_untrusted_tree(top) == f"{top / bad} may be written by others"


def test_a_file_is_a_tree_of_its_own(place: Path) -> None:
    assert explain_untrusted_tree(place) is None
    place.chmod(0o666)
    assert explain_untrusted_tree(place) == f"{place} may be written by others"


def test_directories_are_made_with_their_modes_whatever_the_umask(tmp_path: Path) -> None:
    wanted = tmp_path / "a" / "b" / "c"
    before = os.umask(0o077)
    try:
        make_directory(wanted, 0o750)
        make_directory(wanted, 0o700)  # it is there, and stays as it is
        os.umask(0)
        make_directory(tmp_path / "d" / "e", 0o700)
    finally:
        os.umask(before)
    modes = [
        path.stat().st_mode & 0o777
        for path in (wanted, *wanted.parents[:2], tmp_path / "d", tmp_path / "d" / "e")
    ]
    assert modes == [0o750, 0o755, 0o755, 0o755, 0o700]
