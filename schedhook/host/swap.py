"""The host's swap space, from /proc/meminfo."""

from __future__ import annotations

from pathlib import Path

from schedhook.host._sysfs import read_meminfo


def has_swap_in_use(root: Path = Path("/")) -> bool:
    """Return whether any memory of this host is in swap."""
    meminfo = read_meminfo(root / "proc/meminfo")
    return meminfo.get("SwapTotal", 0) > meminfo.get("SwapFree", 0)
