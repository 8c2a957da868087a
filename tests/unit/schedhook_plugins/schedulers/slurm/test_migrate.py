"""job-migrate's decisions on a made-up host of cgroup version 1.

Cpusets and bindings are files, and the pipeline only takes notes. tests/slurm does it for real.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from schedhook.control import cpusets
from schedhook.roles.request import Request
from schedhook.testing.hosts import (
    FakeNode,
    write_cgroup,
    write_cgroup_mounts,
    write_file,
    write_host,
    write_process,
)
from schedhook.values.errors import RefusedError, UsageError
from schedhook.values.model import (
    NodeMap,
    Outcome,
    Placement,
    PlacementOverride,
    Plan,
    ProcessPlan,
    Report,
)
from schedhook.values.sets import CpuSet, NodeSet
from schedhook_plugins.schedulers.slurm import migrate as migrate_module
from schedhook_plugins.schedulers.slurm.adapter import Slurm
from schedhook_plugins.schedulers.slurm.migrate import cpus_of_nodes, migrate, reapply, rebind

JOB = "slurm/uid_2001/job_7"
MIB = 1 << 20


def cpus(text: str) -> CpuSet:
    return CpuSet.parse(text)


def place(text: str) -> Placement:
    """On this host every node has the processor of its number."""
    return Placement(cpus=cpus(text), nodes=NodeSet.parse(text))


def report(outcome: Outcome, node_map: NodeMap, **other: Any) -> Report:
    return Report(outcome=outcome, strategy="test", backend="test", node_map=node_map, **other)


@dataclass
class Host:
    """A host with job 7: ranks 0 and 1, bound to processors 0 and 1 of the job's 0 and 1."""

    root: Path
    requests: list[Request] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)
    """Of relocations that are no dry runs, in turn; complete where there are no more."""
    refusal: str | None = None
    free: int = 512 * MIB

    def __post_init__(self) -> None:
        write_host(self.root, [FakeNode(number=node, cpus=str(node)) for node in range(4)])
        write_cgroup_mounts(self.root, version=1)
        self.cpuset("", "0-3")
        self.cpuset("slurm", "0-3")
        self.cpuset("slurm/uid_2001", "0-1")
        self.cpuset(JOB, "0-1")
        self.add_step("0", {200: "0", 201: "1"})

    @property
    def slurm(self) -> Slurm:
        return Slurm(self.root)

    def cpuset(self, name: str, cpus: str, pids: Iterable[int] = ()) -> None:
        write_cgroup(self.root, name, version=1, pids=pids, cpus=cpus, nodes="0-3")

    def add_step(self, step: str, pids: dict[int, str]) -> None:
        self.cpuset(f"{JOB}/step_{step}", "0-1", pids)
        for rank, (pid, bound) in enumerate(pids.items()):
            self.process(pid, bound, rank)

    def process(self, pid: int, bound: str, rank: int) -> None:
        write_process(self.root, pid, cpus=bound)
        write_file(self.root, f"proc/{pid}/environ", b"SLURM_PROCID=%d\0" % rank)

    def affinity(self, tid: int) -> CpuSet:
        path = self.root / f"proc/{tid}/status"
        line = next(x for x in path.read_text().splitlines() if x.startswith("Cpus_allowed_list"))
        return cpus(line.split()[1])

    def bind(self, tid: int, wanted: Iterable[int]) -> bool:
        old = f"Cpus_allowed_list:\t{self.affinity(tid)}\n"
        for path in (f"proc/{tid}/status", f"proc/{tid}/task/{tid}/status"):
            file = self.root / path
            file.write_text(
                file.read_text().replace(old, f"Cpus_allowed_list:\t{CpuSet(wanted)}\n")
            )
        return True

    def relocate(self, request: Request) -> Report:
        self.requests.append(request)
        node_map = request.node_map or NodeMap(pairs={})
        if request.dry_run and self.refusal:
            return report(Outcome.REFUSED, node_map, notes=(self.refusal,))
        if request.dry_run:
            moves = dict.fromkeys(node_map.moves.items(), 100 * MIB)
            plan = Plan(
                strategy="test",
                backend="test",
                node_map=node_map,
                processes=(ProcessPlan(pid=1, command="", residency={}, moves=moves),),
                free=dict.fromkeys(node_map.destinations, self.free),
            )
            return report(Outcome.PLANNED, node_map, plan=plan)
        outcome = self.outcomes.pop(0) if self.outcomes else Outcome.COMPLETE
        notes = ("it went wrong",) if outcome is Outcome.FAILED else ()
        return report(outcome, node_map, bytes_moved=100 * MIB, notes=notes)

    def cpus_at(self, name: str = JOB) -> str:
        return (self.root / "sys/fs/cgroup/cpuset" / name / "cpuset.cpus").read_text().strip()

    def bound(self) -> dict[int, str]:
        return {pid: str(self.affinity(pid)) for pid in (200, 201)}

    def asked(self) -> list[tuple[dict[int, int], tuple[int, ...], bool]]:
        return [
            (dict(each.node_map.pairs if each.node_map else {}), each.pids, each.dry_run)
            for each in self.requests
        ]

    def is_untouched(self) -> bool:
        sets = [self.cpus_at(), self.cpus_at(f"{JOB}/step_0")]
        return sets == ["0-1", "0-1"] and self.bound() == {200: "0", 201: "1"}


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    made = Host(tmp_path)
    for module in (cpusets, migrate_module):
        monkeypatch.setattr(module, "affinity", lambda thread, _: made.affinity(thread.tid))
        monkeypatch.setattr(module, "bind", lambda thread, cpus, _: made.bind(thread.tid, cpus))
    return made


# -- migrate -------------------------------------------------------------------------------------


def test_the_job_moves_task_by_task(host: Host) -> None:
    move = migrate(host.slurm, "7", cpus("2-3"), host.relocate)
    assert (move.failure, move.not_restored, move.notes) == (None, (), ())
    assert (host.cpus_at(), host.cpus_at(f"{JOB}/step_0")) == ("2-3", "2-3")
    assert host.cpus_at("slurm/uid_2001") == "0-3"
    assert host.bound() == {200: "2", 201: "3"}
    assert host.asked() == [({0: 2, 1: 3}, (200, 201), True), ({0: 2, 1: 3}, (200, 201), False)]
    assert (move.old, move.new) == (place("0-1"), place("2-3"))
    assert [task.placement for task in move.after] == [place("2"), place("3")]


def test_crossing_over(host: Host) -> None:
    """One map for both tasks: it says where each node's pages go, whoever has them."""
    migrate(host.slurm, "7", cpus("1-2"), host.relocate)
    assert host.bound() == {200: "1", 201: "2"}
    assert host.asked()[-1][0] == {0: 1, 1: 2}


def test_a_dry_run_changes_nothing(host: Host) -> None:
    move = migrate(host.slurm, "7", cpus("2-3"), host.relocate, dry_run=True)
    assert move.done
    assert [report.outcome for report in move.reports] == [Outcome.PLANNED]
    assert host.is_untouched()


def test_a_refusal_comes_before_anything_is_touched(host: Host) -> None:
    host.refusal = "node 2 has no room"
    move = migrate(host.slurm, "7", cpus("2-3"), host.relocate)
    assert move.failure == "node 2 has no room"
    assert host.is_untouched()
    assert [dry for _, _, dry in host.asked()] == [True]


def test_memory_that_fails_takes_the_processors_back(host: Host) -> None:
    host.outcomes = [Outcome.FAILED]
    move = migrate(host.slurm, "7", cpus("2-3"), host.relocate)
    assert move.failure == "the memory could not follow: it went wrong"
    assert host.is_untouched()
    assert len(move.reports) == 1


def test_memory_that_stays_in_part_does_not(host: Host) -> None:
    host.outcomes = [Outcome.PARTIAL]
    move = migrate(host.slurm, "7", cpus("2-3"), host.relocate)
    assert move.done
    assert [report.outcome for report in move.reports] == [Outcome.PARTIAL]


def test_parts_that_fit_one_by_one_must_fit_together(host: Host) -> None:
    """Two ranks of one node go to two nodes by two maps, which both bring a third's memory."""
    host.cpuset(f"{JOB}/step_0", "0-1", [200, 201])
    for node, text in enumerate(("0-1", "2", "3", "")):
        write_file(host.root, f"sys/devices/system/node/node{node}/cpulist", f"{text}\n")
    host.free = 150 * MIB
    move = migrate(host.slurm, "7", cpus("2-3"), host.relocate)
    assert move.done
    assert [pairs for pairs, _, _ in host.asked()] == [{0: 1}, {0: 2}] * 2
    host.free = 50 * MIB
    again = migrate(host.slurm, "7", cpus("0-1"), host.relocate)
    assert "has no room" in (again.failure or "")


def test_fewer_processors_and_those_of_others_are_told(host: Host) -> None:
    host.cpuset("slurm/uid_5/job_8", "3")
    move = migrate(host.slurm, "7", cpus("3"), host.relocate)
    assert move.done
    assert host.bound() == {200: "3", 201: "3"}
    assert move.notes == (
        "2 processors become 1: some tasks share one now",
        "processors 3 are job 8's too",
    )


@pytest.mark.parametrize(
    ("job", "wanted", "error", "says"),
    [
        ("8", "2-3", UsageError, "job 8 has no process on this host"),
        ("7", "", UsageError, "empty"),
        ("7", "3-4", UsageError, "processor 4 is not online"),
    ],
)
def test_what_cannot_be_meant(
    host: Host, job: str, wanted: str, error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        migrate(host.slurm, job, cpus(wanted), host.relocate)
    assert host.is_untouched()
    assert not host.requests


def test_processors_outside_of_what_slurm_itself_has(host: Host) -> None:
    host.cpuset("slurm", "0-2")
    with pytest.raises(RefusedError, match="allows processors 0-2, not 3"):
        migrate(host.slurm, "7", cpus("2-3"), host.relocate)


def test_processors_of_nodes(host: Host) -> None:
    for node, text in enumerate(("0-3", "4-7", "8-11", "12-15")):
        write_file(host.root, f"sys/devices/system/node/node{node}/cpulist", f"{text}\n")
    assert cpus_of_nodes(host.slurm, "7", NodeSet({1})) == cpus("4-5")
    assert cpus_of_nodes(host.slurm, "7", NodeSet({2, 3})) == cpus("8,12")
    host.cpuset("slurm/uid_5/job_8", "8-10")
    assert cpus_of_nodes(host.slurm, "7", NodeSet({2})) == cpus("8,11")
    host.cpuset(JOB, "0-5")
    with pytest.raises(UsageError, match="nodes 2 have 4 processors, and job 7 has 6"):
        cpus_of_nodes(host.slurm, "7", NodeSet({2}))


def test_who_wants_to_know_hears_before_anything_changes(host: Host) -> None:
    """So that what is interrupted can be finished."""
    heard: list[tuple[bool, Placement]] = []
    migrate(
        host.slurm, "7", cpus("2-3"), host.relocate,
        begin=lambda move: heard.append((host.is_untouched(), move.new)),
    )  # fmt: skip
    assert heard == [(True, place("2-3"))]


# -- reapply -------------------------------------------------------------------------------------

WISH = PlacementOverride(was=place("0-1"), placement=place("2-3"))
HOMES = {"0.0": place("2"), "0.1": place("3")}


def after_slurm_wrote_for_a_new_step(host: Host) -> None:
    """The job was relocated to 2-3; step 1 starts, and Slurm gives the job 0-1 again."""
    host.add_step("1", {300: "0", 301: "1"})
    host.cpuset(JOB, "0-1")
    host.cpuset(f"{JOB}/step_0", "0-1", [200, 201])
    for pid in (200, 201):
        host.bind(pid, {0, 1})


def test_a_wish_holds_for_old_steps_and_new_ones(host: Host) -> None:
    after_slurm_wrote_for_a_new_step(host)
    said = reapply(host.slurm, "7", WISH, host.relocate, HOMES)
    assert said == "processors 2-3 as wished, moved 100.0 MiB"
    assert [host.cpus_at(f"{JOB}/step_{step}") for step in (0, 1)] == ["2-3", "2-3"]
    assert {pid: str(host.affinity(pid)) for pid in (200, 201, 300, 301)} == {
        200: "2",
        201: "3",
        300: "2",
        301: "3",
    }


def test_a_step_that_still_has_what_was_wished_keeps_it(host: Host) -> None:
    """On version 2 Slurm writes the job's cpuset, and leaves those of older steps."""
    after_slurm_wrote_for_a_new_step(host)
    host.cpuset(f"{JOB}/step_0", "2-3", [200, 201])
    host.bind(200, {2})
    host.bind(201, {2, 3})
    host.cpuset(JOB, "0-3")
    reapply(host.slurm, "7", WISH, host.relocate, HOMES)
    assert host.cpus_at(f"{JOB}/step_0") == "2-3"
    assert host.bound() == {200: "2", 201: "3"}


def test_memory_that_is_at_home_is_not_moved_again(host: Host) -> None:
    """From 0-1 to 1-2: what the first step has on node 1 came from node 0, and stays."""
    host.add_step("1", {300: "0", 301: "1"})
    homes = {"0.0": place("1"), "0.1": place("2")}
    override = PlacementOverride(was=place("0-1"), placement=place("1-2"))
    reapply(host.slurm, "7", override, host.relocate, homes)
    assert host.asked()[-1] == ({0: 1, 1: 2}, (300, 301), False)
    assert host.bound() == {200: "1", 201: "2"}
    assert str(host.affinity(301)) == "2"


@pytest.mark.parametrize(
    ("job", "step", "bound"),
    [
        ("0-1", "0-1", {200: "0", 201: "1"}),  # killed before anything
        ("0-3", "0-1", {200: "0", 201: "1"}),  # while it widened
        ("0-3", "0-3", {200: "2", 201: "1"}),  # while it bound
        ("0-3", "0-3", {200: "2", 201: "3"}),  # while memory moved
        ("0-3", "2-3", {200: "2-3", 201: "2-3"}),  # while it narrowed, which unbinds
        ("2-3", "2-3", {200: "2", 201: "3"}),  # at the end
    ],
)
def test_what_was_interrupted_is_finished(
    host: Host, job: str, step: str, bound: dict[int, str]
) -> None:
    host.cpuset(JOB, job)
    host.cpuset(f"{JOB}/step_0", step, [200, 201])
    for pid, wanted in bound.items():
        host.bind(pid, cpus(wanted))
    override = PlacementOverride(was=place("0-1"), placement=place("2-3"), leaving=cpus("0-1"))
    reapply(host.slurm, "7", override, host.relocate, {"0.0": place("0"), "0.1": place("1")})
    assert (host.cpus_at(), host.cpus_at(f"{JOB}/step_0")) == ("2-3", "2-3")
    assert host.bound() == {200: "2", 201: "3"}
    assert host.asked()[-1] == ({0: 2, 1: 3}, (200, 201), False)


def test_a_wish_that_cannot_be_had_leaves_all_as_it_was(host: Host) -> None:
    host.refusal = "node 2 has no room"
    with pytest.raises(RefusedError, match="no room"):
        reapply(host.slurm, "7", WISH, host.relocate, {})
    host.refusal, host.outcomes = None, [Outcome.REFUSED]
    with pytest.raises(RefusedError, match="could not follow"):
        reapply(host.slurm, "7", WISH, host.relocate, {})
    assert host.is_untouched()


def test_a_job_that_is_gone_needs_nothing(host: Host) -> None:
    assert reapply(host.slurm, "8", WISH, host.relocate, {}) == "no process on this host"


# -- rebind --------------------------------------------------------------------------------------

WERE = {"0.0": place("0"), "0.1": place("1")}


def give(host: Host, wanted: str, bound: dict[int, str]) -> None:
    """Somebody writes another cpuset, and the kernel takes the bindings away."""
    host.cpuset(JOB, wanted)
    host.cpuset(f"{JOB}/step_0", wanted, [200, 201])
    for pid, its in bound.items():
        host.bind(pid, cpus(its))


@pytest.mark.parametrize(
    ("now", "lost", "then"),
    [
        ("2-3", {200: "2-3", 201: "2-3"}, {200: "2", 201: "3"}),
        ("1-2", {200: "1-2", 201: "1-2"}, {200: "1", 201: "2"}),
        ("3", {200: "3", 201: "3"}, {200: "3", 201: "3"}),
        ("2-3", {200: "2-3", 201: "2"}, {200: "2", 201: "2"}),
    ],
)
def test_lost_bindings_come_back_in_their_place(
    host: Host, now: str, lost: dict[int, str], then: dict[int, str]
) -> None:
    give(host, now, lost)
    assert rebind(host.slurm, "7", WERE)
    assert host.bound() == then


def test_what_was_not_lost_is_left_alone(host: Host) -> None:
    assert not rebind(host.slurm, "7", WERE)
    assert not rebind(host.slurm, "7", {})
    assert not rebind(host.slurm, "8", WERE)
    # A task that has unbound itself, in the cpuset that it always had.
    host.bind(200, {0, 1})
    assert not rebind(host.slurm, "7", WERE)
    # Nor where the cpuset has grown.
    give(host, "0-3", {200: "0-3", 201: "0-3"})
    assert not rebind(host.slurm, "7", WERE)
    # A kernel that keeps bindings has already bound them.
    give(host, "2-3", {200: "2", 201: "3"})
    assert not rebind(host.slurm, "7", WERE)
    # Tasks that were never bound within the job.
    give(host, "2-3", {200: "2-3", 201: "2-3"})
    assert not rebind(host.slurm, "7", {"0.0": place("0-1"), "0.1": place("0-1")})
    assert host.bound() == {200: "2-3", 201: "2-3"}


def test_the_adapter_offers_both(host: Host) -> None:
    offered: list[Callable[..., object]] = [host.slurm.reapply, host.slurm.rebind]
    assert offered[0]("7", WISH, host.relocate, {}) == "processors 2-3 as wished, moved 100.0 MiB"
    assert offered[1]("7", {}) is False
