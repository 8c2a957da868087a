"""Jobs of OpenPBS on this host: which there are, their processes, CPUs and nodes.

A job's processes are those of its cgroup, which the cgroups hook makes; without that hook they are
those of the job's sessions, as PBS told them. Its nodes are, in this order of trust: those of its
cpuset, those of its vnodes `host[N]`, and those of its CPUs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from schedhook.host.cgroups import (
    Cgroup,
    configured_nodes,
    effective_cpus,
    effective_nodes,
    has_processes,
    hierarchies,
)
from schedhook.host.cgroups import pids as pids_in
from schedhook.host.listing import find_directories
from schedhook.host.processes import all_pids, read_status
from schedhook.host.topology import Topology, read_topology
from schedhook.host.vanishing import read_living
from schedhook.values.errors import NoPermissionError, ProcessGoneError, RefusedError, UsageError
from schedhook.values.log import get_logger
from schedhook.values.model import Placement
from schedhook.values.sets import CpuSet, NodeSet
from schedhook.values.text import join_some
from schedhook_plugins.schedulers.pbs.notes import PbsNotes, Told
from schedhook_plugins.schedulers.pbs.vnodes import (
    cpu_nodes_on_host,
    nodes_on_host,
    parse_exec_vnode,
)

SERVICE = "pbs_jobs.service"
"""The cgroups hook's own name for it; a site may set another one (cgroup_prefix)."""

_log = get_logger()


class PbsJobs:
    """The jobs on the host whose files are below `root`. `notes`: what PBS told of them."""

    def __init__(self, root: Path, notes: PbsNotes) -> None:
        self.root = root
        self.notes = notes

    def names(self) -> tuple[str, ...]:
        """Return the jobs that have a process in a cgroup here, or of which a session lives."""
        found = {cgroup.path.name for cgroup in self._all_cgroups() if has_processes(cgroup)}
        sessions: set[int] | None = None
        for job in self.notes.jobs():
            its = self.notes.told(job).sessions
            if job not in found and its:
                if sessions is None:
                    sessions = {session for _, session in _sessions(self.root)}
                if sessions & set(its):
                    found.add(job)
        return tuple(sorted(found))

    def full_id(self, job: str) -> str:
        """Return `12.server` for `12`, if only one job here begins so.

        Raise UsageError for what cannot be a job's id.
        """
        if not job or "/" in job or "\0" in job or job in (".", ".."):
            raise UsageError(f"{job!r} is not the id of a PBS job")
        known = {cgroup.path.name for cgroup in self._all_cgroups()}
        if job in known:
            return job
        known.update(self.notes.jobs())
        alike = [each for each in known if each.partition(".")[0] == job]
        return alike[0] if job not in known and len(alike) == 1 else job

    def resolve(self, text: str) -> str:
        """Return the full id of the job that people call `text`, `text` itself if there is none.

        Raise UsageError for an array (`12`, `12[]`, `12[].server`), for the number of jobs of
        several servers, and for what cannot be an id.
        """
        job, known = self.full_id(text), self.names()
        if job not in known:
            alike = [each for each in known if each.partition(".")[0] == text]
            if alike:
                raise UsageError(f"{text} names several jobs; name one: {join_some(alike)}")
            array, _, server = text.partition(".")
            prefix = f"{array.removesuffix('[]')}["
            subjobs = [
                each
                for each in known
                if each.startswith(prefix) and each.endswith(f".{server}" if server else "")
            ]
            if subjobs:
                raise UsageError(f"{text} is an array; name one of its jobs: {join_some(subjobs)}")
        return job

    def cgroups(self, job: str) -> list[Cgroup]:
        """Return the job's cgroups, that of the cpuset first if hierarchies are apart."""
        return [cgroup for cgroup in self._all_cgroups() if cgroup.path.name == job]

    def cpuset(self, job: str) -> Cgroup | None:
        """Return the job's cgroup that has its cpuset, None if there is none."""
        return next((each for each in self.cgroups(job) if _is_cpuset(each.path)), None)

    def pids(self, job: str) -> tuple[int, ...]:
        """Return the job's processes here, in ascending order."""
        own = self.cgroups(job)
        if own:
            members = {pid for cgroup in own for pid in pids_in(cgroup, self.root)}
            return tuple(sorted(members))
        told = self.notes.told(job)
        return tuple(self._in_sessions(told)) if told.sessions else ()

    def placement(self, job: str, pids: Iterable[int] | None = None) -> Placement | None:
        """Return the job's CPUs and nodes, None if nothing here tells them."""
        topology = read_topology(self.root)
        cpuset = self.cpuset(job)
        if cpuset is not None:
            return self._in_cpuset(job, cpuset, topology)[0]
        cpus, fenced = CpuSet(), topology.memory_nodes
        members = self.pids(job) if pids is None else pids
        for _, status in read_living(members, lambda pid: read_status(pid, self.root)):
            cpus = cpus | status.allowed_cpus
            fenced = fenced & status.allowed_nodes
        if not cpus:
            return None
        return Placement(cpus=cpus, nodes=self._nodes(job, cpus, fenced, topology)[0])

    def granted(self, job: str) -> Placement | None:
        """Return the job's placement if PBS granted it nodes.

        None if they only follow from its CPUs, so that memory elsewhere does no harm.
        """
        cpuset = self.cpuset(job)
        if cpuset is None:
            return None
        placement, granted = self._in_cpuset(job, cpuset, read_topology(self.root))
        return placement if granted else None

    def _in_cpuset(self, job: str, cpuset: Cgroup, topology: Topology) -> tuple[Placement, bool]:
        cpus = effective_cpus(cpuset, self.root)
        fenced = effective_nodes(cpuset, self.root)
        widened = self.notes.fence(job)
        if widened is not None and widened.wide == str(configured_nodes(cpuset)):
            fenced = NodeSet.parse(widened.before)
        nodes, granted = self._nodes(job, cpus, fenced & topology.memory_nodes, topology)
        return Placement(cpus=cpus, nodes=nodes), granted

    def _nodes(
        self, job: str, cpus: CpuSet, fenced: NodeSet, topology: Topology
    ) -> tuple[NodeSet, bool]:
        """Return the job's nodes, and whether PBS granted them."""
        if not topology.default_nodes <= fenced:
            return fenced, True
        by_cpus = topology.memory_nodes_of(cpus)
        vnodes = self.vnode_nodes(job) & topology.memory_nodes
        # If its CPUs are elsewhere, the job has been moved since PBS placed it.
        if vnodes and by_cpus <= vnodes:
            return vnodes, True
        return by_cpus, False

    def vnode_nodes(self, job: str) -> NodeSet:
        """Return the nodes that the job's vnodes on this host name; empty if they name none."""
        told = self.notes.told(job)
        if not told.exec_vnode:
            return NodeSet()
        try:
            return nodes_on_host(parse_exec_vnode(told.exec_vnode), told.host) or NodeSet()
        except ValueError as error:
            _log.warning("exec_vnode cannot be read", job=job, text=told.exec_vnode, why=str(error))
            return NodeSet()

    def granted_cpus(self, job: str) -> CpuSet:
        """Return the CPUs of the job's vnodes, which it may use without PBS granting them again.

        Raise RefusedError if it is not known which vnodes the job has.
        """
        told, topology = self.notes.told(job), read_topology(self.root)
        if not told.exec_vnode:
            raise RefusedError("PBS has not told which vnodes it granted the job")
        try:
            nodes = cpu_nodes_on_host(parse_exec_vnode(told.exec_vnode), told.host)
        except ValueError as error:
            raise RefusedError(f"unknown exec_vnode {told.exec_vnode!r}: {error}") from None
        return topology.cpus if nodes is None else topology.cpus_of(nodes)

    # -- where to look ---------------------------------------------------------------------------

    def _all_cgroups(self) -> list[Cgroup]:
        """Return every job's cgroup in every hierarchy, those with cpusets first."""
        found = []
        for top in hierarchies(self.root):
            services = [top.path / SERVICE]
            if not services[0].is_dir():
                names = find_directories(top.path)
                services = [top.path / name for name in names if name.endswith(".service")]
            found += [
                Cgroup(path=service / "jobid" / name, version=top.version, mount=top.mount)
                for service in services
                for name in find_directories(service / "jobid")
                # What the cgroups hook could not remove, under a new name: no job any more.
                if not name.endswith(".orphan")
            ]
        return found

    def _in_sessions(self, told: Told) -> Iterator[int]:
        members = (pid for pid, session in _sessions(self.root) if session in told.sessions)
        skipped = (ProcessGoneError, NoPermissionError)
        found = read_living(members, lambda pid: read_status(pid, self.root).uid, skipped=skipped)
        # A session's number may have been reused for another user.
        return (pid for pid, uid in found if told.user is None or uid == told.user)


def session_of(pid: int, root: Path) -> int | None:
    """Return a process's session, None if it is gone, or in none (0: kernel threads)."""
    return dict(_sessions(root)).get(pid) or None


def _sessions(root: Path) -> Iterator[tuple[int, int]]:
    """Yield (process, its session) of every process."""
    for pid in all_pids(root):
        try:
            stat = (root / "proc" / str(pid) / "stat").read_bytes()
        except OSError:
            continue
        fields = stat.rpartition(b")")[2].split()
        if len(fields) > 3:
            yield pid, int(fields[3])


def _is_cpuset(path: Path) -> bool:
    return any((path / name).exists() for name in ("cpuset.mems", "mems"))
