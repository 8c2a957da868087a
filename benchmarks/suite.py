"""The measurements: programs that take turns on one target, and the limits of their ratios."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from benchmarks import peers, tools
from benchmarks.tools import MIB, Target
from tests.numa.dirt import PageCache, null_disk
from tests.numa.jobs import cgroup

BATCH_KIB = 32768
"""Bytes per call of both the engine and the bare loop; the default of `batch_kb`."""

Contender = Callable[[Target, int, int], float]
"""Moves the target's memory from one node to another; returns the seconds."""


@dataclass(slots=True)
class Series:
    """Repeated measurements of one quantity, in seconds unless `unit` is given."""

    name: str
    values: list[float] = field(default_factory=list)
    mib: int = 0
    """Bytes that moved each time; 0 if nothing moves."""
    unit: str = "s"

    @property
    def median(self) -> float:
        return statistics.median(self.values)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """The ratio of two series' medians; `most` is its limit."""

    name: str
    ours: str
    against: str
    most: float | None = None
    scale: float = 1.0
    """The factor for the second median, if the sizes differ."""


@dataclass(slots=True)
class Results:
    """All results, in order."""

    series: dict[str, Series] = field(default_factory=dict)
    ratios: list[Ratio] = field(default_factory=list)

    def add(self, name: str, value: float, *, mib: int = 0, unit: str = "s") -> None:
        """Append to the series of that name."""
        self.series.setdefault(name, Series(name, mib=mib, unit=unit)).values.append(value)

    def value(self, ratio: Ratio) -> float:
        ours, against = self.series[ratio.ours].median, self.series[ratio.against].median
        return ours / (against * ratio.scale)


# -- programs that are compared --------------------------------------------------------------------


def timed(*command: object) -> float:
    """Return the elapsed time of a command, including its start."""
    began = time.monotonic()
    tools.call(*command)
    return time.monotonic() - began


def migratepages(target: Target, old: int, new: int) -> float:
    """Run the command for each process that has some of the memory."""
    return sum(timed("migratepages", pid, old, new) for pid in target.pids)


def relocate(*options: object) -> Contender:
    """Return the report's `seconds`: plan, move, verify."""

    def run(target: Target, old: int, new: int) -> float:
        pids = [word for pid in target.pids for word in ("--pid", pid)]
        report = tools.schedhook("relocate", *pids, "--from", old, "--to", new, *options)
        if report["outcome"] != "complete":
            raise RuntimeError(f"not complete: {report}")
        return float(report["seconds"])

    return run


def bare(threads: int, batch_kib: int = BATCH_KIB) -> Contender:
    """Use move_pages(2) alone, with one address for each page or huge page."""

    def run(target: Target, old: int, new: int) -> float:  # noqa: ARG001
        step = tools.huge_page() if target.kind == "thp" else tools.PAGE
        said = tools.call(
            tools.compiled("bare"), "move", target.pid, f"{target.start:x}", target.size, step,
            new, threads, max(1, (batch_kib << 10) // step),
        )  # fmt: skip
        return float(said.split()[0])

    return run


def engine(threads: int, batch_kib: int = BATCH_KIB) -> Contender:
    """Use the page mover alone, with the same threads and batches as the bare loop."""

    def run(target: Target, old: int, new: int) -> float:
        said = tools.call(
            sys.executable, "-P", tools.HERE / "engine_alone.py",
            target.pid, target.start, old, new, threads, batch_kib,
        )  # fmt: skip
        return float(said.split()[0])

    return run


def take_turns(
    results: Results,
    target: Target,
    contenders: Mapping[str, Contender],
    rounds: int,
    after: Callable[[str, Target], None] | None = None,
) -> None:
    """Let each program move the same memory in each round; another one begins each time."""
    names = list(contenders)
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            old, new = target.node, 2 if target.node == 0 else 0
            seconds = contenders[name](target, old, new)
            if target.share_on(new) < 0.999:
                raise RuntimeError(f"{name} left memory behind")
            target.node = new
            results.add(name, seconds, mib=target.used // MIB)
            if after:
                after(name, target)


# -- the parts ----------------------------------------------------------------------------------


def against_peers(results: Results, rounds: int, mib: int, kind: str) -> None:
    """Compare both strategies, the engine alone and the bare loop with migratepages."""
    few = ("--threads", 2)
    with tools.target(kind, mib, 0) as target:
        take_turns(
            results,
            target,
            {
                f"migratepages, {kind}": migratepages,
                f"move-pages, {kind}": relocate("--strategy", "move-pages", *few),
                f"migrate-process, {kind}": relocate("--strategy", "migrate-process", *few),
                f"engine, {kind}": engine(2),
                f"bare loop, {kind}": bare(2),
            },
            rounds,
        )
    peer = f"migratepages, {kind}"
    results.ratios += [
        Ratio(
            name=f"move-pages against migratepages, {kind}",
            ours=f"move-pages, {kind}",
            against=peer,
            most=0.75 if kind == "anon" else 0.70,
        ),
        Ratio(
            name=f"migrate-process against migratepages, {kind}",
            ours=f"migrate-process, {kind}",
            against=peer,
            most=1.10,
        ),
        Ratio(
            name=f"engine against the bare loop, {kind}",
            ours=f"engine, {kind}",
            against=f"bare loop, {kind}",
            most=1.10,
        ),
    ]


def against_a_working_job(results: Results, rounds: int, mib: int, kind: str) -> None:
    """Compare with migratepages while the job reads, writes and allocates."""
    ours, peer = f"move-pages, {kind}, working", f"migratepages, {kind}, working"
    with tools.target(kind, mib, 0) as target:
        target.work()
        contenders = {peer: migratepages, ours: relocate("--threads", 2)}
        take_turns(results, target, contenders, rounds)
    most = 0.65 if kind == "anon" else 0.48
    name = f"move-pages against migratepages, {kind}, working"
    results.ratios.append(Ratio(name=name, ours=ours, against=peer, most=most))


def against_the_kernel(results: Results, rounds: int, mib: int, kind: str) -> None:
    """Compare with the kernel's own means: a cpuset's nodes, and a scheme where there are such."""
    ours = f"move-pages, {kind}, in a cgroup"
    others = {f"cpuset.mems, {kind}": 0.8}
    with cgroup("schedhook-bench") as group, tools.target(kind, mib, 0, within=group) as target:
        contenders: dict[str, Contender] = {
            ours: relocate("--threads", 2),
            f"cpuset.mems, {kind}": lambda _target, _old, new: peers.by_cpuset(group, new),
        }
        if peers.has_migrating_schemes():
            others[f"DAMOS, {kind}"] = 0.8
            contenders[f"DAMOS, {kind}"] = lambda target, old, new: peers.by_scheme(
                target, group, old, new
            )
        take_turns(results, target, contenders, rounds)
    results.ratios += [
        Ratio(name=f"move-pages against {other}", ours=ours, against=other, most=most)
        for other, most in others.items()
    ]


def onto_page_cache(results: Results, rounds: int, mib: int) -> None:
    """Compare with migratepages if the new node is full of clean page cache."""
    ours, peer = "move-pages, onto page cache", "migratepages, onto page cache"

    with null_disk() as disk, tools.target("anon", mib, 0) as target:
        cache = PageCache(disk=disk, directory=Path("/nowhere"))

        def after_filling(contender: Contender) -> Contender:
            def run(target: Target, old: int, new: int) -> float:
                cache.remove()
                cache.fill(new)
                return contender(target, old, new)

            return run

        contenders = {peer: migratepages, ours: relocate("--threads", 2)}
        by_name = {name: after_filling(each) for name, each in contenders.items()}
        take_turns(results, target, by_name, rounds)
        cache.remove()
    name = "move-pages against migratepages, onto page cache"
    results.ratios.append(Ratio(name=name, ours=ours, against=peer, most=1.0))


def stalls(results: Results, rounds: int, mib: int) -> None:
    """Measure the longest time for which the job has to wait."""

    def note(name: str, target: Target) -> None:
        touch, mapping = target.stall()
        results.add(f"longest wait under {name}", max(touch, mapping), unit="s")

    with tools.target("anon", mib, 0) as target:
        target.probe()
        take_turns(
            results,
            target,
            {
                "migratepages, probed": migratepages,
                "gentle, probed": relocate("--gentle"),
            },
            rounds,
            note,
        )
    results.ratios.append(
        Ratio(
            name="longest wait, gentle against migratepages",
            ours="longest wait under gentle, probed",
            against="longest wait under migratepages, probed",
            most=0.25,
        )
    )


def sparse(results: Results, rounds: int) -> None:
    """Compare 100 MiB in 1 TiB of address space with 100 MiB in one piece."""
    move = relocate("--threads", 2)
    with tools.target("sparse", 100, 0) as wide, tools.target("anon", 100, 0) as dense:
        for _ in range(rounds):
            take_turns(results, wide, {"100 MiB in 1 TiB": move}, 1)
            take_turns(results, dense, {"100 MiB in one piece": move}, 1)
    results.ratios.append(
        Ratio(
            name="sparse against dense",
            ours="100 MiB in 1 TiB",
            against="100 MiB in one piece",
            most=1.2,
        )
    )


def areas(results: Results, rounds: int, mib: int = 240) -> None:
    """Compare memory in one area with as much in areas of one page each."""
    move, count = relocate("--threads", 2), mib * MIB // tools.PAGE
    one_area, ours, gaps = f"one area, {mib} MiB", f"{count:,} areas", f"{count:,} areas, apart"
    peer = f"{ours}, migratepages"
    with (
        tools.room_for_areas(count),
        tools.target("anon", mib, 0) as one,
        tools.target("areas", mib, 0) as many,
        tools.target("gaps", mib, 0) as apart,
    ):
        for _ in range(rounds):
            take_turns(results, one, {one_area: move}, 1)
            take_turns(results, apart, {gaps: move}, 1)
            for name, contender in {ours: move, peer: migratepages}.items():
                take_turns(results, many, {name: contender}, 1)
        old, new = many.node, 2 - many.node
        results.add(f"memory of the mover, {ours}", memory(many, old, new), unit="MiB")
    results.ratios += [
        Ratio(name=f"{ours} against one", ours=ours, against=one_area, most=1.5),
        Ratio(name=f"{gaps}, against one", ours=gaps, against=one_area),
        Ratio(name=f"{ours} against migratepages", ours=ours, against=peer),
    ]


def processes(results: Results, rounds: int) -> None:
    """Compare 512 processes of 1 MiB each with one process that has as much."""
    move, peer = relocate("--threads", 2), "512 processes, migratepages"
    with tools.target("processes", 512, 0) as many, tools.target("anon", 512, 0) as one:
        for _ in range(rounds):
            take_turns(results, many, {"512 processes": move}, 1)
            take_turns(results, many, {peer: migratepages}, 1)
            take_turns(results, one, {"one process": move}, 1)
    results.ratios += [
        Ratio(name="512 processes to one", ours="512 processes", against="one process", most=2),
        Ratio(name="512 processes against migratepages", ours="512 processes", against=peer),
    ]


def sizes(results: Results, rounds: int, mibs: Sequence[int]) -> None:
    """Measure time and the mover's memory by size."""
    smallest, largest = mibs[0], mibs[-1]
    for mib in mibs:
        tools.tidy()
        with tools.target("anon", mib, 0) as target:
            take_turns(results, target, {f"{mib} MiB": relocate("--threads", 2)}, rounds)
            old, new = target.node, 2 - target.node
            results.add(f"memory of the mover, {mib} MiB", memory(target, old, new), unit="MiB")
    results.ratios += [
        Ratio(
            name=f"{largest} MiB against {smallest} MiB, by size",
            ours=f"{largest} MiB",
            against=f"{smallest} MiB",
            scale=largest / smallest,
            most=1.2,
        ),
    ]


def memory(target: Target, old: int, new: int) -> float:
    """Return the peak resident memory of the command, with its interpreter, in MiB."""
    command = [
        sys.executable, "-P", str(tools.HERE / "peak_memory.py"),
        "relocate", "--pid", str(target.pid), "--from", str(old), "--to", str(new), "--json",
    ]  # fmt: skip
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=600)
    target.node = new
    return int(done.stderr.split()[-1]) / 1024


def threads(results: Results, rounds: int, mib: int, counts: Sequence[int]) -> None:
    """Measure time by the number of threads."""
    with tools.target("anon", mib, 0) as target:
        contenders = {f"{count} threads": relocate("--threads", count) for count in counts}
        take_turns(results, target, contenders, rounds)


def batches(results: Results, rounds: int, mib: int, kibs: Sequence[int]) -> None:
    """Measure the engine's time by batch size."""
    with tools.target("anon", mib, 0) as target:
        take_turns(results, target, {f"batch {kib} KiB": engine(2, kib) for kib in kibs}, rounds)


def start(results: Results, rounds: int) -> None:
    """Measure the interpreter and the imports, which a report's seconds do not contain."""
    for _ in range(rounds):
        results.add("start: python3 -c pass", timed(sys.executable, "-c", "pass"))
        help_ = (sys.executable, "-P", "-m", "schedhook.cli.main", "relocate", "--help")
        results.add("start: schedhook relocate --help", timed(*help_))


def everything(
    rounds: int, mib: int, largest: int
) -> Iterator[tuple[str, Callable[[Results], None]]]:
    """Yield each part: its name, and the function that measures it."""
    yield "start", lambda results: start(results, rounds)
    yield "anon", lambda results: against_peers(results, rounds, mib, "anon")
    yield "thp", lambda results: against_peers(results, rounds, mib, "thp")
    for kind in ("anon", "thp"):
        yield (
            f"working-{kind}",
            partial(against_a_working_job, rounds=rounds, mib=mib, kind=kind),
        )
        yield (
            f"kernel-{kind}",
            partial(against_the_kernel, rounds=rounds, mib=mib, kind=kind),
        )
    yield "cache", lambda results: onto_page_cache(results, rounds, mib)
    yield "stall", lambda results: stalls(results, rounds, mib)
    yield "sparse", lambda results: sparse(results, rounds)
    yield "areas", lambda results: areas(results, rounds)
    yield "more-areas", lambda results: areas(results, rounds, 392)
    yield "processes", lambda results: processes(results, rounds)
    steps = [100 * 2**step for step in range(8) if 100 * 2**step <= largest]
    yield "sizes", lambda results: sizes(results, rounds, steps)
    yield "threads", lambda results: threads(results, rounds, mib, [1, 2, 4])
    yield "batches", lambda results: batches(results, rounds, mib, [2048, 8192, 32768])


def largest_size(wanted: int) -> int:
    """Return the MiB that fit on both nodes, at most `wanted`."""
    free = min(tools.free_bytes(node) for node in (0, 2)) // MIB - 128
    return max(100, min(wanted, free))


def nodes_are_there() -> bool:
    return all(Path(f"/sys/devices/system/node/node{node}").exists() for node in (0, 2))
