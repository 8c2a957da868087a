"""Plan how jobs trade places: each chunk of memory that moves, in an order in which it fits.

Where jobs sit on each other's nodes and no node takes all that belongs there, memory moves in
rotation: a chunk fills the room of one node and leaves as much on another one, for the next chunk.
If no chunk fits where it belongs, one makes a detour: it waits on a node that has room.

Jobs of the same size differ by a few pages, and on full nodes one page too much would keep all jobs
of a circle away. So if that lets more jobs go, less than a chunk of a job may stay where it is.

Values come in and a list of chunks goes out; nothing is read or moved here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

from schedhook.values.room import Room
from schedhook.values.sets import NodeSet
from schedhook.values.sizes import MIB, add_sizes

_LEAST = 2 * MIB
"""Bytes, as many as a huge page of x86-64 has. Only what is left in the end is a smaller chunk."""
_DETOUR = 64 * MIB
"""Bytes that may make a detour at a time, or a share of the demand if that is more."""
_DETOUR_SHARE = 8

Key = tuple[int, int, int, bool]
"""What tells a demand from the others: job, old node, new node, whether it waits."""
CanLeave = Callable[["Demand", int], bool]
"""Whether exactly so many bytes of a demand can stay: no page that moves as one is cut."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """Memory of a job on one node that belongs on another one."""

    job: int
    """A number that the caller gave the job."""
    old: int
    new: int
    size: int
    """Bytes."""
    allowed: NodeSet = field(default_factory=NodeSet)
    """The nodes on which it may wait."""
    waits: bool = False
    """It has made a detour to `old`, and makes no other."""

    @property
    def key(self) -> Key:
        """What tells it from the others, whatever its size."""
        return self.job, self.old, self.new, self.waits


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """Bytes of a demand that move at a time."""

    demand: Demand
    """As it is before they move."""
    to: int
    """Its new node, or the one on which the bytes wait."""
    size: int

    @property
    def is_detour(self) -> bool:
        """Whether the bytes move once more."""
        return self.to != self.demand.new


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotation:
    """What moves, in this order, and what cannot."""

    chunks: tuple[Chunk, ...] = ()
    refused: Mapping[int, str] = field(default_factory=dict)
    """Why the memory of a job stays, by its number."""
    left_out: Mapping[Key, int] = field(default_factory=dict)
    """The bytes that stay so that the others fit, by the key of their demand."""

    def left_out_of(self, job: int) -> int:
        """Return the bytes that stay of a job that goes."""
        return sum(size for (its, *_), size in self.left_out.items() if its == job)


def plan_rotation(
    demands: Iterable[Demand],
    rooms: Sequence[Room],
    kept: Sequence[Room] | None = None,
    *,
    can_leave: CanLeave = lambda *_: True,
) -> Rotation:
    """Return the chunks that bring the demands home, without those of jobs that cannot go.

    No room is ever entered by more than its balance. `kept` are the same rooms with what they must
    have left in the end, by default the same as meanwhile.
    """
    wanted, kept = [each for each in demands if each.size], kept or rooms
    whole = _plan(wanted, rooms, kept, lambda *_: False)
    if not whole.refused:
        return whole
    cut = _plan(wanted, rooms, kept, can_leave)
    return cut if cut.refused.keys() < whole.refused.keys() else whole


def _plan(
    wanted: Sequence[Demand], rooms: Sequence[Room], kept: Sequence[Room], can_leave: CanLeave
) -> Rotation:
    refused = dict[int, str]()
    while True:
        pending = [each for each in wanted if each.job not in refused]
        going, too_large = _fit(pending, kept, can_leave)
        chunks, stuck = _simulate(going, rooms)
        refused |= too_large | {each.job: _explain_stuck(stuck) for each in stuck}
        if not stuck:
            sizes = {each.key: each.size for each in going}
            left_out = {
                each.key: size
                for each in pending
                if each.job not in refused and (size := each.size - sizes.get(each.key, 0))
            }
            return Rotation(chunks=tuple(chunks), refused=refused, left_out=left_out)


def choose_chunk(demands: Sequence[Demand], rooms: Sequence[Room]) -> Chunk | None:
    """Return what moves next; None if nothing fits anywhere.

    Demands that lie in a circle come first: they hand the room on, and others use it up.
    """
    found: list[tuple[bool, int, Chunk]] = []
    for each in demands:
        size = min(each.size, spare(rooms, each.old, each.new))
        if size >= min(each.size, _LEAST):
            chunk = Chunk(demand=each, to=each.new, size=size)
            found.append((_is_circular(each, demands), size, chunk))
    if found:
        return max(found, key=lambda item: item[:2])[2]
    return _choose_detour(demands, rooms)


def spare(rooms: Iterable[Room], old: int, new: int) -> int:
    """Return the bytes that may go from one node to the other."""
    entered = [room.spare for room in rooms if room.is_entered([(old, new)])]
    return min(entered, default=0)


def carry_out(
    demands: Sequence[Demand], rooms: Sequence[Room], chunk: Chunk
) -> tuple[tuple[Demand, ...], tuple[Room, ...]]:
    """Return the demands and the rooms as they are once the chunk has moved."""
    after = {each.key: each for each in demands}
    rest = replace(chunk.demand, size=chunk.demand.size - chunk.size)
    after[rest.key] = rest
    if chunk.is_detour:
        waiting = replace(chunk.demand, old=chunk.to, size=chunk.size, waits=True)
        before = after.get(waiting.key)
        after[waiting.key] = replace(waiting, size=waiting.size + (before.size if before else 0))
    return (
        tuple(each for each in after.values() if each.size),
        tuple(_after(room, chunk.demand.old, chunk.to, chunk.size) for room in rooms),
    )


def _after(room: Room, old: int, new: int, size: int) -> Room:
    change = size * ((old in room.nodes) - (new in room.nodes))
    return replace(room, size=room.size + change) if change else room


def _simulate(
    demands: Sequence[Demand], rooms: Sequence[Room]
) -> tuple[list[Chunk], Sequence[Demand]]:
    """Return the chunks in their order, and the demands of which a part never fits."""
    chunks = list[Chunk]()
    while demands and (chunk := choose_chunk(demands, rooms)):
        demands, rooms = carry_out(demands, rooms, chunk)
        chunks.append(chunk)
    return chunks, demands


def _is_circular(demand: Demand, demands: Iterable[Demand]) -> bool:
    """Return whether others must leave its new node, and so on back to its old one.

    Memory that waits is of no circle: nothing is to take the place that it leaves.
    """
    if demand.waits:
        return False
    pairs = frozenset((each.old, each.new) for each in demands if not each.waits)
    return (demand.old, demand.new) in _circular_pairs(pairs)


@lru_cache(maxsize=16)
def _circular_pairs(pairs: frozenset[tuple[int, int]]) -> frozenset[tuple[int, int]]:
    """Return the pairs (old node, new node) of which the old one can be reached from the new."""
    return frozenset((old, new) for old, new in pairs if old in _reachable(new, pairs))


def _reachable(start: int, pairs: frozenset[tuple[int, int]]) -> set[int]:
    found, pending = set[int](), [start]
    while pending:
        node = pending.pop()
        more = {new for old, new in pairs if old == node} - found
        found |= more
        pending += more
    return found


def _choose_detour(demands: Sequence[Demand], rooms: Sequence[Room]) -> Chunk | None:
    """Return what may wait on another node so that other memory can take its place."""
    found: list[tuple[int, Chunk]] = []
    for each in (each for each in demands if _is_circular(each, demands)):
        most = min(each.size, max(_DETOUR, each.size // _DETOUR_SHARE))
        for node in each.allowed - {each.old, each.new}:
            size = min(most, spare(rooms, each.old, node))
            if size >= min(each.size, _LEAST):
                found.append((size, Chunk(demand=each, to=node, size=size)))
    return max(found, key=lambda item: item[0])[1] if found else None


def _fit(
    wanted: Sequence[Demand], rooms: Sequence[Room], can_leave: CanLeave
) -> tuple[list[Demand], dict[int, str]]:
    """Return the demands that fit together, and why each of the other jobs stays.

    As few jobs as possible stay: each takes room where it is, so that others may have to stay, too.
    """
    going, refused = list(wanted), dict[int, str]()
    while room := next((room for room in rooms if _shortage(room, going) > 0), None):
        shortage = _shortage(room, going)
        if cut := _choose_cut(going, room, shortage, wanted, can_leave):
            going = _with(going, [replace(cut, size=cut.size - shortage)])
            continue
        arriving = _arriving(room, going)
        job = _choose_refused(arriving, shortage, _jobs_in_circles(going))
        refused[job] = _explain_shortage(room, arriving[job], sum(arriving.values()))
        going = [each for each in going if each.job != job]
    # Once others stay, or go, what was refused or cut may fit.
    for job in list(refused):
        more = _with(going, [each for each in wanted if each.job == job])
        if _all_fit(more, rooms):
            going = more
            del refused[job]
    uncut = frozenset(going)
    for each in (each for each in wanted if each.job not in refused and each not in uncut):
        more = _with(going, [each])
        if _all_fit(more, rooms):
            going = more
    order = {each.key: number for number, each in enumerate(wanted)}
    return sorted(going, key=lambda each: order[each.key]), refused


def _all_fit(demands: Sequence[Demand], rooms: Iterable[Room]) -> bool:
    return all(_shortage(room, demands) <= 0 for room in rooms)


def _with(demands: Iterable[Demand], others: Sequence[Demand]) -> list[Demand]:
    """Return the demands with the others, which take the place of those with the same key."""
    keys = {each.key for each in others}
    found = [*(each for each in demands if each.key not in keys), *others]
    return [each for each in found if each.size]


def _choose_cut(
    going: Sequence[Demand],
    room: Room,
    size: int,
    wanted: Sequence[Demand],
    can_leave: CanLeave,
) -> Demand | None:
    """Return a demand that enters the room, and of which `size` bytes may stay.

    Less than a chunk of a job may stay, and not all of it. Demands in no circle come first: if one
    of a circle is cut, the next one has to be. None is cut twice, so that this ends.
    """
    if size >= _LEAST:
        return None
    whole = {each.key: each.size for each in wanted}
    cuttable = [
        each
        for each in going
        if room.is_entered([(each.old, each.new)]) and whole[each.key] == each.size >= size
    ]
    for each in sorted(cuttable, key=lambda each: (_is_circular(each, going), -each.size)):
        moving = sum(other.size for other in going if other.job == each.job) - size
        staying = sum(other.size for other in wanted if other.job == each.job) - moving
        if moving > 0 and staying < _LEAST and can_leave(each, size):
            return each
    return None


def _choose_refused(arriving: Mapping[int, int], shortage: int, circular: set[int]) -> int:
    """Return the job whose memory stays, of those that bring `arriving` bytes into a room.

    If one of a circle stays, all of them have to.
    """
    sizes = {job: size for job, size in arriving.items() if size > 0}
    candidates = {job: size for job, size in sizes.items() if job not in circular} or sizes
    enough = {job: size for job, size in candidates.items() if size >= shortage}
    if enough:
        return min(enough, key=lambda job: enough[job])
    return max(candidates, key=lambda job: candidates[job])


def _jobs_in_circles(demands: Sequence[Demand]) -> set[int]:
    return {each.job for each in demands if _is_circular(each, demands)}


def _arriving(room: Room, demands: Iterable[Demand]) -> dict[int, int]:
    """Return the bytes of each job that arrive in the room, less those of it that leave."""
    total: dict[int, int] = {}
    for each in demands:
        change = each.size * ((each.new in room.nodes) - (each.old in room.nodes))
        add_sizes(total, {each.job: change})
    return total


def _shortage(room: Room, demands: Iterable[Demand]) -> int:
    """Return the bytes by which too much would arrive; the room may become as full as it is."""
    return sum(_arriving(room, demands).values()) - room.spare


def _explain_shortage(room: Room, its: int, total: int) -> str:
    return (
        f"node {room.nodes} has no room: {its / MIB:.1f} MiB of the job and"
        f" {(total - its) / MIB:.1f} MiB of others would arrive there, less what leaves it, and"
        f" the kernel can give {room.size / MIB:.1f} MiB, of which {room.reserve / MIB:.1f} MiB"
        f" are kept in reserve, and cgroups that can allocate nowhere else may still take"
        f" {room.claimed / MIB:.1f} MiB"
    )


def _explain_stuck(stuck: Iterable[Demand]) -> str:
    nodes = NodeSet(each.new for each in stuck)
    return (
        f"nothing can move first: no node has room for {_LEAST // MIB} MiB of the memory that"
        f" belongs on node {nodes}, beyond the reserve and what cgroups may still take; free"
        " memory on any node, or lower --reserve"
    )
