"""The adapter for OpenPBS: what its hook hands over, and a job's processes and placement.

A job's processes are those of its cgroup, which the cgroups hook makes; without that hook they are
those of the job's sessions, as PBS told them. Its nodes are, in this order of trust: those that
its cpuset fences in, those of its vnodes `host[N]`, and those of its processors.
"""

from __future__ import annotations

import json
import pwd
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from schedhook.host import cgroups
from schedhook.host.cgroups import Cgroup
from schedhook.host.listing import find_directories
from schedhook.host.processes import all_pids, read_status
from schedhook.host.topology import Topology, read_topology
from schedhook.host.vanishing import read_living
from schedhook.roles.scheduler import EventKind, Scheduler, Task
from schedhook.values.errors import NoPermissionError, ProcessGoneError, UsageError
from schedhook.values.log import get_logger
from schedhook.values.model import Event, Placement
from schedhook.values.sets import CpuSet, NodeSet
from schedhook_plugins.schedulers.pbs.state import JobState, States
from schedhook_plugins.schedulers.pbs.vnodes import nodes_on_host, parse_exec_vnode

if TYPE_CHECKING:
    from schedhook.journal.journal import Journal
    from schedhook.roles.request import Request
    from schedhook.values.model import Report

NAME = "pbs"
SERVICE = "pbs_jobs.service"
"""The cgroups hook's own name for it; a site may set another one (cgroup_prefix)."""

_log = get_logger()


class PbsScheduler(Scheduler):
    """OpenPBS on this host; see schedhook.roles.scheduler.Scheduler."""

    name = NAME
    kinds: Mapping[str, EventKind] = {
        "begin": EventKind.JOB_STARTED,
        "launch": EventKind.LOOK,
        "attach": EventKind.STEP_STARTED,
        "resize": EventKind.RELOCATED,
        "postsuspend": EventKind.SUSPENDED,
        "preresume": EventKind.RESUMING,
        "epilogue": EventKind.IGNORE,
        "end": EventKind.JOB_ENDED,
        "startup": EventKind.IGNORE,
        "periodic": EventKind.LOOK,
    }
    points_handled = frozenset(kinds) - {"epilogue"}

    def __init__(self, root: Path = Path("/")) -> None:
        super().__init__(root)
        self.states = States(root)

    # -- events ----------------------------------------------------------------------------------

    def read_event(self, point: str, _environ: Mapping[str, str], data: bytes) -> Event:
        """What contrib/pbs/schedhook.PY wrote: a JSON object with `job` (or null) and `jobs`."""
        try:
            told = json.loads(data)
        except ValueError as error:
            raise UsageError(f"PBS event {point}: standard input is not JSON: {error}") from None
        except RecursionError:
            raise UsageError(f"PBS event {point}: standard input is nested too deeply") from None
        if not isinstance(told, dict):
            raise UsageError(f"PBS event {point}: standard input is not a JSON object")
        job = told.get("job") or {}
        jobs = told.get("jobs") or []
        if not isinstance(job, dict) or not isinstance(jobs, list):
            raise UsageError(f"PBS event {point}: 'job' is not an object or 'jobs' not a list")
        return Event(
            scheduler=NAME,
            point=point,
            job=_text(job.get("id")) or "",
            user=_user(job.get("euser")),
            host=_host(told.get("host")),
            data=told,
        )

    def handle(
        self, event: Event, journal: Journal | None, relocate: Callable[[Request], Report]
    ) -> str:
        """Do what the event asks for on this host; one line for people. SchedhookError.

        `relocate` carries out, or plans, a relocation and keeps its report.
        """
        from schedhook_plugins.schedulers.pbs.actions import act  # noqa: PLC0415 - only for events

        return act(self, event, journal, relocate)

    # -- a job on this host ----------------------------------------------------------------------

    def jobs(self) -> tuple[str, ...]:
        """Jobs that have a cgroup here, and those of which a session lives."""
        found = {cgroup.path.name for cgroup in self._job_cgroups()}
        sessions: set[int] | None = None
        for job in self.states.jobs():
            state = self.states.get(job)
            if job not in found and state is not None and state.sessions:
                if sessions is None:
                    sessions = {session for _, session in self._sessions()}
                if sessions & set(state.sessions):
                    found.add(job)
        return tuple(sorted(found))

    def tasks(self, job: str) -> tuple[Task, ...]:
        """One task with all of the job's processes: PBS knows of no parts of a job on a host."""
        job = self.full_id(job)
        pids = self.pids(job)
        if not pids:
            return ()
        placement = self.placement(job, pids)
        return (Task(name="job", pids=pids, placement=placement),) if placement else ()

    def cgroups(self, job: str) -> tuple[Path, ...]:
        """The job's cgroups, that of the cpuset first where hierarchies are apart."""
        return tuple(cgroup.path for cgroup in self._cgroups_of(self.full_id(job)))

    def _cgroups_of(self, job: str) -> list[Cgroup]:
        return [cgroup for cgroup in self._job_cgroups() if cgroup.path.name == job]

    def cpuset(self, job: str) -> Cgroup | None:
        """The job's cgroup that has its cpuset, None where it has none."""
        return next((each for each in self._cgroups_of(job) if _is_cpuset(each.path)), None)

    def pids(self, job: str) -> tuple[int, ...]:
        """The job's processes here, ascending."""
        own = self._cgroups_of(job)
        if own:
            members = {pid for cgroup in own for pid in cgroups.pids(cgroup, self.root)}
            return tuple(sorted(members))
        state = self.states.get(job)
        return tuple(self._in_sessions(state)) if state and state.sessions else ()

    def suspended(self, job: str) -> bool:
        """Whether PBS has said that the job is suspended, and not yet that it goes on."""
        state = self.states.get(self.full_id(job))
        return state is not None and state.suspended

    def placement(self, job: str, pids: Iterable[int] | None = None) -> Placement | None:
        """The job's processors and nodes, None where nothing here tells."""
        topology = read_topology(self.root)
        cpuset = self.cpuset(job)
        if cpuset is not None:
            cpus = cgroups.effective_cpus(cpuset, self.root)
            fenced = cgroups.effective_nodes(cpuset, self.root) & topology.memory_nodes
        else:
            cpus, fenced = CpuSet(), topology.memory_nodes
            members = self.pids(job) if pids is None else pids
            for _, status in read_living(members, lambda pid: read_status(pid, self.root)):
                cpus = cpus | status.allowed_cpus
                fenced = fenced & status.allowed_nodes
            if not cpus:
                return None
        nodes, _ = self._nodes(job, cpus, fenced, topology)
        return Placement(cpus=cpus, nodes=nodes)

    def granted_nodes(self, job: str) -> NodeSet | None:
        """The job's nodes where PBS has granted nodes at all; None where they only follow from its
        processors, so that memory elsewhere is no trespass."""
        topology = read_topology(self.root)
        cpuset = self.cpuset(job)
        if cpuset is None:
            return None
        fenced = cgroups.effective_nodes(cpuset, self.root) & topology.memory_nodes
        cpus = cgroups.effective_cpus(cpuset, self.root)
        nodes, granted = self._nodes(job, cpus, fenced, topology)
        return nodes if granted else None

    def _nodes(
        self, job: str, cpus: CpuSet, fenced: NodeSet, topology: Topology
    ) -> tuple[NodeSet, bool]:
        """The job's nodes, and whether PBS granted them."""
        state = self.states.get(job)
        if fenced != topology.memory_nodes and not (state and state.parked):
            return fenced, True
        by_cpus = topology.memory_nodes_of(cpus)
        vnodes = self.vnode_nodes(job) & topology.memory_nodes
        # Processors elsewhere: somebody has moved the job since PBS placed it.
        if vnodes and by_cpus <= vnodes:
            return vnodes, True
        return by_cpus, False

    def vnode_nodes(self, job: str) -> NodeSet:
        """The nodes that the job's vnodes on this host name; empty where they name none."""
        state = self.states.get(job)
        if state is None or not state.exec_vnode:
            return NodeSet()
        try:
            return nodes_on_host(parse_exec_vnode(state.exec_vnode), state.host) or NodeSet()
        except ValueError as error:
            _log.warning(
                "exec_vnode cannot be read", job=job, text=state.exec_vnode, why=str(error)
            )
            return NodeSet()

    def full_id(self, job: str) -> str:
        """`12.server` for `12`, where only one job here begins so. UsageError for what cannot be
        a job's id."""
        if not job or "/" in job or "\0" in job or job in (".", ".."):
            raise UsageError(f"{job!r} is not the id of a PBS job")
        known = {cgroup.path.name for cgroup in self._job_cgroups()} | set(self.states.jobs())
        alike = [each for each in known if each.partition(".")[0] == job]
        return alike[0] if job not in known and len(alike) == 1 else job

    # -- where to look ---------------------------------------------------------------------------

    def _job_cgroups(self) -> list[Cgroup]:
        """Every job's cgroup in every hierarchy, those with cpusets first."""
        found = []
        for top in cgroups.hierarchies(self.root):
            services = [top.path / SERVICE]
            if not services[0].is_dir():
                names = find_directories(top.path)
                services = [top.path / name for name in names if name.endswith(".service")]
            found += [
                Cgroup(path=service / "jobid" / name, version=top.version, mount=top.mount)
                for service in services
                for name in find_directories(service / "jobid")
            ]
        return found

    def _sessions(self) -> Iterator[tuple[int, int]]:
        """(process, its session) of every process."""
        for pid in all_pids(self.root):
            try:
                stat = (self.root / "proc" / str(pid) / "stat").read_bytes()
            except OSError:
                continue
            fields = stat.rpartition(b")")[2].split()
            if len(fields) > 3:
                yield pid, int(fields[3])

    def session_of(self, pid: int) -> int | None:
        """None where the process is gone, or in no session (0: kernel threads)."""
        return dict(self._sessions()).get(pid) or None

    def _in_sessions(self, state: JobState) -> Iterator[int]:
        for pid, session in self._sessions():
            if session not in state.sessions:
                continue
            try:
                uid = read_status(pid, self.root).uid
            except (ProcessGoneError, NoPermissionError):
                continue
            # A session's number may have been given again, to somebody else.
            if state.user is None or uid == state.user:
                yield pid


def _is_cpuset(path: Path) -> bool:
    return any((path / name).exists() for name in ("cpuset.mems", "mems"))


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _host(name: Any) -> str:
    """Empty for what no host is called, and no journal could take."""
    return name if isinstance(name, str) and name.isprintable() else ""


def _user(name: Any) -> int | None:
    """The number of the user that PBS names."""
    try:
        return pwd.getpwnam(name).pw_uid if isinstance(name, str) else None
    except (KeyError, ValueError):  # ValueError: what cannot be a name, as with a zero byte
        return None
