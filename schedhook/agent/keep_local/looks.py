"""Glances at all watched jobs in turn, and an event for the one that is worth a closer look."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from schedhook.agent.keep_local.glance import JobGlances
from schedhook.agent.keep_local.record import count_gains, restore
from schedhook.agent.keep_local.work import KEEPS_LOCAL
from schedhook.agent.keeper.keeper import SETTLE_SECONDS, JobKey, JobState, Keeper
from schedhook.agent.records import Records
from schedhook.agent.watched_job import WatchedJob
from schedhook.host.topology import Topology, read_topology
from schedhook.roles.scheduler import EventKind
from schedhook.values.config import Config
from schedhook.values.errors import PLUGIN_ERRORS
from schedhook.values.model import Event

_COUNT_SECONDS = 60.0
_SAME_NODES_SECONDS = 60.0
"""How soon new nodes, and processors that came or went, are noticed."""
_TURN_SECONDS = 4 * 3600.0
"""After so long another job is dealt with: a process can keep the reader of its page tables."""
_UNSEEN_SECONDS = 86_400.0
"""A job may have no cgroup between two steps; what is known of it is dropped when its end is told,
or after this time."""


class LocalLooks:
    """Looks for off-node memory, in the agent's own thread. Times are of time.monotonic().

    `emit` gets the events, of one job at a time; `finished` must be told when it was handled.
    """

    def __init__(
        self,
        keeper: Keeper,
        config: Config,
        records: Records,
        emit: Callable[[Event], None],
        root: Path = Path("/"),
    ) -> None:
        self._keeper = keeper
        self._config = config
        self._records = records
        self._emit = emit
        self._root = root
        self._open: dict[JobKey, JobGlances] = {}
        self._due: dict[JobKey, float] = {}
        self._wanted: dict[JobKey, int] = {}
        """Jobs that are worth a closer look, with their off-node bytes."""
        self._topology: tuple[float, Topology] | None = None
        self._next_count = self._turn_ends = 0.0

    def tick(self, now: float, jobs: Iterable[WatchedJob]) -> None:
        """Glance at the jobs that are due, and let one of those that are worth it be dealt with."""
        if not self._config.actions.may_keep_local:
            return
        present = set()
        for watched in jobs:
            present.add(watched.key)
            if watched.key not in self._due:
                # Spread over the interval, so that one tick does not read all jobs.
                self._due[watched.key] = now + hash(watched.job) % 64 / 64 * self._interval
                if watched.key not in self._keeper.jobs:
                    restore(self._records, watched.key, self._keeper.state(watched.key))
            if now >= self._due[watched.key] and watched.key != self._keeper.turn:
                self._glance(watched, now)
        for key in [key for key in self._due if key not in present]:
            self._forget(key)
        self._choose(now)
        if now >= self._next_count:
            self._next_count = now + _COUNT_SECONDS
            count_gains(self._records, self._keeper.take_gains())
            self._keeper.forget_unseen(now - _UNSEEN_SECONDS, present)

    def finished(self, event: Event) -> None:
        """Note that an event was handled; if it was that of the job in turn, another one may go."""
        if event.data.get(KEEPS_LOCAL) and self._keeper.turn == (event.scheduler, event.job):
            self._keeper.turn = None

    def close(self) -> None:
        """Close all files."""
        for key in list(self._due):
            self._forget(key)
        count_gains(self._records, self._keeper.take_gains())

    @property
    def _interval(self) -> float:
        return self._config.keep_local.interval_s

    def _glance(self, watched: WatchedJob, now: float) -> None:
        key = watched.key
        state = self._keeper.state(key)
        self._due[key] = now + self._interval
        self._wanted.pop(key, None)
        if watched.suspended or not watched.tasks:
            self._due[key] = now  # the moment it runs, or has a process
            return
        try:
            glance = self._files(watched, now).read()
        except (*PLUGIN_ERRORS, OSError):  # it is about to end, or the adapter fails and says so
            self._close(key)
            return
        room = self._room(state, now)
        if self._keeper.wants_reading(key, glance, now, room):
            self._wanted[key] = glance.off_node
        elif state.since is not None and state.verdict is None:
            self._due[key] = now + min(self._interval, SETTLE_SECONDS)

    def _files(self, watched: WatchedJob, now: float) -> JobGlances:
        found = self._open.get(watched.key)
        if found is None or not found.is_of(watched.tasks):
            self._close(watched.key)
            found = self._open[watched.key] = JobGlances(
                watched.adapter,
                watched.job,
                watched.tasks,
                self._read_topology(now, _SAME_NODES_SECONDS),
                self._root,
            )
        return found

    def _room(self, state: JobState, now: float) -> dict[int, int]:
        if not state.awaited:
            return {}
        nodes = self._read_topology(now, 0.0).nodes
        return {node: nodes[node].room for node in state.awaited if node in nodes}

    def _read_topology(self, now: float, oldest: float) -> Topology:
        """Return the topology as it was at most `oldest` seconds ago; 0: in this tick."""
        if self._topology is None or now - self._topology[0] > oldest:
            self._topology = (now, read_topology(self._root))
        return self._topology[1]

    def _choose(self, now: float) -> None:
        """Let the job with the most off-node memory be dealt with, if none is."""
        if not self._wanted or (self._keeper.turn is not None and now < self._turn_ends):
            return
        self._turn_ends = now + _TURN_SECONDS
        key = max(self._wanted, key=lambda key: self._wanted[key])
        del self._wanted[key]
        self._keeper.turn = key
        scheduler, job = key
        data = {"seen_by": "agent", KEEPS_LOCAL: True}
        self._emit(Event(scheduler=scheduler, point=EventKind.LOOK.value, job=job, data=data))

    def _close(self, key: JobKey) -> None:
        if found := self._open.pop(key, None):
            found.close()

    def _forget(self, key: JobKey) -> None:
        self._close(key)
        self._due.pop(key)
        self._wanted.pop(key, None)
