"""The set of physical pages that a survey has seen."""

from __future__ import annotations

import os
from pathlib import Path

from schedhook.backends.native import _core
from schedhook.roles.backend import PageSet


class FrameSet(PageSet):
    """Page frames, in a bitmap: at most 32 MiB for a terabyte of pages of 4 KiB."""

    def __init__(self, root: Path = Path("/")) -> None:
        """Raise OSError if the caller may not see frames (CAP_SYS_ADMIN)."""
        self._root = root
        self.renew()

    def renew(self) -> None:
        """Begin again with none, in a set of which no earlier call knows."""
        pagemap = os.open(self._root / "proc/self/pagemap", os.O_RDONLY | os.O_CLOEXEC)
        try:
            self.frames = _core.frames(pagemap)
            """The set, as `_core.survey` takes it."""
        finally:
            os.close(pagemap)
