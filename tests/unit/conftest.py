"""What several of the tests here share."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def here() -> Iterator[Path]:
    """A directory that every user may reach, since some tests are another one. Not below pytest's
    own, which every run of pytest on the host closes to others anew."""
    with tempfile.TemporaryDirectory(prefix="schedhook-") as name:
        path = Path(name)
        path.chmod(0o755)
        yield path
