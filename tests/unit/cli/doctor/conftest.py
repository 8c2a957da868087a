"""Fixtures for the tests of doctor's checks."""

from __future__ import annotations

import pytest

from schedhook.plugins.loading import load_plugins
from schedhook.plugins.manager import Plugins
from schedhook.values.config import Config


@pytest.fixture
def plugins() -> Plugins:
    return load_plugins(Config(), environ={"SCHEDHOOK_DISABLE_PLUGINS": "all"})
