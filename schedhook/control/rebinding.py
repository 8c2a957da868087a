"""Let memory policies follow a relocation: the old nodes that they name become the new ones."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path

from schedhook.control.kernel_policies import get_policy, set_policy
from schedhook.control.process_rebinding import (
    Change,
    Ledger,
    ProcessRebinding,
    areas_to_rebind,
    threads_to_rebind,
)
from schedhook.control.remote import RemoteProcess, Visit
from schedhook.control.restorers import Restorers
from schedhook.roles.backend import Target
from schedhook.values.errors import ProcessGoneError, RefusedError, SchedhookError
from schedhook.values.model import NodeMap

_TRIES = 3


class Rebinding:
    """The policies that one node map has rebound."""

    def __init__(self, node_map: NodeMap, root: Path = Path("/")) -> None:
        self._root = root
        self._restorers = Restorers(root)
        self._ledger = Ledger(node_map.moves, node_map.overlaps)
        self._late = False
        self._refused: dict[str, list[int]] = {}

    def follow(self, targets: Iterable[Target]) -> None:
        """Rebind all policies of the processes that name an old node.

        What cannot be rebound stays as it is, and `notes` say why. A second call does what is left,
        and what has appeared since: but if old and new nodes overlap, it leaves a policy alone that
        may have been inherited from a thread that was rebound.
        """
        self._refused.clear()
        for target in targets:
            try:
                self._follow_programs(target)
            except RefusedError as refusal:
                self._refused.setdefault(str(refusal), []).append(target.pid)
        self._late = True

    def undo(self) -> None:
        """Give threads and areas their old policies back, unless they have got others since."""
        changes = self._ledger.changes
        for pid in dict.fromkeys(change.thread.pid for change in changes):
            with suppress(SchedhookError), self._remote(pid) as remote:
                for change in reversed(changes):
                    if change.thread.pid == pid:
                        with suppress(SchedhookError):
                            remote.visit(change.thread, partial(_undo, change))
        changes.clear()

    def notes(self) -> list[str]:
        """Return sentences for the report: what was rebound, and what was not, and why."""
        notes = []
        if changes := self._ledger.changes:
            areas = sum(change.area is not None for change in changes)
            notes.append(
                f"the memory policies of {len(changes) - areas} threads and {areas} areas follow"
            )
        for why, pids in self._refused.items():
            more = f" and {len(pids) - 1} more" if len(pids) > 1 else ""
            notes.append(f"memory policies of process {pids[0]}{more} stay as they are: {why}")
        return notes

    def _follow_programs(self, target: Target) -> None:
        """Rebind the process, and again if it became another program, which has its policy."""
        for _ in range(_TRIES):
            try:
                return self._follow(target)
            except ProcessGoneError:
                if not target.alive():
                    return None
        raise RefusedError("it became another program each time")

    def _follow(self, target: Target) -> None:
        moves, areas = self._ledger.moves, target.areas()
        threads = threads_to_rebind(target, areas, moves, self._root)
        if not threads and not areas_to_rebind(areas, moves):
            return
        if target.memory_owner_pid() is not None:
            raise RefusedError("it has yet to run a program, after vfork(2)")
        with self._remote(target.pid) as remote:
            ProcessRebinding(target, remote, self._ledger, self._root).rebind(late=self._late)

    def _remote(self, pid: int) -> RemoteProcess:
        return RemoteProcess(pid, self._restorers, self._root)


def _undo(change: Change, visit: Visit) -> None:
    if get_policy(visit, change.area) == change.new:
        set_policy(visit, change.old, change.area)
