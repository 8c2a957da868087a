"""What the checks look at."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from schedhook.plugins.findings import Finding
from schedhook.plugins.manager import Plugins
from schedhook.values.config import Config


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """A host with its configuration and plug-ins; /proc and /sys are read below `root`."""

    config: Config
    plugins: Plugins
    root: Path


Check = Callable[[Setup], Iterable[Finding]]
"""Yield findings. SchedhookError, OSError and ValueError become a finding themselves."""
