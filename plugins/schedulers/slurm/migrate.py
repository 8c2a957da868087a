"""Give a Slurm job other processors on this host, and its memory with them.

Each task keeps its place within the job: what was bound to the job's n-th processor is bound to
the n-th of the new ones, and its memory follows from node to node along the same pairs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace

from schedhook.control.cpu_map import relative
from schedhook.host.cgroups import Cgroup, configured_cpus
from schedhook.host.topology import read_cores, read_topology
from schedhook.roles.request import Relocate
from schedhook.roles.scheduler import Task
from schedhook.values.errors import RefusedError, SchedhookError, UsageError
from schedhook.values.model import Placement, Report
from schedhook.values.nodemap import in_order
from schedhook.values.sets import CpuSet, NodeSet
from schedhook.values.text import join_some
from schedhook_plugins.schedulers.slurm.adapter import HostJobs
from schedhook_plugins.schedulers.slurm.cpu_tree import (
    check_cpus,
    job_cpus,
    move_job,
    started_steps,
    step_names,
    union,
)
from schedhook_plugins.schedulers.slurm.memory import JobMemory
from schedhook_plugins.schedulers.slurm.node_pairs import node_pairs

_STEP_SECONDS = 30.0
_STEP_POLL_SECONDS = 0.1
_ENDED = "the job ended while it was moved"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobMove:
    """What was done to give a job other processors."""

    job: str
    old: Placement
    new: Placement
    """What was asked for, whether it was reached or not."""
    failure: str | None = None
    """Why the job has its old processors and bindings; None if it has the new ones."""
    not_restored: tuple[str, ...] = ()
    """After a failure: the processors and bindings that could not be put back."""
    reports: tuple[Report, ...] = ()
    """Of the memory. After a failure they tell what had moved by then."""
    notes: tuple[str, ...] = ()
    before: tuple[Task, ...] = ()
    after: tuple[Task, ...] = ()

    @property
    def done(self) -> bool:
        """Whether the job has the new processors."""
        return self.failure is None


def migrate(
    here: HostJobs,
    job: str,
    cpus: CpuSet,
    relocate: Relocate,
    *,
    dry_run: bool = False,
    begin: Callable[[JobMove], None] = lambda _: None,
) -> JobMove:
    """Move the job on this host to the processors `cpus` and return what was done.

    `relocate` is the pipeline; `begin` is called before anything changes. Raise UsageError if the
    job has no process here, or if `cpus` is empty or not online, RefusedError if the job's cpusets
    cannot have them. A later failure is reported in the result.
    """
    none_starts = _await_steps(here, job)
    cgroups, before = _find(here, job)
    steps = started_steps(cgroups, here.root) if none_starts else step_names(cgroups)
    old = job_cpus(cgroups, before, here.root)
    check_cpus(cpus, cgroups, here.root)
    move = JobMove(
        job=job,
        old=here.placement(old),
        new=here.placement(cpus),
        before=before,
        notes=tuple(_notes(here, job, old, cpus)),
    )
    topology = read_topology(here.root)
    pairs = ((task, node_pairs(task.placement.cpus, old, cpus, topology)) for task in before)
    memory = JobMemory(job, here.root, relocate, in_order(pairs))
    try:
        planned = memory.plan()
    except SchedhookError as error:
        return replace(move, failure=str(error), after=before)
    if dry_run:
        return replace(move, reports=planned, after=before)
    begin(move)
    try:
        result = move_job(
            cgroups,
            before,
            steps=steps,
            cpus=cpus,
            step_cpus=lambda _step, now: relative(now, old, cpus),
            bind=lambda _pid, had: relative(had, old, cpus),
            move_memory=memory.move,
            root=here.root,
        )
    except BaseException:  # Ctrl-C as well: processors and bindings have been put back
        with suppress(Exception):  # the first error tells what went wrong
            memory.move_back()
        raise
    after = here.tasks(job)
    if not after:
        return replace(move, failure=_ENDED, reports=tuple(memory.reports))
    back = memory.move_back() if result.failure else ""
    return replace(
        move,
        failure=result.failure,
        not_restored=result.not_restored,
        reports=tuple(memory.reports),
        notes=(*move.notes, *filter(None, [back])),
        after=after,
    )


def check_later_steps(here: HostJobs, job: str, cpus: CpuSet) -> None:
    """Raise RefusedError if Slurm could start no further step of the job once it had these.

    When a step starts, Slurm writes the processors that it granted into the job's cpuset. With
    cgroups of version 1 the kernel refuses that (EBUSY, validate_change_legacy() in cpuset.c) while
    a cpuset below has others: srun fails, and the job with it.
    """
    for cgroup in here.cgroups(job):
        granted = configured_cpus(cgroup)
        if cgroup.version == 1 and granted and not cpus <= granted:
            raise RefusedError(
                f"with cgroups of version 1 Slurm can start no further step (srun) of job {job}"
                f" once it has other processors than {granted}; --force moves it all the same"
            )


def check_free(here: HostJobs, job: str, cpus: CpuSet) -> None:
    """Raise RefusedError if another job on this host has any of these processors."""
    shared = [f"job {other} has {its & cpus}" for other, its in other_jobs(here, job) if its & cpus]
    if shared:
        raise RefusedError(f"processors {cpus} are not free: {join_some(shared)}")


def _find(here: HostJobs, job: str) -> tuple[tuple[Cgroup, ...], tuple[Task, ...]]:
    """Return the job's cgroups and tasks. Raise UsageError if it has no process here."""
    cgroups, tasks = here.cgroups(job), here.tasks(job)
    if not cgroups or not tasks:
        raise UsageError(f"job {job} has no process on this host; squeue says where it runs")
    return cgroups, tasks


def cpus_of_nodes(here: HostJobs, job: str, nodes: NodeSet) -> CpuSet:
    """Return as many processors of `nodes` as the job has, spread evenly over the nodes.

    Cores are kept whole, as Slurm allots them, and those that no other job has come first. Raise
    UsageError if the nodes have too few.
    """
    cgroups, tasks = _find(here, job)
    topology = read_topology(here.root)
    number = len(job_cpus(cgroups, tasks, here.root))
    taken = union(cpus for _, cpus in other_jobs(here, job))
    available = len(topology.cpus_of(nodes))
    if available < number:
        raise UsageError(f"nodes {nodes} have {available} processors, and job {job} has {number}")
    cores = {node: read_cores(topology.cpus_of([node]), here.root) for node in nodes}
    chosen = CpuSet()
    while True:
        for node in nodes:
            if len(chosen) == number:
                return chosen
            # Less those that are chosen for another node: with `numa=fake` it may have them, too.
            left = [core - chosen for core in cores[node] if core - chosen]
            if left:
                core = min(left, key=lambda core: (bool(core & taken), min(core)))
                chosen = chosen | list(core)[: number - len(chosen)]


def _await_steps(here: HostJobs, job: str) -> bool:
    """Wait until the tasks of each starting step are bound; see HostJobs.starting.

    Return whether they are: after 30 seconds a step that seems to start is taken for one that ends.
    """
    end = time.monotonic() + _STEP_SECONDS
    while starting := here.starting(job):
        if time.monotonic() >= end:
            break
        time.sleep(_STEP_POLL_SECONDS)
    return not starting


def _notes(here: HostJobs, job: str, old: CpuSet, new: CpuSet) -> Iterator[str]:
    if len(new) < len(old):
        yield f"{len(old)} processors become {len(new)}: some tasks now share one"
    for other, cpus in other_jobs(here, job):
        if cpus & new:
            yield f"job {other} has processors {cpus & new} too"


def other_jobs(here: HostJobs, job: str) -> Iterator[tuple[str, CpuSet]]:
    """Yield each other job on this host that has a cpuset of its own, and its processors."""
    for other in here.allocated():
        if other != job:
            cpus = union(configured_cpus(cgroup) for cgroup in here.cgroups(other))
            if cpus:
                yield other, cpus
