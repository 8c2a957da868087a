"""A job's fence, the nodes of its cpuset: widened while memory is parked, restored afterwards.

The job's cgroup is widened before memory moves and narrowed after it has left. With cgroups of
version 2 a narrower cpuset.mems makes the kernel move pages itself, and it kills the job if they
do not fit. A wider one makes it rebind the job's memory policies if it shifts the rank of a node
that they name.
"""

from __future__ import annotations

from collections.abc import Mapping

from schedhook.control.cpusets import write_nodes
from schedhook.host.cgroups import configured_nodes
from schedhook.host.vanishing import read_living
from schedhook.migration.policies import read_policies
from schedhook.values.errors import RefusedError
from schedhook.values.policy import Policy, unwanted_changes
from schedhook.values.sets import NodeSet
from schedhook.values.text import join_some
from schedhook_plugins.schedulers.pbs.jobs import PbsJobs
from schedhook_plugins.schedulers.pbs.notes import Fence


def allow_nodes(jobs: PbsJobs, job: str, nodes: NodeSet) -> bool:
    """Widen the job's cpuset.mems by `nodes`; return whether it is wider than PBS wrote it.

    Raise RefusedError if that would change memory policies of the job.
    """
    cpuset = jobs.cpuset(job)
    now = configured_nodes(cpuset) if cpuset else NodeSet()
    widened = _current(jobs, job, now)
    if cpuset is None or not now or nodes <= now:
        return widened is not None
    if changes := changed_policies(jobs, job, now, now | nodes, {}):
        raise RefusedError(
            f"with cpuset.mems {now | nodes} the kernel would change the job's memory policies:"
            f" {join_some(sorted(changes), 3)}"
        )
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


def changed_policies(
    jobs: PbsJobs, job: str, before: NodeSet, after: NodeSet, pairs: Mapping[int, int]
) -> set[str]:
    """Return what a change of cpuset.mems would do to the job's policies; see unwanted_changes."""
    policies: set[Policy] = set()
    for _, its in read_living(jobs.pids(job), lambda pid: read_policies(pid, jobs.root)):
        policies |= its.policies()
    return unwanted_changes(policies, before, after, pairs)


def _current(jobs: PbsJobs, job: str, now: NodeSet) -> Fence | None:
    fence = jobs.notes.fence(job)
    return fence if fence is not None and fence.wide == str(now) else None
