"""A job without Slurm, in cgroups as Slurm makes them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from unittest.mock import patch

from tests.numa.jobs import CGROUPS, Job, until

SCOPE = CGROUPS / "system.slice" / "slurmstepd.scope"


@contextmanager
def slurm_job(
    job: str, mib: int, nodes: tuple[int, int] = (0, 1)
) -> Iterator[tuple[Path, list[Job]]]:
    """Yield a job's cgroup and its two tasks, each with a processor and `mib` MiB on its node."""
    leaf = SCOPE / f"job_{job}" / "step_0" / "user" / "task_special"
    for path in reversed((leaf, *leaf.parents)):
        if path.is_relative_to(CGROUPS) and path != leaf:
            path.mkdir(exist_ok=True)
            (path / "cgroup.subtree_control").write_text("+cpuset")
    leaf.mkdir()
    cgroup = SCOPE / f"job_{job}"
    (cgroup / "cpuset.cpus").write_text(",".join(map(str, nodes)))
    tasks = []
    with ExitStack() as stack:
        for rank, node in enumerate(nodes):
            with patch.dict(os.environ, SLURM_PROCID=str(rank)):
                task = stack.enter_context(Job("anon", mib, node, cgroup=leaf))
            os.sched_setaffinity(task.pid, {node})
            tasks.append(task)
        yield cgroup, tasks
    for path in (leaf, *leaf.parents[:3]):
        until(lambda path=path: not (path / "cgroup.procs").read_text().strip())
        path.rmdir()
    with suppress(OSError):  # other tests may have jobs or services there
        SCOPE.rmdir()
        SCOPE.parent.rmdir()
