"""Boot a Linux kernel with several NUMA nodes on this host's own files, by virtme-ng and QEMU.

The guest is root, sees the host's files copy-on-write, and shares one directory with the host
read-write, under the same path. Instead of the host's files it can have those of another root
directory, with this project at the same path (debian_root.sh makes one).
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.vm.roots import (
    HOST_ROOT,
    PROJECT,
    has_environment,
    shared_options,
    systemd_options,
    within,
)

PROGRAMS = {
    "busybox": "busybox-static",
    "file": "file",
    "mke2fs": "e2fsprogs",
}
KERNEL_OPTIONS = [
    # With --verbose below: the console shows warnings and errors.
    "loglevel=5",
    # Off until a test switches it on (tests/balancing.py): it would disturb measurements.
    "numa_balancing=disable",
    # A guest that runs only these tests needs no defence. Under emulation the mitigations take a
    # tenth of its time, and programs at addresses that were not used before, half of each start.
    "mitigations=off",
    "norandmaps",
    # Else a write to a cpuset or an unmount waits for every processor to come by.
    "rcupdate.rcu_expedited=1",
    # memfd_secret(2); before 6.5 it is off by default.
    "secretmem.enable=1",
]
QEMU_OPTIONS = [
    # Each of virtme-ng's five serial devices has queues for 31 ports, and QEMU's main loop polls
    # them all whenever it wakes.
    "-global virtio-serial-pci.max_ports=2",
]
IMAGE_LIMIT_MIB = 400
OWN_SERIES = {"12": "6.1.", "13": "6.12."}
"""Debian's kernels, by VERSION_ID of os-release(5)."""


class CannotBoot(Exception):
    """A program or a kernel is missing; the message says how to install it."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Processor:
    """A kind of processor that a guest can have."""

    elf: int
    """Its number in the head of a program's file, elf(5)."""
    qemu: str
    package: str
    """Debian's package with that program."""
    vng: tuple[str, ...] = ()
    """Options of vng(1)."""
    kernel_options: tuple[str, ...] = ()
    emulation: str
    """Options of QEMU under emulation."""
    emulation_kernel_options: tuple[str, ...] = ()


X86 = Processor(
    elf=0x3E,
    qemu="qemu-system-x86_64",
    package="qemu-system-x86",
    kernel_options=(
        # On a busy host an emulated timer can be too late for this check, which ends in a panic.
        "no_timer_check",
        "clocksource=tsc",
        "tsc=reliable",
        "no5lvl",
        # Not needed here, and a third of the boot time under emulation.
        "modprobe.blacklist=kvm_amd,kvm_intel,ahci,aesni_intel,sha1_ssse3,sha256_ssse3,"
        "sha512_ssse3,ghash_clmulni_intel,acpi_cpufreq,powernow_k8",
    ),
    # What the kernel does for the first four at each system call takes long to emulate. With erms
    # and fsrm, kernel and C library copy and clear memory by `rep movsb` and `rep stosb`, which
    # QEMU emulates byte by byte.
    emulation="-cpu max,-smap,-smep,-umip,-pku,-erms,-fsrm",
    # X86_FEATURE_REP_GOOD, which is no flag of the processor: else the kernel uses `rep movsq` and
    # `rep stosq`, word by word.
    emulation_kernel_options=("clearcpuid=112",),
)
ARM64 = Processor(
    elf=0xB7,
    qemu="qemu-system-aarch64",
    package="qemu-system-arm",
    vng=("--arch", "arm64"),
    # Signatures of pointers and vectors of many lengths take long to emulate.
    emulation="-machine virt,gic-version=3 -cpu max,pauth-impdef=on,sve=off",
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """The guest's hardware: nodes of equal memory (MiB) with one processor each.

    `memory_only` more nodes have no processor; the first of them is nearest to node 0, and so on.
    Nodes 0 and 1 have `gib_pages` huge pages of 1 GiB each, reserved at boot: later on their memory
    is seldom in one piece.
    """

    nodes: int = 4
    mib_per_node: int = 1024
    memory_only: int = 0
    gib_pages: int = 0

    def distance(self, one: int, other: int) -> int:
        """Return distances: near 0-1 and 2-3 and so on; farther 0-2 and 1-3; farthest the rest."""
        if one == other:
            return 10
        beside = 4 * ((one >= self.nodes) + (other >= self.nodes))
        between = one % self.nodes ^ other % self.nodes
        return {0: 10, 1: 12, 2: 20}.get(between, 24) + beside

    @property
    def mib(self) -> int:
        """Memory of all nodes."""
        return (self.nodes + self.memory_only) * self.mib_per_node

    def options(self) -> list[str]:
        """Return the shape as options of vng(1)."""
        count = self.nodes + self.memory_only
        options = ["--cpus", str(self.nodes), "--memory", f"{self.mib}M"]
        for node in range(count):
            cpus = f",cpus={node}" if node < self.nodes else ""
            options += ["--numa", f"{self.mib_per_node}M{cpus}"]
        for one, other in itertools.combinations(range(count), 2):
            options += ["--numa-distance", f"{one},{other}={self.distance(one, other)}"]
        if self.gib_pages:
            pages = f"hugepages=0:{self.gib_pages},1:{self.gib_pages}"
            options += ["--append", "hugepagesz=1G", "--append", pages]
        # One socket per node: else the kernel warns of a cache that two nodes share.
        return [*options, f"--qemu-opts=-smp {self.nodes},sockets={self.nodes}"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What to boot. ``None``: the kernel of the root's Debian; KVM if the processor offers it."""

    shape: Shape = Shape()
    root: Path = HOST_ROOT
    """An absolute path."""
    kernel: Path | None = None
    kvm: bool | None = None
    systemd: bool = False
    """Boot with systemd, from another root than the host's."""


def own_kernel(root: Path = HOST_ROOT) -> Path:
    """Return the kernel of Debian's own series, or of another system the newest, below ``root``.

    A kernel from the backports may be there as well, and be the one that the host runs.
    """
    boot = root / "boot"

    def version(path: Path) -> list[int]:
        return [int(number) for number in re.findall(r"\d+", path.name)]

    kernels = sorted(boot.glob("vmlinuz-*"), key=version)
    if not kernels:
        raise CannotBoot(f"no kernel in {boot}: apt-get install linux-image-amd64")
    about = root / "etc/os-release"
    release = re.search(r'^VERSION_ID="?([\w.]+)', about.read_text(), re.MULTILINE)
    series = OWN_SERIES.get(release[1], "") if release else ""
    own = [kernel for kernel in kernels if kernel.name.startswith(f"vmlinuz-{series}")]
    return (own or kernels)[-1]


def processor_of(root: Path) -> Processor:
    """Return the processor whose programs are in a root directory."""
    with (root / "usr/bin/env").open("rb") as file:
        elf = int.from_bytes(file.read(20)[18:], "little")
    found = [each for each in (X86, ARM64) if each.elf == elf]
    if not found:
        raise CannotBoot(f"{root} is for another processor than x86-64 and arm64")
    return found[0]


def has_kvm() -> bool:
    """Return whether the processor offers virtualisation; /dev/kvm can open and then hang."""
    flags = set(Path("/proc/cpuinfo").read_text().split())
    return bool(flags & {"vmx", "svm"}) and os.access("/dev/kvm", os.R_OK | os.W_OK)


def virtme(processor: Processor) -> str:
    """Return the path of vng(1). Raise if something that it needs is missing."""
    for program, package in {**PROGRAMS, processor.qemu: processor.package}.items():
        if shutil.which(program) is None:
            raise CannotBoot(f"{program} is missing: apt-get install {package}")
    adjacent = Path(sys.executable).with_name("vng")
    found = str(adjacent) if adjacent.exists() else shutil.which("vng")
    if found is None:
        raise CannotBoot("vng is missing: pip install virtme-ng")
    return found


def image(directory: Path, path: Path) -> Path:
    """Write an image of a file system (ext4) with ``directory`` to the file ``path``."""
    # Room for many small files and their inode tables.
    mib = 32 + mib_of(directory) * 4 // 3
    path.touch()
    options = ["-q", "-t", "ext4", "-O", "^has_journal", "-m", "0", "-i", "4096"]
    subprocess.run(["mke2fs", *options, "-F", "-d", directory, path, f"{mib}M"], check=True)
    return path


def mib_of(directory: Path) -> int:
    """Return the disk space of ``directory`` in MiB."""
    du = subprocess.run(
        ["du", "--summarize", "--block-size=1M", directory],
        check=True,
        capture_output=True,
        text=True,
    )
    return int(du.stdout.split()[0])


def python_directories(root: Path = HOST_ROOT) -> list[Path]:
    """Return the guest's virtual environment and standard library, without large ones.

    Over 9p, which looks up every file on the host, imports are three to six times as slow as from
    a disk image. Another root's environment has the path of this one.
    """
    directories = [Path(sysconfig.get_path("stdlib"))]
    if root != HOST_ROOT:
        directories = [file.parent for file in root.glob("usr/lib/python3.*/os.py")]
    if sys.prefix != sys.base_prefix and has_environment(root):
        directories.append(within(root, Path(sys.prefix)))
    return [directory for directory in directories if mib_of(directory) < IMAGE_LIMIT_MIB]


def private_directories(root: Path = HOST_ROOT) -> list[Path]:
    """Return the project and those above it that only their owner may enter, outermost first.

    A clone in /root is such a case; tests that run jobs as other users need access.
    """
    path = (*reversed(PROJECT.parents), PROJECT)
    return [each for each in path if not within(root, each).stat().st_mode & 1]


def start_script(
    script: str,
    mounts: Sequence[Path],
    private: Sequence[Path],
    read_only: Sequence[Path],
) -> str:
    """Return what the guest runs: mount the disks, prepare it like systemd, run ``script``.

    The guest powers off at the end.
    """
    lines = ["#!/bin/bash", *(f"chmod a+x {shlex.quote(str(path))}" for path in private)]
    lines += [f"mount -o remount,bind,ro {shlex.quote(str(path))}" for path in read_only]
    for letter, directory in zip("abcdefgh", mounts, strict=False):
        lines.append(f"mount -o ro /dev/vd{letter} {shlex.quote(str(directory))} || exit 125")
    lines += [
        # virtme-ng's overlay on it is for root only, and there is no systemd to correct that.
        "chmod 1777 /tmp",
        # On another root than the host's virtme-ng lets every user write to it.
        "chmod 755 /run",
        # The files of a schedhook on the host must not affect the guest.
        "rm -rf /etc/schedhook /var/lib/schedhook",
        "echo '+cpuset +cpu +memory +pids' > /sys/fs/cgroup/cgroup.subtree_control",
        "export HOME=/root LC_ALL=C.UTF-8 PYTHONDONTWRITEBYTECODE=1 PYTHONSAFEPATH=1",
        script,
    ]
    return "\n".join(lines) + "\n"


@contextlib.contextmanager
def running(
    script: str, *, shared: Path, seconds: float, setup: Setup | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run the bash ``script`` in a guest for at most ``seconds``; kill it at the block's end.

    ``shared`` is read-write on both sides; console.log there gets the guest's console.
    """
    setup = setup or Setup()
    root = setup.root
    if setup.systemd and root == HOST_ROOT:
        raise CannotBoot("--systemd needs another --root, into which its units are written")
    processor = processor_of(root)
    is_foreign = processor != processor_of(HOST_ROOT)
    vng, kernel = virtme(processor), setup.kernel or own_kernel(root)
    kvm = not is_foreign and (has_kvm() if setup.kvm is None else setup.kvm)
    sharing = shared_options(root, shared)
    directories, private = python_directories(root), private_directories(root)
    start = shared / "start.sh"
    mounts = [HOST_ROOT / directory.relative_to(root) for directory in directories]
    read_only = [] if root == HOST_ROOT else [PROJECT]
    start.write_text(start_script(script, mounts, private, read_only))
    start.chmod(0o755)
    with tempfile.TemporaryDirectory(prefix="numa-vm-") as temporary, contextlib.ExitStack() as end:
        # A longer host name than 64 bytes is none: slurmctld ends for it.
        name = f"{shared.name[:40]}-{os.getpid()}"
        command = [vng, "--verbose", "--run", str(kernel), "--name", name]
        command += processor.vng
        if is_foreign:
            command += ["--busybox", str(root / "bin/busybox")]
        command += setup.shape.options()
        # virtme-ng tries Debian 12's virtiofsd for ten seconds before it uses 9p.
        command += ["--force-9p", "--network", "loop", "--cwd", str(root)]
        command += sharing
        if setup.systemd:
            command += systemd_options(root, shared, start)
        command += [] if kvm else ["--disable-kvm"]
        command += [f"--qemu-opts={option}" for option in QEMU_OPTIONS]
        command += [] if kvm else [f"--qemu-opts={processor.emulation}"]
        # The host's files are read-only in the guest, except under the guest's own overlays.
        for path in private[:1]:
            command += ["--overlay-rwdir", str(path)]
        emulated = () if kvm else processor.emulation_kernel_options
        for option in (*KERNEL_OPTIONS, *processor.kernel_options, *emulated):
            command += ["--append", option]
        for number, directory in enumerate(directories):
            disk = image(directory, Path(temporary, f"{number}.img"))
            command.append(f"--qemu-opts=-drive file={disk},if=virtio,format=raw,readonly=on")
        console = end.enter_context((shared / "console.log").open("wb"))
        guest = subprocess.Popen(
            # timeout(1) outlives this process, so no guest is left behind if it is killed.
            ["timeout", "--kill-after=10", str(seconds), *command, "--", str(start)],
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=console,
            # virtme-ng calls virtme-run, which is in the same directory, by name.
            env={**os.environ, "PATH": f"{Path(vng).parent}:{os.environ.get('PATH', os.defpath)}"},
            start_new_session=True,
        )
        try:
            yield guest
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(guest.pid, signal.SIGKILL)
            guest.wait()


def follow(path: Path, position: int, *, ended: bool = True) -> int:
    """Print the contents of ``path`` from ``position`` on; return the new position.

    Until the writer has ended only whole lines: another guest may print to the same terminal.
    """
    if not path.exists():
        return position
    with path.open("rb") as stream:
        stream.seek(position)
        data = stream.read()
    if not ended:
        data = data[: data.rfind(b"\n") + 1]
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
    return position + len(data)


def wait_for(path: Path, guest: subprocess.Popen[bytes]) -> bool:
    """Wait until ``path`` exists; return False if the guest ended before."""
    while not path.exists():
        if guest.poll() is not None:
            return path.exists()
        time.sleep(0.1)
    return True
