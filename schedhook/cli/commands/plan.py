"""`schedhook plan`."""

from __future__ import annotations

from schedhook.cli.commands.relocate import plan_command as command

__all__ = ["command"]
