"""Every tier: the tests are about the schedhook that is installed, not the source beside them."""

from __future__ import annotations

import sys
from pathlib import Path

from hypothesis import settings

# At the end, so that the tests find their helpers (``tests.…``) and nothing else moves.
sys.path.append(str(Path(__file__).parents[1]))

# How long an example takes says more about the machine than about the code.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")
