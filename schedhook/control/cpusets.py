"""Write cpuset.cpus and cpuset.mems; see cpuset(7)."""

from __future__ import annotations

from schedhook.host.cgroups import Cgroup, configured_cpus, configured_nodes, pids
from schedhook.host.processes import answers
from schedhook.values.errors import NoPermissionError, RefusedError
from schedhook.values.sets import CpuSet, NodeSet


def write_cpus(cgroup: Cgroup, cpus: CpuSet) -> None:
    """Write cpuset.cpus, unless it has this value already or the cgroup is gone.

    On version 2 an empty set means the parent's. Raise RefusedError if the kernel refuses the
    value, NoPermissionError if this process may not write it.
    """
    if configured_cpus(cgroup) != cpus:
        _write(cgroup, "cpuset.cpus", str(cpus))


def write_nodes(cgroup: Cgroup, nodes: NodeSet) -> None:
    """Write cpuset.mems; otherwise like `write_cpus`.

    The kernel waits for the lock of each process's memory, and meanwhile no cgroup of the host can
    be changed. So raise RefusedError as well if a process does not answer.

    On version 2 the kernel itself moves pages that are outside of a narrower set, and kills the job
    if there is no room for them. So widen the set, move the pages, check, and only then narrow it.
    """
    if configured_nodes(cgroup) != nodes:
        for pid in pids(cgroup):
            if not answers(pid):
                raise RefusedError(
                    f"{cgroup.path}/cpuset.mems: not written: process {pid} does not answer, and"
                    " the kernel would wait for it; see schedhook doctor"
                )
        _write(cgroup, "cpuset.mems", str(nodes))


def _write(cgroup: Cgroup, name: str, text: str) -> None:
    path = cgroup.path / name
    try:
        with path.open("wb", buffering=0) as file:
            # A blank line clears the set; writing no bytes would not reach the kernel.
            file.write(f"{text}\n".encode())
    except FileNotFoundError:
        return
    except PermissionError:
        raise NoPermissionError(f"{path}: not permitted to write; run as root") from None
    except OSError as error:
        if not cgroup.path.exists():
            return
        raise RefusedError(f"{path}: the kernel refuses {text!r}: {error.strerror}") from None
