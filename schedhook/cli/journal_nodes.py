"""The nodes of `relocate --job` without --from and --to: from the journal, and where it is now."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from schedhook.host.topology import read_topology
from schedhook.jobs.lookup import find_tasks
from schedhook.journal.errors import JournalError
from schedhook.journal.file import journal_path
from schedhook.journal.journal import Journal
from schedhook.journal.placements import KnownTask
from schedhook.plugins.manager import Plugins
from schedhook.roles.request import Request
from schedhook.values.config import Config
from schedhook.values.errors import UsageError
from schedhook.values.sets import NodeSet

_NAME_THEM = "name the nodes: --to (and --from), or --map, or --cpus, or --home"


def with_nodes_of_journal(
    request: Request, config: Config, plugins: Plugins, root: Path
) -> Request:
    """Return the request with the job's old nodes by the journal, and those it has now.

    Raise UsageError if the journal does not know the job, or if its tasks have moved differently.
    """
    assert request.job is not None
    scheduler, tasks = find_tasks(plugins, request.job, request.scheduler, root)
    known = _known(scheduler, request.job, config)
    ways = set[tuple[NodeSet, NodeSet]]()
    for task in tasks:
        if task.name in known and task.placement.nodes:
            ways.add((known[task.name].old_nodes(task.placement.nodes), task.placement.nodes))
    if not ways:
        raise UsageError(f"the journal has no placement of job {request.job}; {_NAME_THEM}")
    if len(ways) > 1:
        raise UsageError(
            f"the tasks of job {request.job} have different nodes, old or new; {_NAME_THEM}"
        )
    ((old, new),) = ways
    destinations = read_topology(root).preferred(new)
    return replace(request, scheduler=scheduler, sources=old or new, destinations=destinations)


def _known(scheduler: str, job: str, config: Config) -> dict[str, KnownTask]:
    try:
        with Journal.open(journal_path(config), create=False) as journal:
            return journal.placements.known_tasks(scheduler, job)
    except JournalError as error:
        raise UsageError(f"{error}; without it, {_NAME_THEM}") from error
