"""What commands do with a profile: read a log, and find the accesses of their processes in it."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from schedhook.host import cgroups
from schedhook.host.topology import Topology, read_topology
from schedhook.jobs.lookup import find_job
from schedhook.migration.profiling.reading import read_profile
from schedhook.migration.profiling.summary import Taken
from schedhook.migration.profiling.survey import Survey, survey
from schedhook.plugins.manager import Plugins
from schedhook.roles.guidance import Guidance
from schedhook.roles.request import Request
from schedhook.values.errors import UsageError


def read_guidance(log: str, request: Request, plugins: Plugins, root: Path) -> Guidance:
    """Return the accesses of the request's processes in a log, for a strategy.

    Raise UsageError if the log cannot be read, or has no usable sample of them.
    """
    topology = read_topology(root)
    taken = read_log(log, topology, {})
    members = request.pids or find_members(
        request.cgroup, request.job, request.scheduler, plugins, root
    )
    found = survey_members(taken, log, members, topology, root)
    return Guidance(accesses=found.accesses, nodes=found.nodes)


def read_log(log: str, topology: Topology, how: Mapping[str, Any]) -> Taken:
    """Read a log, `-` being standard input; `how` are options of `read_profile`.

    Raise UsageError if it cannot be read, or has no usable sample.
    """
    try:
        with _open(log) as file:
            profile, tally = read_profile(file, topology, **how)
            return Taken(profile, tally, _last_written(file), None)
    except OSError as error:
        remedy = "name a file with a profiler's log, or - for standard input"
        raise UsageError(f"cannot read {log}: {error.strerror}; {remedy}") from error


def find_members(
    cgroup: str | None, job: str | None, scheduler: str | None, plugins: Plugins, root: Path
) -> tuple[int, ...]:
    """Return the processes of the cgroup or of the job."""
    if cgroup is not None:
        return tuple(cgroups.pids(cgroups.resolve_cgroup(cgroup, root), root))
    assert job is not None
    return find_job(plugins, job, scheduler, root).pids


def survey_members(
    taken: Taken, name: str, members: tuple[int, ...], topology: Topology, root: Path
) -> Survey:
    """Return the accesses of `members`; raise UsageError if there are none in the log `name`."""
    found = survey(taken.profile, members, topology, recorded=taken.ended, root=root)
    if not any(each.total for each in found.accesses.values()):
        hint = taken.recording.explain_empty() if taken.recording else ""
        raise UsageError(
            f"{name}: no usable sample of these processes: {found.gone} are of processes that have"
            f" exited, {found.others} of other processes; record these while they run{hint}"
        )
    return found


def _open(log: str) -> BinaryIO:
    return sys.stdin.buffer if log == "-" else Path(log).open("rb")


def _last_written(log: BinaryIO) -> float | None:
    """Return when the log was last written, in seconds since the epoch; None if it is no file."""
    try:
        found = os.fstat(log.fileno())
    except OSError:
        return None
    return found.st_mtime if stat.S_ISREG(found.st_mode) else None
