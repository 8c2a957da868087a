"""What several of the tests here share."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.stranger import Stranger, make_stranger


@pytest.fixture
def here() -> Iterator[Path]:
    """A directory that every user may reach, since some tests are another one. Not below pytest's
    own, which every run of pytest on the host closes to others anew."""
    with tempfile.TemporaryDirectory(prefix="schedhook-") as name:
        path = Path(name)
        path.chmod(0o755)
        yield path


@pytest.fixture(scope="session")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Stranger:
    """An author of plug-ins, who has installed schedhook."""
    return make_stranger(tmp_path_factory.mktemp("stranger"))
