"""A profile in numbers: what was read, what was used, and what placing pages by it changes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from schedhook.migration.profiling.recording import Recording
from schedhook.migration.profiling.samples import Tally
from schedhook.migration.profiling.survey import Survey
from schedhook.roles.guidance import Effect, Guidance
from schedhook.roles.profile import Profile


@dataclass(frozen=True, slots=True)
class Taken:
    """Samples that were read."""

    profile: Profile
    tally: Tally
    ended: float | None
    """When the log ended, in seconds since the epoch; None: unknown."""
    recording: Recording | None
    """How they were recorded; None: they are from a log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PairSummary:
    """Accesses from one node to memory on the same or another node."""

    accessing: int
    memory: int
    before: int
    after: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessSummary:
    """Accesses of one process; `after`: as they will be once the plan is carried out."""

    pid: int
    accesses: int
    local_before: int
    local_after: int
    pairs: tuple[PairSummary, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """The accesses of all processes; samples = accesses + the sum of `unused`."""

    lines: int
    bad_lines: int
    samples: int
    accesses: int
    """Samples that were used: accesses of the selected processes to the selected pages."""
    unused: Mapping[str, int]
    """The other samples, by reason."""
    local_before: int
    local_after: int
    nodes: str
    """The nodes on which the processes may run, in the kernel's list format."""
    min_samples: int
    min_share: float
    processes: tuple[ProcessSummary, ...]
    recording: Recording | None
    """How the samples were recorded; None: they are from a log."""


def summarise(taken: Taken, found: Survey, guidance: Guidance) -> Summary:
    """Return the summary; the strategy must have chosen before."""
    tally = taken.tally
    processes = tuple(_process(pid, each) for pid, each in sorted(guidance.effects.items()))
    accesses = sum(each.accesses for each in processes)
    known = sum(each.total for each in found.accesses.values())
    unused = {
        "no-address": tally.no_address,
        "kernel": tally.kernel,
        "unknown-node": tally.unknown_node,
        "cache-hit": tally.cache_hits,
        "dropped": tally.dropped,
        "process-gone": found.gone,
        "other-process": found.others,
        "unmapped": found.unmapped,
        "left-alone": known - found.unmapped - accesses,
    }
    return Summary(
        lines=tally.lines,
        bad_lines=tally.bad_lines,
        samples=tally.samples,
        accesses=accesses,
        unused={why: count for why, count in unused.items() if count > 0},
        local_before=sum(each.local_before for each in processes),
        local_after=sum(each.local_after for each in processes),
        nodes=str(found.nodes),
        min_samples=guidance.min_samples,
        min_share=guidance.min_share,
        processes=processes,
        recording=taken.recording,
    )


def _process(pid: int, effect: Effect) -> ProcessSummary:
    return ProcessSummary(
        pid=pid,
        accesses=effect.total,
        local_before=effect.local_before,
        local_after=effect.local_after,
        pairs=tuple(
            PairSummary(
                accessing=accessing,
                memory=memory,
                before=effect.before.get((accessing, memory), 0),
                after=effect.after.get((accessing, memory), 0),
            )
            for accessing, memory in sorted({*effect.before, *effect.after})
        ),
    )
