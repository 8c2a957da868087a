"""The backends `native` and `simulated`; neither is imported before it is created."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from schedhook import BackendPlugin, hookimpl

if TYPE_CHECKING:
    from schedhook.roles.backend import Backend


def _native(root: Path) -> Backend:
    from schedhook.backends.native.backend import NativeBackend  # noqa: PLC0415 - loads the C core

    return NativeBackend(root)


def _simulated(root: Path) -> Backend:
    from schedhook.backends.simulated import SimulatedBackend  # noqa: PLC0415 - seldom used

    return SimulatedBackend(root)


@hookimpl
def schedhook_backends() -> list[BackendPlugin]:
    return [
        BackendPlugin(
            name="native",
            summary="Linux system calls: migrate_pages, move_pages",
            create=_native,
        ),
        BackendPlugin(
            name="simulated",
            summary="everything in memory; nothing real moves",
            create=_simulated,
        ),
    ]
