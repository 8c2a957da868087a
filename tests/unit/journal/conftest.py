"""An open journal."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from schedhook.journal.journal import Journal


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "journal.db"


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    with Journal.open(path) as journal:
        yield journal
