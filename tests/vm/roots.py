"""The root directory of a guest: the host's own, or another one with this project in it."""

from __future__ import annotations

import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
HOST_ROOT = Path("/")
UNIT, OVERLAYS = "tests-guest.service", "tests-overlays.service"
GUEST_UNIT = """\
[Unit]
SuccessAction=poweroff-force
FailureAction=poweroff-force
[Service]
Type=oneshot
TimeoutStartSec=infinity
StandardOutput=journal+console
ExecStart=udevadm settle
{shares}
ExecStart={start}
"""
OVERLAYS_UNIT = """\
[Unit]
DefaultDependencies=no
Before=local-fs-pre.target systemd-tmpfiles-setup.service
[Service]
Type=oneshot
ExecStart=bash -euc 'for each in etc home opt root var; do new=/run/overlays/$$each; \\
    mkdir -p $$new/upper $$new/work; mount -t overlay \\
    -o lowerdir=/$$each,upperdir=$$new/upper,workdir=$$new/work $$each /$$each; done'
"""
"""The services write, and the guest may not write to the root. There 9p would also give every new
file to root: munged refuses to log to a file of another user."""


def within(root: Path, path: Path) -> Path:
    """Return where ``path`` lies if ``root`` is the root directory."""
    return root / path.resolve().relative_to("/")


def has_environment(root: Path) -> bool:
    """Return whether the root has an environment with the path of this one."""
    return within(root, Path(sys.prefix)).is_dir()


def shared_directories(shared: Path) -> tuple[Path, Path]:
    """Return what a guest with another root mounts, in this order: one can lie in the other."""
    return PROJECT, shared


def shared_options(root: Path, shared: Path) -> list[str]:
    """Return the root and what is shared with the guest as options of vng(1).

    Make the directories in the root where the guest mounts them.
    """
    if root == HOST_ROOT:
        return ["--rwdir", str(shared)]
    options = ["--root", str(root)]
    for directory in shared_directories(shared):
        within(root, directory).mkdir(parents=True, exist_ok=True)
        options += ["--rwdir", f"{directory}={directory}"]
    return options


def systemd_options(root: Path, shared: Path, start: Path) -> list[str]:
    """Let systemd run the script ``start``, on a root of its own; return options of vng(1).

    virtme-ng's own way, by a login on the console, takes minutes under emulation, and makes its
    overlays when services have started already.
    """
    mount = "mount -t 9p -o trans=virtio,version=9p2000.L,access=any"
    shares = [
        f"ExecStart=mkdir -p {directory}\nExecStart={mount} virtme.initmount{number} {directory}"
        for number, directory in enumerate(shared_directories(shared))
    ]
    units = within(root, Path("/etc/systemd/system"))
    for name, target, lines in (
        (OVERLAYS, "sysinit.target", OVERLAYS_UNIT),
        (UNIT, "multi-user.target", GUEST_UNIT.format(shares="\n".join(shares), start=start)),
    ):
        (units / name).write_text(lines)
        link = units / f"{target}.wants" / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(f"../{name}")
    return ["--systemd", "--append", "systemd.mask=serial-getty@ttyS0.service"]
