"""A job's fence, the nodes of its cpuset: widened while memory is parked, restored afterwards.

The job's cgroup is widened before memory moves and narrowed after it has left. With cgroups of
version 2 a narrower cpuset.mems makes the kernel move pages itself, and it kills the job if they
do not fit.
"""

from __future__ import annotations

from schedhook.control.cpusets import write_nodes
from schedhook.host.cgroups import configured_nodes
from schedhook.values.sets import NodeSet
from schedhook_plugins.schedulers.pbs.jobs import PbsJobs
from schedhook_plugins.schedulers.pbs.notes import Fence


def allow_nodes(jobs: PbsJobs, job: str, nodes: NodeSet) -> bool:
    """Widen the job's cpuset.mems by `nodes`; return whether it is wider than PBS wrote it."""
    cpuset = jobs.cpuset(job)
    now = configured_nodes(cpuset) if cpuset else NodeSet()
    widened = _current(jobs, job, now)
    if cpuset is None or not now or nodes <= now:
        return widened is not None
    before = widened.before if widened else str(now)
    # Recorded first: if this process is killed, it is known how to narrow it again.
    jobs.notes.set_fence(job, Fence(before=before, wide=str(now | nodes)))
    write_nodes(cpuset, now | nodes)
    return True


def restore_nodes(jobs: PbsJobs, job: str) -> None:
    """Narrow the job's cpuset.mems to what it was, unless PBS has written it since."""
    cpuset = jobs.cpuset(job)
    widened = _current(jobs, job, configured_nodes(cpuset)) if cpuset else None
    if cpuset is not None and widened is not None:
        write_nodes(cpuset, NodeSet.parse(widened.before))
    jobs.notes.set_fence(job, None)


def _current(jobs: PbsJobs, job: str, now: NodeSet) -> Fence | None:
    fence = jobs.notes.fence(job)
    return fence if fence is not None and fence.wide == str(now) else None
