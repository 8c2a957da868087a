"""A job as pyslurm 25.11 tells it: run in a process of its own, since libslurm ends the whole
process where it finds no configuration, which no `except` catches.

    python -m schedhook_plugins.schedulers.slurm.pyslurm_probe JOB        one JSON object on stdout
    python -m schedhook_plugins.schedulers.slurm.pyslurm_probe --version

Exit status 3: Slurm knows no such job. pyslurm is GPL-2.0-only; it is imported here and nowhere
else, at run time, where a site has installed it.
"""

from __future__ import annotations

import json
import sys
from typing import Any

NO_SUCH_JOB = 3


def describe(job: Any) -> dict[str, Any]:
    """What the queries need of a `pyslurm.Job`, in words of JSON. Memory is MiB."""
    layout = job.get_resource_layout_per_node() or {}
    return {
        "job": job.id,
        "user_id": job.user_id,
        "user_name": job.user_name,
        "state": job.state,
        "hosts": job.allocated_nodes or "",
        "allocated": {
            str(host): {"cpu_ids": its.get("cpu_ids") or "", "memory": its.get("memory")}
            for host, its in layout.items()
        },
    }


def main(arguments: list[str]) -> int:
    """Print what was asked for."""
    import pyslurm  # type: ignore[import-not-found]  # noqa: PLC0415 - may end the process

    if arguments == ["--version"]:
        print(getattr(pyslurm, "__version__", "unknown version"))
        return 0
    (job,) = arguments
    try:
        found = pyslurm.Job.load(int(job))
    except pyslurm.PyslurmError as error:
        print(error, file=sys.stderr)
        return NO_SUCH_JOB if "Invalid job id" in str(error) else 1
    print(json.dumps(describe(found)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
