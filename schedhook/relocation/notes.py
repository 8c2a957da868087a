"""The notes for people that the pipeline adds to a report, besides refusals and failures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress

from schedhook.host.topology import Topology
from schedhook.migration.objects import Unread
from schedhook.migration.policies import ProcessPolicies, count_policies
from schedhook.migration.processes import MovingProcess
from schedhook.values.errors import ProcessGoneError
from schedhook.values.model import NodeMap, Plan
from schedhook.values.room import Room
from schedhook.values.sets import NodeSet
from schedhook.values.sizes import MIB
from schedhook.values.text import join_some

BY_PAGE = "by-page"
"""The mapper's name in reports if a function chooses the node of each page."""
POLICIES_BY_PAGE = (
    "memory policies stay as they are: each page goes to a node of its own, so no node map says"
    " which node takes the place of an old one; relocate processes of the same nodes together"
)
RECOVERED = "an earlier relocation was killed; its changes were rolled back first"


def note_on_one_node(nodes: NodeSet) -> str:
    """Return the note for a host on which memory cannot move."""
    return f"this host has one NUMA node with memory ({nodes}): there is nowhere to move to"


def notes_on_map(node_map: NodeMap) -> list[str]:
    """Return what the mapper has to say about the map."""
    return [node_map.note] if node_map.note else []


def notes_on_gpus(plan: Plan, topology: Topology) -> list[str]:
    """Return a warning if memory goes to nodes that are memory of GPUs."""
    gpus = (plan.node_map.destinations | (new for _, new in plan.moves)) & topology.gpu_nodes
    if not gpus:
        return []
    return [
        f"node {gpus} is memory of a GPU: programs on the GPU may run out of it, and processors"
        " reach it slowly"
    ]


def notes_on_memory(processes: Sequence[MovingProcess]) -> list[str]:
    """Return notes on memory that the bytes of the report leave out."""
    notes, swapped = list[str](), 0
    for process in processes:
        with suppress(ProcessGoneError):
            swapped += process.target.swapped()
    if swapped:
        notes.append(
            f"{swapped / MIB:.1f} MiB are in swap, on no node, and are not counted; they return"
            " to nodes that the process may use at that time"
        )
    notes += [process.target.no_answer for process in processes if process.target.no_answer]
    return notes + [
        f"process {process.pid} has no memory of its own: it uses that of process"
        f" {process.memory_owner_pid}, with which it is counted"
        for process in processes
        if process.memory_owner_pid is not None
    ]


def notes_on_policies(left: Iterable[ProcessPolicies], destinations: NodeSet) -> list[str]:
    """Return notes on memory policies that are left behind, and on those not read."""
    left = list(left)
    notes, count = list[str](), count_policies(left)
    if count:
        names = {str(policy) for each in left for policy in each.policies()}
        listed = join_some(sorted(names), 3)
        notes.append(
            f"the memory policy of {count} names an old node ({listed}): new memory can come from"
            f" there, not only from node {destinations}"
        )
    if unread := sum(each.unread for each in left):
        notes.append(f"the memory policies of {unread} threads could not be read")
    return notes


def note_on_upper_bounds() -> str:
    """Return the note for pages of which nothing told whether they are the same."""
    return (
        "processes of this request share pages since fork(2), and without CAP_SYS_ADMIN the kernel"
        " does not say which: they are counted in each process, so all sizes are upper bounds"
    )


def notes_on_objects(unread: Sequence[Unread]) -> list[str]:
    """Return the note on shared-memory objects that could not be looked into."""
    if not unread:
        return []
    pids = ", ".join(str(pid) for pid in sorted({each.pid for each in unread}))
    return [
        f"pages that no process maps, of shared memory of process {pids}, stay where they are:"
        f" {unread[0].why}"
    ]


def note_on_empty_plan(plan: Plan) -> str:
    """Return why a plan moves nothing."""
    if sources := plan.node_map.sources:
        return f"nothing lies on node {sources}"
    if plan.node_map.mapper == BY_PAGE:
        return "the strategy leaves every page where it is"
    return "the node map moves nothing"


def note_on_reserve(plan: Plan, rooms: Iterable[Room]) -> str:
    """Return why a move stopped before the new nodes were full; `rooms` are as they are now."""
    short = min(
        (room for room in rooms if room.is_entered(plan.moves)), key=lambda room: room.balance
    )
    return (
        f"the move stopped because node {short.nodes} has {short.size / MIB:.1f} MiB left, of"
        f" which {short.reserve / MIB:.1f} MiB are kept in reserve, and cgroups that can allocate"
        f" nowhere else may still take {short.claimed / MIB:.1f} MiB"
    )


def note_on_what_is_left_out(size: int) -> str:
    """Return the note on the part of a job that stays so that jobs can trade places."""
    return (
        f"{size / MIB:.1f} MiB stay where they are: with them, a node would become fuller than it"
        " was, and less than the reserve would be free there"
    )


def note_on_new_program(process: MovingProcess) -> str:
    """Return the note for a process of which the old memory is gone."""
    return f"process {process.pid} became another program during the relocation"
