"""A job without Slurm, in cgroups as Slurm makes them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from unittest.mock import patch

from tests.numa.jobs import CGROUPS, Job, until

SCOPE = CGROUPS / "system.slice" / "slurmstepd.scope"


@contextmanager
def slurm_job(
    job: str,
    mib: int,
    nodes: tuple[int, ...] = (0, 1),
    *,
    memory: tuple[int, ...] | None = None,
    variables: Mapping[str, str] = {},
    prefix: Sequence[str] = (),
    kind: str = "anon",
) -> Iterator[tuple[Path, list[Job]]]:
    """Yield a job's cgroup and its tasks, each with a processor and `mib` MiB on its node.

    With `memory` the MiB are on those nodes instead.

    Tasks have also these `variables` in their environment; `prefix` is a command that runs them.
    """
    leaf = SCOPE / f"job_{job}" / "step_0" / "user" / "task_special"
    for path in reversed((leaf, *leaf.parents)):
        if path.is_relative_to(CGROUPS) and path != leaf:
            path.mkdir(exist_ok=True)
            (path / "cgroup.subtree_control").write_text("+cpuset +memory")
    leaf.mkdir()
    cgroup = SCOPE / f"job_{job}"
    (cgroup / "cpuset.cpus").write_text(",".join(map(str, nodes)))
    tasks = []
    try:
        with ExitStack() as stack:
            for rank, (node, filled) in enumerate(zip(nodes, memory or nodes, strict=True)):
                with patch.dict(os.environ, variables, SLURM_PROCID=str(rank)):
                    task = Job(kind, mib, filled, cgroup=leaf, prefix=prefix)
                    stack.enter_context(task)
                os.sched_setaffinity(task.pid, {node})
                tasks.append(task)
            yield cgroup, tasks
    finally:
        for path in (leaf, *leaf.parents[:3]):
            until(lambda path=path: not (path / "cgroup.procs").read_text().strip())
            path.rmdir()
        with suppress(OSError):  # other tests may have jobs or services there
            SCOPE.rmdir()
            SCOPE.parent.rmdir()
