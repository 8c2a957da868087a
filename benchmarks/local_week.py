"""Simulate a week of keep_local: `python benchmarks/local_week.py [--jobs N] [--seed N]`.

Jobs start and end on a host of eight nodes. Memory spills to other nodes where page cache or other
jobs fill a job's own, some jobs touch their memory before they are bound, some bind it elsewhere by
policy, and some lose it again and again. The decisions are those of the agent
(schedhook.agent.keeper); only what it would see and do is simulated.

Prints off-node GiB-hours without and with keep_local, and the bytes moved against the least
possible: each byte that came home, once. Memory that policies bind is listed apart.
"""

from __future__ import annotations

import argparse
import random
import sys
from dataclasses import dataclass, field

from schedhook.agent.keeper.decision import Situation, Verdict
from schedhook.agent.keeper.keeper import SETTLE_SECONDS, Glance, Keeper, Rules

GIB = 1 << 30
NODES, CORES, CAPACITY = 8, 16, 64 * GIB
WEEK = 7 * 86_400.0
INTERVAL = 20.0
"""Seconds between two looks; as [keep_local] has it."""
LEAVES_AFTER = 1200.0
"""Seconds after which a job of those that lose their memory has lost half of it again."""
MOST_OFF_NODE, MOST_MOVED = 0.1, 2.0


@dataclass(slots=True, kw_only=True)
class SimulatedJob:
    """A job of one node. Sizes are bytes, times seconds since the week began."""

    name: str
    cores: int
    size: int
    arrives: float
    seconds: float
    limit: float | None
    touches_first: bool
    """It fills its memory on another node before it is bound."""
    is_bound: bool
    """Policies bind its memory to another node."""
    leaves: bool
    home: int = -1
    ends: float = 0.0
    started: float = 0.0
    memory: dict[int, int] = field(default_factory=dict)
    look: float = 0.0
    at_home_since: float | None = None
    arrived: int = 0
    """The most that ever came home of it, each byte counted once."""

    @property
    def off_node(self) -> int:
        return sum(size for node, size in self.memory.items() if node != self.home)


def make_jobs(count: int, seed: int) -> list[SimulatedJob]:
    """Return the week's jobs by their arrival."""
    dice = random.Random(seed)
    jobs = []
    for number in range(count):
        cores = dice.choice((1, 2, 4, 4, 8, 8, 16))
        seconds = min(2 * 86_400.0, max(60.0, dice.lognormvariate(8.4, 1.2)))
        jobs.append(
            SimulatedJob(
                name=str(number),
                cores=cores,
                size=int(cores * CAPACITY / CORES * dice.uniform(0.1, 0.95)),
                arrives=dice.uniform(0, WEEK),
                seconds=seconds,
                limit=seconds * dice.uniform(1, 4) if dice.random() < 0.8 else None,
                touches_first=dice.random() < 0.1,
                is_bound=dice.random() < 0.03,
                leaves=dice.random() < 0.01,
            )
        )
    return sorted(jobs, key=lambda job: job.arrives)


@dataclass(slots=True)
class Result:
    """What came of a week."""

    off_node: float = 0.0
    """Byte-seconds, without what policies bind."""
    bound: float = 0.0
    moved: int = 0
    moves: int = 0
    arrived: int = 0
    avoided: float = 0.0
    """Byte-seconds, as the agent counts them."""
    verdicts: dict[str, int] = field(default_factory=dict)


class Host:
    """The simulated host; `keeper` is None for a week without keep_local."""

    def __init__(self, jobs: list[SimulatedJob], seed: int, keeper: Keeper | None) -> None:
        self.waiting = jobs[::-1]
        self.running: list[SimulatedJob] = []
        self.keeper = keeper
        self.dice = random.Random(seed)
        self.free_cores = dict.fromkeys(range(NODES), CORES)
        self.result = Result()
        self.busy_until = 0.0

    def run(self, step: float = 5.0) -> Result:
        """Run the week in steps of so many seconds, and until the last job has ended."""
        now = 0.0
        while self.waiting or self.running:
            now += step
            self.end_jobs(now)
            self.start_jobs(now)
            for job in self.running:
                if job.leaves:
                    self.lose(job, now)
                part = "bound" if job.is_bound else "off_node"
                setattr(self.result, part, getattr(self.result, part) + job.off_node * step)
            if self.keeper is not None and now >= self.busy_until:
                self.look(self.keeper, now)
        return self.result

    def used(self, node: int) -> int:
        return sum(job.memory.get(node, 0) for job in self.running)

    def room(self, node: int) -> int:
        """Return what the kernel can give: all but other jobs' memory, and a twentieth of cache."""
        return max(0, CAPACITY * 19 // 20 - self.used(node))

    def end_jobs(self, now: float) -> None:
        for job in [job for job in self.running if job.ends <= now]:
            self.running.remove(job)
            self.free_cores[job.home] += job.cores
            self.result.arrived += job.arrived
            if self.keeper and (state := self.keeper.forget(("sim", job.name))):
                state.accrue(now)
                self.result.avoided += state.avoided

    def start_jobs(self, now: float) -> None:
        while self.waiting and self.waiting[-1].arrives <= now:
            job = self.waiting[-1]
            home = max(self.free_cores, key=lambda node: self.free_cores[node])
            if self.free_cores[home] < job.cores:
                return
            self.waiting.pop()
            self.free_cores[home] -= job.cores
            job.home, job.started, job.ends = home, now, now + job.seconds
            job.look = now + self.dice.uniform(0, INTERVAL)
            self.fill(job)
            self.running.append(job)

    def fill(self, job: SimulatedJob) -> None:
        """Allocate as the kernel does: what is free on the wanted node, else on others.

        It does not drop cache for that, which is a random part of what no job uses.
        """
        others = sorted((n for n in range(NODES) if n != job.home), key=self.used)
        order = [job.home, *others]
        if job.touches_first or job.is_bound:
            order = [others[0], job.home, *others[1:]]
        left = job.size
        for node in order:
            free = int(self.room(node) * self.dice.random() ** 0.5)
            take = min(left, free)
            if take:
                job.memory[node] = job.memory.get(node, 0) + take
            left -= take
        last = others[0]
        job.memory[last] = job.memory.get(last, 0) + left

    def lose(self, job: SimulatedJob, now: float) -> None:
        at_home = job.memory.get(job.home, 0)
        if at_home < job.size // 2:
            job.at_home_since = None
        elif job.at_home_since is None:
            job.at_home_since = now
        elif now - job.at_home_since > LEAVES_AFTER:
            other = (job.home + 1) % NODES
            job.memory[job.home] = at_home // 2
            job.memory[other] = job.memory.get(other, 0) + at_home - at_home // 2

    # -- what the agent does ---------------------------------------------------------------------

    def look(self, keeper: Keeper, now: float) -> None:
        """Glance at the jobs that are due, and deal with the one that has most off-node."""
        wanted = []
        for job in self.running:
            if now < job.look:
                continue
            job.look = now + INTERVAL
            glance = Glance(off_node=job.off_node, local=job.memory.get(job.home, 0))
            key = ("sim", job.name)
            room = {node: self.room(node) for node in keeper.state(key).awaited}
            if keeper.wants_reading(key, glance, now, room):
                wanted.append(job)
            elif glance.off_node and keeper.state(key).verdict is None:
                job.look = now + SETTLE_SECONDS
        if wanted:
            chosen = max(wanted, key=lambda job: job.off_node)
            for job in wanted:
                if job is not chosen:
                    job.look = now
            self.deal_with(chosen, keeper, now)

    def deal_with(self, job: SimulatedJob, keeper: Keeper, now: float) -> None:
        key, off_node = ("sim", job.name), job.off_node
        free = 0 if job.is_bound else off_node
        situation = Situation(
            off_node=free,
            bound=off_node - free,
            resident=job.size,
            fitting=free if free <= self.room(job.home) else 0,
            remaining=None if job.limit is None else job.started + job.limit - now,
            age=now - job.started,
        )
        decision = keeper.decide(key, situation, now, {job.home: self.room(job.home)})
        verdicts = self.result.verdicts
        verdicts[decision.verdict.value] = verdicts.get(decision.verdict.value, 0) + 1
        if decision.verdict is not Verdict.MOVE:
            return
        seconds = free / keeper.rules.rate
        self.busy_until = now + seconds
        job.memory = {job.home: job.size}
        job.arrived = max(job.arrived, free)
        self.result.moved += free
        self.result.moves += 1
        # It was off-node while it moved: on average half of it.
        self.result.off_node += free * seconds / 2
        keeper.moved(key, situation, free, seconds, now + seconds)


def simulate(count: int = 1000, seed: int = 1) -> tuple[Result, Result]:
    """Return what came of the same week without keep_local and with it."""
    rules = Rules(host_daily=1024 * GIB)
    without = Host(make_jobs(count, seed), seed, None).run()
    return without, Host(make_jobs(count, seed), seed, Keeper(rules)).run()


def main() -> int:
    """Return the exit status: 1 if it gains less, or moves more, than the limits say."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    without, kept = simulate(options.jobs, options.seed)
    hours = GIB * 3600.0
    share = kept.off_node / max(without.off_node, 1)
    factor = kept.moved / max(kept.arrived, 1)
    print(
        f"{options.jobs} jobs on {NODES} nodes in a week: off-node"
        f" {without.off_node / hours:.0f} GiB-hours without keep_local,"
        f" {kept.off_node / hours:.0f} with it: {share:.1%} (limit {MOST_OFF_NODE:.0%});"
        f" the agent counts {kept.avoided / hours:.0f} avoided\n"
        f"{kept.moved / GIB:.0f} GiB moved in {kept.moves} moves, at least"
        f" {kept.arrived / GIB:.0f} had to: {factor:.2f} times (limit {MOST_MOVED:g})\n"
        f"bound off-node by policy, left alone: {kept.bound / hours:.0f} GiB-hours\n"
        f"decisions: {', '.join(f'{name} {n}' for name, n in sorted(kept.verdicts.items()))}"
    )
    return 0 if share <= MOST_OFF_NODE and factor <= MOST_MOVED else 1


if __name__ == "__main__":
    sys.exit(main())
