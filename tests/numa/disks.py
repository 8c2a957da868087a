"""Disks in memory: one on which zeros take none, and one that stops."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.numa.jobs import MIB, until


@contextmanager
def compressed_disk(mib: int) -> Iterator[Path]:
    """Make a disk on which zeros take no memory."""
    subprocess.run(["modprobe", "zram", "num_devices=0"], check=True, timeout=60)
    number = Path("/sys/class/zram-control/hot_add").read_text().strip()
    Path(f"/sys/block/zram{number}/disksize").write_text(f"{mib}M")
    try:
        yield Path(f"/dev/zram{number}")
    finally:
        Path("/sys/class/zram-control/hot_remove").write_text(number)


@contextmanager
def swapping_to(device: Path) -> Iterator[None]:
    """Swap to the device."""
    subprocess.run(["mkswap", device], check=True, capture_output=True, timeout=60)
    subprocess.run(["swapon", device], check=True, timeout=60)
    try:
        yield
    finally:
        subprocess.run(["swapoff", device], check=True, timeout=60)


class Slow:
    """A disk that can be stopped for a while."""

    def __init__(self, disk: Path, mib: int) -> None:
        subprocess.run(["modprobe", "dm_mod"], check=True, timeout=60)
        self._control("create", "--table", f"0 {mib * MIB // 512} linear {disk} 0")
        name = self._control("info", "--columns", "--noheadings", "--options", "blkdevname")
        self.device = Path("/dev", name.strip())
        until(self.device.exists)

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Stop the disk for the block, or until `go_on`.

        A disk that stays stopped keeps umount and killed processes waiting for ever.
        """
        self._control("suspend", "--noflush", "--nolockfs")
        try:
            yield
        finally:
            self.go_on()

    def go_on(self) -> None:
        self._control("resume")

    def remove(self) -> None:
        self._control("remove", "--retry")

    def _control(self, *words: str) -> str:
        command = ["dmsetup", "--noudevsync", *words, "schedhook-slow"]
        return subprocess.run(
            command, check=True, stdout=subprocess.PIPE, text=True, timeout=60
        ).stdout
