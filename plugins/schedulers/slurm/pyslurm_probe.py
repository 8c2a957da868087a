"""A job's number and hosts as pyslurm 25.11 tells them, read in a process of its own.

libslurm ends the whole process if it finds no configuration, which no `except` catches.

    python -m schedhook_plugins.schedulers.slurm.pyslurm_probe JOB        one JSON object on stdout
    python -m schedhook_plugins.schedulers.slurm.pyslurm_probe --version

Exit status 3: Slurm knows no such job; 4: the number is that of an array or of a heterogeneous job,
of which pyslurm tells only one member. pyslurm is GPL-2.0-only; only this module imports it, at run
time, on sites that have installed it.
"""

from __future__ import annotations

import json
import sys
from typing import Any

NO_SUCH_JOB = 3
SEVERAL_JOBS = 4


def describe(job: Any) -> dict[str, Any]:
    """Return what the query needs of a `pyslurm.Job`: its number, and `hosts` in Slurm's format."""
    return {"number": job.id, "hosts": job.allocated_nodes or ""}


def is_member(job: Any) -> bool:
    """Return whether a `pyslurm.Job` is an array's element or a heterogeneous job's component."""
    return bool(getattr(job, "array_id", None) or getattr(job, "heterogeneous_id", None))


def main(arguments: list[str]) -> int:
    """Print the job or pyslurm's version and return the exit status."""
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
    if is_member(found):
        print("it is one of several jobs", file=sys.stderr)
        return SEVERAL_JOBS
    print(json.dumps(describe(found)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
