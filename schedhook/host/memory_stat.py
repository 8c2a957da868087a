"""The memory that a cgroup is charged for, by node: memory.numa_stat, cgroups of version 2."""

from __future__ import annotations

from schedhook.host._cgroup_files import read_text
from schedhook.host.cgroups import Cgroup


def read_shared_memory(cgroup: Cgroup) -> dict[int, int] | None:
    """Return bytes of shared memory and of files on tmpfs by node, whether mapped or not.

    They are those of the cgroup and of all below it. None if the kernel does not say.
    """
    text = read_text(cgroup.path / "memory.numa_stat") or ""
    for line in text.splitlines():
        name, *fields = line.split()
        if name == "shmem":
            pairs = (field.partition("=") for field in fields)
            return {int(node.removeprefix("N")): int(size) for node, _, size in pairs}
    return None
