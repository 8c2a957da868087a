"""A job's hosts as pyslurm 25.11 tells them, read in a process of its own.

libslurm ends the whole process if it finds no configuration, which no `except` catches.

    python -m schedhook_plugins.schedulers.slurm.pyslurm_probe JOB        one JSON object on stdout
    python -m schedhook_plugins.schedulers.slurm.pyslurm_probe --version

Exit status 3: Slurm knows no such job. pyslurm is GPL-2.0-only; only this module imports it, at run
time, on sites that have installed it.
"""

from __future__ import annotations

import json
import sys
from typing import Any

NO_SUCH_JOB = 3


def describe(job: Any) -> dict[str, Any]:
    """Return what the query needs of a `pyslurm.Job`: `hosts`, a list in Slurm's format."""
    return {"hosts": job.allocated_nodes or ""}


def main(arguments: list[str]) -> int:
    """Print the job's hosts or pyslurm's version and return the exit status."""
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
