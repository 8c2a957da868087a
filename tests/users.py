"""A user without rights."""

from __future__ import annotations

NOBODY = 65534
