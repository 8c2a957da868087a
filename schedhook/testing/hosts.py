"""Write trees of files that stand for a host: /sys, /proc and cgroups, as the kernel writes them.

    write_host(tmp_path, [FakeNode(number=0, cpus="0-3"), FakeNode(number=2, cpus="")])
    write_cgroup(tmp_path, "system.slice/job_1", pids=[100], cpus="0-3", nodes="0")
    write_process(tmp_path, 100, areas=[FakeArea(start=0x1000, size=8192, pages={0: 2})])

Each function takes the directory that stands for `/` and creates the directories it needs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from schedhook.values.sets import CpuSet, NodeSet
from schedhook.values.sizes import MIB

PAGE = 4096
_PF_KTHREAD = 0x00200000

DEFAULT_MOUNTS = (
    "22 1 0:21 / /proc rw - proc proc rw",
    "23 1 254:0 / / rw - ext4 /dev/vda rw",
    "24 1 0:23 / /dev/shm rw - tmpfs tmpfs rw",
    "25 1 0:24 / /dev/hugepages rw - hugetlbfs hugetlbfs rw",
)
"""Lines of mountinfo: the root is device 254:0, tmpfs is 0:23 and hugetlbfs 0:24."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeNode:
    """A NUMA node. Sizes are in bytes, sets in the kernel's list format."""

    number: int
    cpus: str = ""
    memory: int = 1024 * MIB
    free: int = 512 * MIB
    reclaimable: int = 0
    distances: Mapping[int, int] = field(default_factory=dict)
    """By node, if different from the usual 10 for the node itself and 20 for any other."""
    huge_pools: Sequence[tuple[int, int, int]] = ()
    """(page size in bytes, pages, free pages)."""
    online: bool = True
    is_gpu: bool = False
    """Its memory is that of a GPU, whose driver says so in /proc."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeArea:
    """A mapping of a process: an entry in each of maps, numa_maps and smaps."""

    start: int
    size: int
    pages: Mapping[int, int] = field(default_factory=dict)
    """Number of pages of `page_size` bytes, by node."""
    page_size: int = PAGE
    path: str = ""
    label: str = ""
    """What maps shows instead of a path, such as `[heap]`."""
    device: str = "254:0"
    """The file's device, major:minor in decimal as in mountinfo."""
    inode: int = 1
    offset: int = 0
    is_shared: bool = False
    is_huge: bool = False
    anon: int | None = None
    """Number of anonymous pages; None: all if there is no `path`, else none."""
    mappers: int = 1
    policy: str = "default"


def write_host(root: Path, nodes: Iterable[FakeNode], *, numa: bool = True) -> None:
    """Write /proc/meminfo, and the nodes and processors in /sys.

    Without `numa` they are written as a kernel without NUMA support does: the memory and
    processors of the first node, in the files for the whole host.
    """
    nodes = sorted(nodes, key=lambda node: node.number)
    online = [node for node in nodes if node.online]
    cpus = CpuSet(cpu for node in online for cpu in CpuSet.parse(node.cpus))
    write_file(root, "sys/devices/system/cpu/online", f"{cpus}\n")
    write_file(root, "proc/meminfo", "".join(map(_meminfo, online[:1])))
    if not numa:
        _write_pools(root, "sys/kernel/mm/hugepages", online[0])
        return
    base = "sys/devices/system/node"
    write_file(root, f"{base}/possible", f"{NodeSet(node.number for node in nodes)}\n")
    write_file(root, f"{base}/online", f"{NodeSet(node.number for node in online)}\n")
    for node in online:
        here = f"{base}/node{node.number}"
        lines = _meminfo(node).splitlines(keepends=True)
        write_file(root, f"{here}/meminfo", "".join(f"Node {node.number} {x}" for x in lines))
        write_file(root, f"{here}/cpulist", f"{node.cpus}\n")
        row = (_distance(node, other.number) for other in online)
        write_file(root, f"{here}/distance", " ".join(map(str, row)) + "\n")
        _write_pools(root, f"{here}/hugepages", node)
        if node.is_gpu:
            text = f"Node: {node.number}\nNUMA initialized: 1\nStatus: online\n"
            gpu = f"proc/driver/nvidia/gpus/{node.number:04x}:01:00.0"
            write_file(root, f"{gpu}/numa_status", text)


def _distance(node: FakeNode, other: int) -> int:
    return node.distances.get(other, 10 if other == node.number else 20)


def _meminfo(node: FakeNode) -> str:
    sizes = {
        "MemTotal": node.memory,
        "MemFree": node.free,
        "Active(file)": node.reclaimable // 2,
        "Inactive(file)": node.reclaimable - node.reclaimable // 2 + 8192,
        "Dirty": 4096,
        "Writeback": 4096,
    }
    text = "".join(f"{name + ':':<16}{size >> 10:>8} kB\n" for name, size in sizes.items())
    return text + "HugePages_Total:     0\n"


def _write_pools(root: Path, base: str, node: FakeNode) -> None:
    for size, total, free in node.huge_pools:
        pool = f"{base}/hugepages-{size >> 10}kB"
        write_file(root, f"{pool}/nr_hugepages", f"{total}\n")
        write_file(root, f"{pool}/free_hugepages", f"{free}\n")


def write_process(
    root: Path,
    pid: int,
    *,
    areas: Iterable[FakeArea] = (),
    name: bytes = b"app",
    arguments: Sequence[bytes] = (),
    state: str = "S",
    uid: int = 0,
    threads: Mapping[int, str] | None = None,
    cpus: str = "0",
    nodes: str = "0",
    capabilities: int = 0,
    start_time: int = 1000,
    parent: int = 1,
    cgroup: str = "0::/\n",
    mounts: Iterable[str] = DEFAULT_MOUNTS,
    kernel_thread: bool = False,
) -> None:
    """Write /proc/`pid`.

    `areas` are its mappings, `threads` maps thread ids to states (default: the main thread in
    `state`), `cpus` and `nodes` are the sets that it may use, `capabilities` is the mask of
    effective capabilities, `start_time` is in clock ticks, and `cgroup` is the text of
    /proc/PID/cgroup. A zombie (state Z) has no memory, but its live threads have.
    """
    threads = {pid: state} if threads is None else threads
    areas = sorted(areas, key=lambda area: area.start)
    flags = _PF_KTHREAD if kernel_thread else 0
    here = f"proc/{pid}"
    zeros = " 0" * 8
    rights = (
        f"Uid:\t{uid}\t{uid}\t{uid}\t{uid}\nThreads:\t{len(threads)}\n"
        f"CapEff:\t{capabilities:016x}\nCpus_allowed_list:\t{cpus}\nMems_allowed_list:\t{nodes}\n"
        f"VmRSS:\t{_resident(areas, huge=False):8} kB\n"
        f"HugetlbPages:\t{_resident(areas, huge=True):8} kB\n"
    )
    for where, letter, number in (
        (here, state, pid),
        *((f"{here}/task/{thread}", letter, thread) for thread, letter in threads.items()),
    ):
        numbers = (
            f"{parent} 1 1 0 -1 {flags}{zeros} 20 0 {len(threads)} 0 {start_time}{' 0' * 30}\n"
        )
        write_file(
            root,
            f"{where}/stat",
            b"%d (%s) %s %s" % (number, name, letter.encode(), numbers.encode()),
        )
        shown_name = name.replace(b"\\", b"\\\\").replace(b"\n", b"\\n")
        first = f"State:\t{letter} (whatever)\nTgid:\t{pid}\nPid:\t{number}\nPPid:\t{parent}\n"
        status = b"Name:\t" + shown_name + b"\n" + (first + rights).encode()
        write_file(root, f"{where}/status", status)
        write_file(root, f"{where}/comm", name + b"\n")
        has_memory = not kernel_thread and letter not in "ZX"
        shown = areas if has_memory else []
        write_file(root, f"{where}/maps", b"".join(map(_maps_line, shown)))
        write_file(root, f"{where}/numa_maps", b"".join(map(_numa_maps_line, shown)))
        write_file(root, f"{where}/smaps", b"".join(map(_smaps_part, shown)))
    write_file(root, f"{here}/cmdline", b"".join(word + b"\0" for word in arguments))
    write_file(root, f"{here}/cgroup", cgroup)
    write_file(root, f"{here}/mountinfo", "".join(f"{line}\n" for line in mounts))


def _resident(areas: Iterable[FakeArea], *, huge: bool) -> int:
    """Return the resident size in KiB, of hugetlbfs if `huge`, else of everything else."""
    fitting = (area for area in areas if area.is_huge == huge)
    return sum(sum(area.pages.values()) * area.page_size for area in fitting) >> 10


def _maps_line(area: FakeArea) -> bytes:
    major, _, minor = (area.device if area.path else "0:0").partition(":")
    text = (
        f"{area.start:08x}-{area.start + area.size:08x} rw-{'s' if area.is_shared else 'p'} "
        f"{area.offset:08x} {int(major):02x}:{int(minor):02x} {area.inode if area.path else 0} "
    ).encode()
    name = area.path or area.label
    return text.ljust(73) + name.encode().replace(b"\n", b"\\012") + b"\n"


def _numa_maps_line(area: FakeArea) -> bytes:
    words = [f"{area.start:08x}".encode(), area.policy.encode()]
    if area.path:
        words.append(b"file=" + escape(area.path.encode(), b"\n\t= "))
    if area.is_huge:
        words.append(b"huge")
    total = sum(area.pages.values())
    if total:
        anon = (0 if area.path else total) if area.anon is None else area.anon
        words += [f"anon={anon}".encode(), f"dirty={anon}".encode()] if anon else []
        words += [f"mapped={total}".encode()] if total != anon else []
        words += [f"mapmax={area.mappers}".encode()] if area.mappers > 1 else []
        words += [f"N{node}={count}".encode() for node, count in sorted(area.pages.items())]
        words.append(f"kernelpagesize_kB={area.page_size >> 10}".encode())
    return b" ".join(words) + b"\n"


def _smaps_part(area: FakeArea) -> bytes:
    size = sum(area.pages.values()) * area.page_size >> 10
    rss = 0 if area.is_huge else size
    private = size if area.is_huge and not area.is_shared else 0
    shared = size if area.is_huge and area.is_shared else 0
    return (
        _maps_line(area)
        + (
            f"Rss:            {rss:8} kB\nPss:            {rss // area.mappers:8} kB\n"
            f"Pss_Dirty:      {rss:8} kB\nShared_Hugetlb: {shared:8} kB\n"
            f"Private_Hugetlb:{private:8} kB\nVmFlags: rd wr mr mw me ac\n"
        ).encode()
    )


def escape(name: bytes, special: bytes) -> bytes:
    """Return `name` as the kernel's mangle_path() writes it: octal for each byte in `special`."""
    return b"".join(b"\\%03o" % byte if byte in special else bytes((byte,)) for byte in name)


def write_cgroup(
    root: Path,
    name: str,
    *,
    version: int = 2,
    pids: Iterable[int] = (),
    cpus: str | None = None,
    nodes: str | None = None,
    effective_cpus: str | None = None,
    effective_nodes: str | None = None,
    files: Mapping[str, str] | None = None,
) -> Path:
    """Write a cgroup, and its parents, below what `write_cgroup_mounts` wrote; return its path.

    A set that is None gets no file, as if the cpuset controller was not enabled. `files` are
    further files by name.
    """
    mount = root / ("sys/fs/cgroup/cpuset" if version == 1 else "sys/fs/cgroup")
    path = mount / name.lstrip("/")
    ancestors = [mount, *(mount / parent for parent in Path(name.lstrip("/")).parents), path]
    for directory in ancestors:
        if not (directory / "cgroup.procs").exists():
            write_file(directory, "cgroup.procs", "")
    write_file(path, "cgroup.procs", "".join(f"{pid}\n" for pid in pids))
    suffixes = ("cpus.effective", "mems.effective")
    if version == 1:
        suffixes = ("effective_cpus", "effective_mems")
    for file, value in (
        ("cpus", cpus),
        ("mems", nodes),
        (suffixes[0], effective_cpus),
        (suffixes[1], effective_nodes),
    ):
        if value is not None:
            write_file(path, f"cpuset.{file}", f"{value}\n")
    for file, value in (files or {}).items():
        write_file(path, file, value)
    return path


def write_cgroup_mounts(root: Path, *, version: int = 2) -> None:
    """Write a mount table with cgroups: version 2 at /sys/fs/cgroup, or the hybrid layout.

    In the hybrid layout (`version=1`) cpuset, freezer and memory have hierarchies of version 1, and
    version 2 is mounted at `unified`.
    """
    base = "/sys/fs/cgroup"
    mounts = [(base, "cgroup2", "rw,nsdelegate")]
    if version == 1:
        mounts = [
            (base, "tmpfs", "rw,mode=755"),
            *((f"{base}/{name}", "cgroup", f"rw,{name}") for name in ("memory", "freezer")),
            (f"{base}/cpuset", "cgroup", "rw,cpuset"),
            (f"{base}/systemd", "cgroup", "rw,name=systemd"),
            (f"{base}/unified", "cgroup2", "rw"),
        ]
    lines = (f"{kind} {point} {kind} {options} 0 0\n" for point, kind, options in mounts)
    write_file(root, "proc/mounts", "".join(lines))
    for point, kind, _ in mounts:
        if kind != "tmpfs":
            write_file(root, f"{point.lstrip('/')}/cgroup.procs", "")


def write_file(root: Path, name: str, content: str | bytes) -> None:
    """Write a file below `root`, and create the directories above it."""
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
