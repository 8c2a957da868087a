"""A program that ClusterShell takes for ssh."""

from __future__ import annotations

from pathlib import Path

from ClusterShell.Task import task_self


def use_ssh(directory: Path) -> Path:
    """Let ClusterShell run `ssh` in this directory, as `ssh OPTIONS HOST COMMAND`; return its path.

    `write_ssh` writes the program.
    """
    path = directory / "ssh"
    task_self().set_info("ssh_path", str(path))
    return path


def write_ssh(path: Path, text: str) -> None:
    """Write the program in the shell's language; $host is the host, $1 the command."""
    path.write_text(f'#!/bin/sh\nwhile [ "$2" ]; do host=$1; shift; done\n{text}\n')
    path.chmod(0o755)
