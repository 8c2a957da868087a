"""Give a Slurm job other processors on this host, and its memory with them.

Each task keeps its place within the job: what was bound to the job's n-th processor is bound to
the n-th of the new ones, and its memory follows from node to node along the same pairs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from schedhook.control.cpusets import CpuMove, CpusetChange, move_processors, relative
from schedhook.control.threads import affinity, bind, members_threads
from schedhook.host.cgroups import Cgroup, configured_cpus, effective_cpus, pids, subtree
from schedhook.host.topology import read_online_cpus, read_topology
from schedhook.host.vanishing import call_with_living
from schedhook.roles.request import Relocate, Request
from schedhook.roles.scheduler import Task
from schedhook.values.errors import RefusedError, SchedhookError, UsageError
from schedhook.values.model import NodeMap, Outcome, Placement, Plan, Report
from schedhook.values.sets import CpuSet, NodeSet
from schedhook_plugins.schedulers.slurm.cgroups import job_cgroups, step_directories
from schedhook_plugins.schedulers.slurm.node_pairs import group, node_pairs

if TYPE_CHECKING:
    from schedhook.values.model import PlacementOverride
    from schedhook_plugins.schedulers.slurm.adapter import Slurm


MAPPER = "processors"
"""What the report names as the mapper: pairs of nodes that follow from pairs of processors."""

_STEP_SECONDS = 30.0
_STEP_POLL_SECONDS = 0.1
_MIB = 1 << 20
_STOPPING = frozenset({Outcome.REFUSED, Outcome.FAILED})


@dataclass(frozen=True, slots=True, kw_only=True)
class JobMove:
    """What became of a job that was to have other processors."""

    job: str
    old: Placement
    new: Placement
    """What was asked for, whether it was reached or not."""
    failure: str | None = None
    """Why the job has its old processors (and bindings); None where it has the new ones."""
    not_restored: tuple[str, ...] = ()
    """After a failure: what of processors and bindings could not be put back."""
    reports: tuple[Report, ...] = ()
    """Of the memory. After a failure they tell what had moved by then."""
    notes: tuple[str, ...] = ()
    before: tuple[Task, ...] = ()
    after: tuple[Task, ...] = ()

    @property
    def done(self) -> bool:
        return self.failure is None


@dataclass(slots=True)
class _Memory:
    """The memory's part: who goes where, and what came of it."""

    job: str
    root: Path
    relocate: Relocate
    groups: list[tuple[dict[int, int], list[Task]]]
    reports: list[Report] = field(default_factory=list)

    def plan(self) -> tuple[Report, ...]:
        """RefusedError where a part may not move, or all parts together do not fit."""
        reports = tuple(report for report in self._each(dry_run=True))
        for report in reports:
            if report.outcome in _STOPPING:
                raise RefusedError(report.notes[-1] if report.notes else "refused")
        _check_room([report.plan for report in reports if report.plan])
        return reports

    def move(self) -> None:
        """SchedhookError where a part was refused or failed."""
        for report in self._each(dry_run=False):
            self.reports.append(report)
            if report.outcome in _STOPPING:
                why = report.notes[-1] if report.notes else report.outcome.value
                raise RefusedError(f"the memory could not follow: {why}")

    def _each(self, *, dry_run: bool) -> Iterator[Report]:
        for pairs, tasks in self.groups:
            request = Request(
                job=self.job,
                scheduler="slurm",
                node_map=NodeMap(pairs=pairs, mapper=MAPPER),
                dry_run=dry_run,
            )
            yield from self._one(request, [pid for task in tasks for pid in task.pids])

    def _one(self, request: Request, members: Sequence[int]) -> Iterator[Report]:
        report = call_with_living(
            members, lambda living: self.relocate(replace(request, pids=living)), self.root
        )
        if report is not None:
            yield report


def migrate(
    scheduler: Slurm,
    job: str,
    cpus: CpuSet,
    relocate: Relocate,
    *,
    dry_run: bool = False,
    begin: Callable[[JobMove], None] = lambda _: None,
) -> JobMove:
    """Move the job on this host to the processors `cpus`.

    `relocate` is the pipeline; `begin` is called before anything changes. UsageError where the job
    has nothing here or `cpus` cannot be meant; whatever happens afterwards is told in the result.
    """
    _await_steps(scheduler, job)
    cgroups = job_cgroups(job, scheduler.root, scheduler.host)
    before = scheduler.tasks(job)
    if not cgroups or not before:
        raise UsageError(f"job {job} has no process on this host")
    topology = read_topology(scheduler.root)
    old = job_cpus(cgroups, before, scheduler)
    _check_cpus(cpus, cgroups, scheduler)
    move = JobMove(
        job=job,
        old=scheduler.placement(old),
        new=scheduler.placement(cpus),
        before=before,
        notes=tuple(_notes(scheduler, job, old, cpus)),
    )
    moves = ((task, node_pairs(task.placement.cpus, old, cpus, topology)) for task in before)
    memory = _Memory(job, scheduler.root, relocate, group(moves))
    try:
        planned = memory.plan()
    except SchedhookError as error:
        return replace(move, failure=str(error), after=before)
    if dry_run:
        return replace(move, reports=planned, after=before)
    begin(move)
    result = _move(
        scheduler,
        cgroups,
        levels=lambda _step, its: relative(its, old, cpus),
        top=cpus,
        bind=lambda _pid, had: relative(had, old, cpus),
        move=memory.move,
        tasks=before,
    )
    return replace(
        move,
        failure=result.failure,
        not_restored=result.not_restored,
        reports=tuple(memory.reports),
        after=scheduler.tasks(job),
    )


def reapply(
    scheduler: Slurm,
    job: str,
    override: PlacementOverride,
    relocate: Relocate,
    homes: Mapping[str, Placement],
) -> str:
    """Make the job what was wished: after Slurm has written its own cpuset for a new step, or after
    whoever did so, or moved the job there (`override.leaving`), was killed on the way.

    `homes`, by task: where its memory was brought to last. Tasks at home within the wished
    processors go back there; the others, and those of a new step, are moved as the job was.
    SchedhookError, and then all is as it was.
    """
    cgroups = job_cgroups(job, scheduler.root, scheduler.host)
    tasks = scheduler.tasks(job)
    if not cgroups or not tasks:
        return "no process on this host"
    was, want = override.leaving or override.was.cpus, override.placement.cpus
    _check_cpus(want, cgroups, scheduler)
    topology = read_topology(scheduler.root)
    home_of = {task.name: homes[task.name].cpus for task in tasks if task.name in homes}
    settled = dict[str, CpuSet]()
    if override.leaving is None:
        settled = {name: home for name, home in home_of.items() if home <= want}
    leaving = {name: home for name, home in home_of.items() if home <= was and name not in settled}
    steps = {name.partition(".")[0] for name in settled}
    ends = settled | {name: relative(home, was, want) for name, home in leaving.items()}
    end_of = {pid: ends[task.name] for task in tasks if task.name in ends for pid in task.pids}

    def has_arrived(cpus: CpuSet) -> bool:
        """Whether whoever was killed had come this far."""
        return cpus <= want and not cpus <= was

    def level(step: str, cpus: CpuSet) -> CpuSet:
        keeps = has_arrived(cpus) or (step in steps and cpus <= want)
        return cpus if keeps else relative(cpus & was, was, want)

    def bind(pid: int, had: CpuSet) -> CpuSet:
        end = end_of.get(pid)
        if end is None:
            return had if has_arrived(had) else relative(had, was, want)
        return had if had < end else end

    places = {task.name: leaving.get(task.name, task.placement.cpus) for task in tasks}
    moves = [(task, node_pairs(places[task.name], was, want, topology)) for task in tasks]
    ways = {(old, new) for _, pairs in moves for old, new in pairs.items() if old != new}
    if {old for old, _ in ways} & {new for _, new in ways}:
        # Of memory on a node that is both old and new nobody could say whether it has arrived.
        there = ends if override.under_way else settled
        moves = [(task, pairs) for task, pairs in moves if task.name not in there]
    memory = _Memory(job, scheduler.root, relocate, group(moves))
    memory.plan()
    result = _move(
        scheduler,
        cgroups,
        levels=level,
        top=want,
        bind=bind,
        move=memory.move,
        tasks=tasks,
    )
    if result.failure is not None:
        raise RefusedError("; ".join([result.failure, *result.not_restored]))
    moved = sum(report.bytes_moved for report in memory.reports)
    return f"processors {want} as wished, moved {moved / _MIB:.1f} MiB"


def rebind(scheduler: Slurm, job: str, bound: Mapping[str, Placement]) -> bool:
    """Bind tasks whose binding was lost to a new cpuset; see Slurm.rebind."""
    tasks = scheduler.tasks(job)
    cgroups = job_cgroups(job, scheduler.root, scheduler.host)
    known = [task for task in tasks if task.name in bound]
    if not known or not cgroups:
        return False
    old = _union(bound[task.name].cpus for task in known)
    now = job_cpus(cgroups, tasks, scheduler)
    if old <= now:
        return False  # nobody took a processor away: a task that is unbound wants to be
    done = False
    for task in known:
        had = bound[task.name].cpus
        if had < old and task.placement.cpus == now:
            members = _present(task.pids, cgroups, scheduler)
            done |= _bind_unbound(members, now, relative(had, old, now), scheduler)
    return done


def _present(
    members: Iterable[int], cgroups: Sequence[Cgroup], scheduler: Slurm
) -> Callable[[], list[int]]:
    """Tells which of the job's processes are still in it: a number can be another's by now."""

    def tell() -> list[int]:
        inside = {pid for each in cgroups for pid in pids(each, scheduler.root)}
        return [pid for pid in members if pid in inside]

    return tell


def _bind_unbound(
    members: Callable[[], list[int]], now: CpuSet, cpus: CpuSet, scheduler: Slurm
) -> bool:
    """Threads that have found a binding of their own keep it."""
    bound = False
    for thread in members_threads(members, scheduler.root):
        # Where it fails its cpuset has changed again: the next look tells.
        with suppress(SchedhookError):
            if affinity(thread, scheduler.root) == now:
                bound |= bind(thread, cpus, scheduler.root)
    return bound


def job_cpus(cgroups: Sequence[Cgroup], tasks: Sequence[Task], scheduler: Slurm) -> CpuSet:
    """The job's processors: of its cpuset, or where Slurm makes none, what its tasks may use."""
    for cgroup in cgroups:
        if configured_cpus(cgroup):
            return effective_cpus(cgroup, scheduler.root)
    return _union(task.placement.cpus for task in tasks)


def cpus_of_nodes(scheduler: Slurm, job: str, nodes: NodeSet) -> CpuSet:
    """As many processors of `nodes` as the job has, spread over the nodes as evenly as the old ones
    are: first those that no other job has. UsageError where the nodes have too few."""
    cgroups = job_cgroups(job, scheduler.root, scheduler.host)
    tasks = scheduler.tasks(job)
    if not cgroups or not tasks:
        raise UsageError(f"job {job} has no process on this host")
    topology = read_topology(scheduler.root)
    number = len(job_cpus(cgroups, tasks, scheduler))
    taken = _union(cpus for _, cpus in _neighbours(scheduler, job))
    queues = [
        sorted(topology.cpus_of([node]), key=lambda cpu: (cpu in taken, cpu)) for node in nodes
    ]
    if sum(map(len, queues)) < number:
        raise UsageError(
            f"nodes {nodes} have {sum(map(len, queues))} processors, and job {job} has {number}"
        )
    chosen: list[int] = []
    while len(chosen) < number:
        for queue in queues:
            if queue and len(chosen) < number:
                chosen.append(queue.pop(0))
    return CpuSet(chosen)


# -- inside ----------------------------------------------------------------------------------


def _await_steps(scheduler: Slurm, job: str) -> None:
    """Let a step that is just starting bind its tasks first; see Slurm.starting."""
    end = time.monotonic() + _STEP_SECONDS
    while scheduler.starting(job) and time.monotonic() < end:
        time.sleep(_STEP_POLL_SECONDS)


def _move(
    scheduler: Slurm,
    cgroups: Sequence[Cgroup],
    *,
    levels: Callable[[str, CpuSet], CpuSet],
    top: CpuSet,
    bind: Callable[[int, CpuSet], CpuSet],
    move: Callable[[], None],
    tasks: Sequence[Task],
) -> CpuMove:
    tree = [
        level
        for cgroup in cgroups
        if configured_cpus(cgroup)
        for level in _levels(cgroup, levels, top)
    ]

    def everybody() -> list[int]:
        return sorted({pid for each in cgroups for pid in pids(each, scheduler.root)})

    # Where Slurm makes no cpuset slurmstepd shall stay what it is.
    tasks_only = _present([pid for task in tasks for pid in task.pids], cgroups, scheduler)
    return move_processors(tree, everybody if tree else tasks_only, bind, move, scheduler.root)


def _levels(
    job: Cgroup, target: Callable[[str, CpuSet], CpuSet], top: CpuSet
) -> Iterator[CpusetChange]:
    """Where Slurm has set a cpuset, from the top: on version 1 also for all the user's jobs."""
    if job.version == 1:
        user = replace(job, path=job.path.parent)
        if configured_cpus(user):
            yield CpusetChange(cgroup=user, cpus=top, stays_wide=True)
    yield CpusetChange(cgroup=job, cpus=top)
    for step, path in step_directories(job).items():
        for cgroup in subtree(replace(job, path=path)):
            cpus = configured_cpus(cgroup)
            if cpus:
                yield CpusetChange(cgroup=cgroup, cpus=target(step, cpus))


def _check_cpus(cpus: CpuSet, cgroups: Sequence[Cgroup], scheduler: Slurm) -> None:
    if not cpus:
        raise UsageError("the set of processors is empty; write it like 0-3,8")
    online = read_online_cpus(scheduler.root)
    if cpus - online:
        raise UsageError(f"processor {cpus - online} is not online; online are {online}")
    for job in cgroups:
        # On version 1 the user's directory between is Slurm's too, and is widened with the job's.
        above = job.path.parents[1] if job.version == 1 else job.path.parent
        allowed = effective_cpus(replace(job, path=above), scheduler.root)
        if configured_cpus(job) and cpus - allowed:
            raise RefusedError(f"{above} allows processors {allowed}, not {cpus - allowed}")


def _check_room(plans: Sequence[Plan]) -> None:
    """Each plan was found to fit by itself; here they are taken together."""
    change: dict[int, int] = {}
    for plan in plans:
        for (old, new), size in plan.moves.items():
            change[new] = change.get(new, 0) + size
            change[old] = change.get(old, 0) - size
    for plan in plans:
        for node, free in plan.free.items():
            if change.get(node, 0) > max(free - plan.reserve, 0):
                raise RefusedError(
                    f"node {node} has no room: {change[node] / _MIB:.1f} MiB would arrive,"
                    f" {free / _MIB:.1f} MiB are free and {plan.reserve / _MIB:.1f} MiB of them"
                    " are kept in reserve"
                )


def _notes(scheduler: Slurm, job: str, old: CpuSet, new: CpuSet) -> Iterator[str]:
    if len(new) < len(old):
        yield f"{len(old)} processors become {len(new)}: some tasks share one now"
    for other, cpus in _neighbours(scheduler, job):
        if cpus & new:
            yield f"processors {cpus & new} are job {other}'s too"


def _neighbours(scheduler: Slurm, job: str) -> Iterator[tuple[str, CpuSet]]:
    """Other jobs here that have processors of their own, and these."""
    for other in scheduler.jobs():
        if other != job:
            of_each = (configured_cpus(each) for each in job_cgroups(other, scheduler.root))
            cpus = _union(of_each)
            if cpus:
                yield other, cpus


def _union(sets: Iterable[CpuSet]) -> CpuSet:
    return CpuSet(cpu for each in sets for cpu in each)
