"""A Slurm job as its controller tells it, and how that is read from JSON, 22.05's and 25.11's."""

from __future__ import annotations

import pwd
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from schedhook.values.sets import CpuSet
from schedhook_plugins.schedulers.slurm.hostlist import expand_hosts

MIB = 1 << 20
UNREADABLE = (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError)
"""What taking an answer apart raises where it is none of Slurm's."""
_MOST_THREADS = 1 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Allocation:
    """What Slurm gave a job on one host."""

    cpu_ids: CpuSet
    """Slurm's own numbers, in the order of sockets and cores: not the kernel's."""
    memory: int
    """Bytes; 0 where Slurm does not allocate memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobInfo:
    """A job, as Slurm's controller tells it."""

    job: str
    user_id: int
    user_name: str
    state: str
    """`PENDING`, `RUNNING`, `SUSPENDED`, `COMPLETED`, …: without what may come with it."""
    hosts: tuple[str, ...] = ()
    allocated: Mapping[str, Allocation] = field(default_factory=dict)
    provider: str = field(default="", compare=False)
    """Who said so."""

    @property
    def suspended(self) -> bool:
        return self.state == "SUSPENDED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Geometry:
    """How Slurm counts a host's processors."""

    cores_per_socket: int
    threads_per_core: int

    def cpu_ids(self, cores: Iterable[tuple[int, int]]) -> CpuSet:
        """Slurm's numbers of the processors of these cores, given as (socket, core within it)."""
        if self.threads_per_core > _MOST_THREADS:
            raise ValueError(f"{self.threads_per_core} threads of a core")
        threads = range(self.threads_per_core)
        return CpuSet(
            (socket * self.cores_per_socket + core) * self.threads_per_core + thread
            for socket, core in cores
            for thread in threads
        )


def parse_json(
    told: Mapping[str, Any], provider: str, geometry: Callable[[str], Mapping[str, Geometry]]
) -> JobInfo:
    """A job of squeue's or scontrol's JSON, in the shapes of 22.05 and of 25.11.

    They name cores within sockets; `geometry` tells, for a list of hosts, how these are numbered.
    """
    user_id = number(told["user_id"])
    if user_id is None:
        raise ValueError("the job has no user")
    hosts = told.get("nodes") or ""
    resources = told.get("job_resources") or {}
    cores = dict(_cores(resources))
    shapes = geometry(hosts) if cores else {}
    return JobInfo(
        job=str(number(told["job_id"])),
        user_id=user_id,
        user_name=told.get("user_name") or name_of_user(user_id),
        state=base_state(told["job_state"]),
        hosts=expand_hosts(hosts),
        allocated={
            host: Allocation(cpu_ids=shapes[host].cpu_ids(places), memory=memory * MIB)
            for host, (places, memory) in cores.items()
        },
        provider=provider,
    )


def _cores(resources: Mapping[str, Any]) -> Iterable[tuple[str, tuple[list[tuple[int, int]], int]]]:
    """(host, ((socket, core) pairs, memory in MiB))."""
    nodes = resources.get("nodes")
    if isinstance(nodes, Mapping):  # 25.11
        for its in nodes.get("allocation") or ():
            places = [
                (int(socket["index"]), int(core["index"]))
                for socket in its.get("sockets") or ()
                for core in socket.get("cores") or ()
                if "ALLOCATED" in core["status"]
            ]
            yield its["name"], (places, number((its.get("memory") or {}).get("allocated")) or 0)
        return
    for its in resources.get("allocated_nodes") or ():  # 22.05
        places = [
            (int(socket), int(core))
            for socket, inside in (its.get("sockets") or {}).items()
            for core, status in inside["cores"].items()
            if status.startswith("allocated")
        ]
        yield its["nodename"], (places, number(its.get("memory_allocated")) or 0)


def number(value: Any) -> int | None:
    """A number, or 25.11's {"set": …, "infinite": …, "number": …}."""
    if isinstance(value, Mapping):
        return number(value.get("number")) if value.get("set") else None
    return value if isinstance(value, int) else None


def base_state(value: Any) -> str:
    """The state itself: 25.11's JSON has a list, which starts with it; others add flags."""
    if isinstance(value, list):
        value = value[0]
    return str(value).split()[0].split("+")[0].upper()


def name_of_user(user_id: int) -> str:
    """Empty for a user who has no name on this host."""
    try:
        return pwd.getpwuid(user_id).pw_name
    except KeyError:
        return ""
