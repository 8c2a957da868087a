"""Boot a Linux kernel with several NUMA nodes on this host's own files, by virtme-ng and QEMU.

The guest is root, sees the host's files copy-on-write, and shares one directory with the host read-write.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

PACKAGES = "qemu-system-x86 linux-image-amd64 busybox-static"


class CannotBoot(Exception):
    """What is missing, and how to install it."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """The guest's hardware. Memory in MiB per node; one processor per node."""

    nodes: int = 4
    mib_per_node: int = 1024

    def distance(self, one: int, other: int) -> int:
        """Pairs (0,1), (2,3), ... are near; of the far ones, those of equal parity are nearer."""
        return {0: 10, 1: 12, 2: 20}.get(one ^ other, 24)

    def options(self) -> list[str]:
        """The shape as options of vng(1)."""
        options = ["--cpus", str(self.nodes), "--memory", f"{self.nodes * self.mib_per_node}M"]
        for node in range(self.nodes):
            options += ["--numa", f"{self.mib_per_node}M,cpus={node}"]
        for one, other in itertools.combinations(range(self.nodes), 2):
            options += ["--numa-distance", f"{one},{other}={self.distance(one, other)}"]
        return options


def newest_kernel(boot: Path = Path("/boot")) -> Path:
    """The installed kernel of the highest version."""

    def version(path: Path) -> list[int]:
        return [int(number) for number in re.findall(r"\d+", path.name)]

    kernels = sorted(boot.glob("vmlinuz-*"), key=version)
    if not kernels:
        raise CannotBoot(f"no kernel in {boot}: apt-get install {PACKAGES}")
    return kernels[-1]


def has_kvm() -> bool:
    """Whether the processor really offers virtualisation; /dev/kvm alone may open and then hang."""
    flags = set(Path("/proc/cpuinfo").read_text().split())
    return bool(flags & {"vmx", "svm"}) and os.access("/dev/kvm", os.R_OK | os.W_OK)


def command_line(
    script: str, *, shared: Path, shape: Shape, kernel: Path, kvm: bool, name: str
) -> list[str]:
    """The vng(1) command that runs ``script`` in the guest and powers it off."""
    vng = Path(sys.executable).with_name("vng")
    found = str(vng) if vng.exists() else shutil.which("vng")
    if found is None:
        raise CannotBoot("vng is missing: pip install '.[dev]' (it comes from virtme-ng)")
    for program, package in [
        ("qemu-system-x86_64", "qemu-system-x86"),
        ("busybox", "busybox-static"),
    ]:
        if shutil.which(program) is None:
            raise CannotBoot(f"{program} is missing: apt-get install {package}")
    return [
        found,
        "--run",
        str(kernel),
        *([] if kvm else ["--disable-kvm"]),
        # Debian 12's virtiofsd is refused by virtme-ng, which finds out only after ten seconds.
        "--force-9p",
        *shape.options(),
        *("--name", name, "--network", "loop", "--cwd", "/", "--rwdir", str(shared)),
        *("--", script),
    ]


@contextlib.contextmanager
def running(
    script: str,
    *,
    shared: Path,
    seconds: float,
    shape: Shape | None = None,
    kernel: Path | None = None,
    kvm: bool | None = None,
    name: str = "numa-vm",
) -> Iterator[subprocess.Popen[bytes]]:
    """A guest that runs ``script``, for at most ``seconds``; killed on leaving the block.

    ``shared`` is read-write in the guest under the same path; console.log there gets the console.
    """
    command = command_line(
        script,
        shared=shared,
        shape=shape or Shape(),
        kernel=kernel or newest_kernel(),
        kvm=has_kvm() if kvm is None else kvm,
        name=name,
    )
    # virtme-ng calls virtme-run by name, which lies beside it and beside python.
    path = f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}"
    # timeout(1) outlives us, so that no guest stays behind when we are killed.
    bounded = ["timeout", "--kill-after=10", str(seconds), *command]
    with open(shared / "console.log", "wb") as console:
        guest = subprocess.Popen(
            bounded,
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=console,
            env={**os.environ, "PATH": path},
            start_new_session=True,
        )
    try:
        yield guest
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(guest.pid, signal.SIGKILL)
        guest.wait()


def wait_until(
    condition: Callable[[], bool], guest: subprocess.Popen[bytes], seconds: float
) -> bool:
    """Poll ``condition`` until it holds; False when the guest has ended or time is over."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        ended = guest.poll() is not None
        if condition():
            return True
        if ended:
            return False
        time.sleep(0.1)
    return False
