"""Every tier: find the helpers in tests/, and give examples of hypothesis time."""

from __future__ import annotations

import sys
from pathlib import Path

from hypothesis import settings

# At the end, so that the tests find their helpers (``tests.…``) and nothing else moves.
sys.path.append(str(Path(__file__).parents[1]))

# How long an example takes says more about the machine than about the code.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")
