"""The set of physical pages that a survey has seen."""

from __future__ import annotations

from schedhook.backends.native import _core
from schedhook.roles.backend import PageSet


class FrameSet(PageSet):
    """Page frames, in a bitmap: at most 32 MiB for a terabyte of pages of 4 KiB."""

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Begin again with none, in a set of which no earlier call knows."""
        self.frames = _core.frames()
        """The set, as `_core.survey` takes it."""
