"""The memory that a cgroup is charged for, by node: memory.numa_stat."""

from __future__ import annotations

import re

from schedhook.host._cgroup_files import read_text
from schedhook.host.cgroups import Cgroup
from schedhook.host.page_sizes import BASE_PAGE

_NODE = re.compile("N([0-9]+)=([0-9]+)")


def read_shared_memory(cgroup: Cgroup) -> dict[int, int] | None:
    """Return bytes of shared memory and of files on tmpfs by node, whether mapped or not.

    They are those of the cgroup and of all below it. None if the kernel does not say, as with
    cgroups of version 1.
    """
    return _parse(read_text(cgroup.path / "memory.numa_stat") or "").get("shmem")


def parse_process_memory(text: str) -> dict[int, int]:
    """Return bytes by node of what processes map, from the text of a cgroup's memory.numa_stat.

    It is never less than what they map and the cgroup is charged for, except huge pages of
    hugetlbfs. Version 1 only tells private memory.
    """
    table = _parse(text)
    if "hierarchical_anon" in table:  # version 1, in pages
        return {node: pages * BASE_PAGE for node, pages in table["hierarchical_anon"].items()}
    # What is mapped of the shared memory is in both.
    anon, shared, mapped = (table.get(name, {}) for name in ("anon", "shmem", "file_mapped"))
    return {
        node: anon.get(node, 0) + max(shared.get(node, 0), mapped.get(node, 0))
        for node in anon.keys() | shared.keys() | mapped.keys()
    }


def _parse(text: str) -> dict[str, dict[int, int]]:
    """Return a row by its name, each a number by node. What cannot be read is left out."""
    table: dict[str, dict[int, int]] = {}
    for line in text.splitlines():
        first, *fields = line.split() or [""]
        name = first.partition("=")[0]
        pairs = [_NODE.fullmatch(field) for field in fields]
        if all(pairs):
            table[name] = {int(pair[1]): int(pair[2]) for pair in pairs if pair}
    return table
