"""`schedhook rebalance`: the matrix, the order, refusals and the exit status, on made-up hosts."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from schedhook.relocation import rotate
from schedhook.testing.hosts import FakeNode, write_cgroup_mounts, write_host
from schedhook.values.sets import CpuSet
from tests.unit.clikit import Run
from tests.unit.screenkit import MIB, add_job

RING = {1: (0, 1), 2: (1, 2), 3: (2, 0)}
"""The node of each job, and the one on which its memory is."""


def write_jobs(root: Path, jobs: dict[int, tuple[int, int]], free: int, mib: int = 600) -> None:
    """Write a host of four nodes, and jobs with `mib` MiB each that are away from their nodes."""
    nodes = [
        FakeNode(number=node, cpus=f"{2 * node}-{2 * node + 1}", memory=1024 * MIB, free=free * MIB)
        for node in range(4)
    ]
    write_host(root, nodes)
    write_cgroup_mounts(root)
    for job, (home, at) in jobs.items():
        add_job(root, job, {100 * job: (2 * home, {at: mib})})


def rebalance(run: Run, root: Path, *words: object) -> tuple[int, dict[str, Any]]:
    status, out, _ = run("rebalance", "--root", root, "--backend", "simulated", "--json", *words)
    shown: dict[str, Any] = json.loads(out)
    for job in shown["jobs"]:
        assert job["bytes_planned"] == job["bytes_moved"] + job["bytes_left"]
    return status, shown


def outcomes(shown: dict[str, Any]) -> dict[str, str]:
    return {each["job"]: each["outcome"] for each in shown["jobs"]}


def test_the_ring(run: Run, tmp_path: Path) -> None:
    write_jobs(tmp_path, RING, free=64)
    relocate = ("relocate", "--all", "--home", "--backend", "simulated", "--root", tmp_path)
    assert run(*relocate)[0] == 4, "one job at a time has no room"
    status, shown = rebalance(run, tmp_path, "--dry-run")
    assert (status, set(outcomes(shown).values())) == (0, {"planned"})
    assert shown["matrix"] == [
        {"scheduler": "slurm", "job": str(job), "from": at, "to": home, "bytes": 600 * MIB}
        for job, (home, at) in RING.items()
    ]
    first = {"scheduler": "slurm", "job": "1", "from": 1, "to": 0, "home": 0, "bytes": 48 * MIB}
    assert shown["order"][0] == first, "a quarter of the reserve is kept"
    status, shown = rebalance(run, tmp_path)
    assert (status, set(outcomes(shown).values())) == (0, {"complete"})
    for job in shown["jobs"]:
        home = RING[int(job["job"])][0]
        (process,) = job["processes"]
        assert process["residency_after"][str(home)] >= 600 * MIB
        assert job["bytes_moved"] == 600 * MIB


def test_a_job_that_cannot_go_home_is_refused_and_the_others_go(run: Run, tmp_path: Path) -> None:
    write_jobs(tmp_path, RING | {4: (0, 3)}, free=64)
    status, shown = rebalance(run, tmp_path)
    assert status == 4
    assert outcomes(shown) == {
        "1": "complete",
        "2": "complete",
        "3": "complete",
        "4": "refused",
    }
    assert "node 0 has no room" in shown["jobs"][3]["notes"][-1]
    assert [each["job"] for each in shown["matrix"]] == ["1", "2", "3", "4"]
    assert "4" not in {each["job"] for each in shown["order"]}


def test_the_whole_reserve_is_kept_in_the_end(run: Run, tmp_path: Path) -> None:
    write_jobs(tmp_path, {1: (0, 1)}, free=100, mib=50)
    assert outcomes(rebalance(run, tmp_path)[1]) == {"1": "refused"}
    assert outcomes(rebalance(run, tmp_path, "--reserve", 50)[1]) == {"1": "complete"}


def test_full_nodes_borrow_the_room_of_another(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rotate, "_BEFORE_DETOUR", 0)
    write_jobs(tmp_path, {1: (0, 1), 2: (1, 0)}, free=64, mib=500)
    for node in (0, 1):
        meminfo = tmp_path / f"sys/devices/system/node/node{node}/meminfo"
        text = meminfo.read_text().replace(f"{64 << 10} kB", "0 kB")
        meminfo.write_text(text)
    status, shown = rebalance(run, tmp_path)
    assert (status, set(outcomes(shown).values())) == (0, {"complete"}), shown["jobs"]
    assert [each["bytes_moved"] // MIB for each in shown["jobs"]] == [500, 500]
    detours = [each for each in shown["order"] if each["to"] != each["home"]]
    assert sum(each["bytes"] for each in detours) <= 64 * MIB


@pytest.mark.parametrize(("words", "bound"), [((), 1), (("--threads", 2), 0)])
def test_threads_that_are_asked_for_are_not_bound_to_one_processor(
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[object, ...],
    bound: int,
) -> None:
    seen, bind = [], rotate.bound_thread

    def bound_thread(cpus: CpuSet) -> AbstractContextManager[None]:
        seen.append(len(cpus))
        return bind(cpus)

    monkeypatch.setattr(rotate, "bound_thread", bound_thread)
    write_jobs(tmp_path, RING, free=64)
    assert rebalance(run, tmp_path, *words)[0] == 0
    assert set(seen) == {bound}


def test_at_home_there_is_nothing_to_do(run: Run, tmp_path: Path) -> None:
    write_jobs(tmp_path, {1: (0, 0)}, free=64)
    status, shown = rebalance(run, tmp_path)
    assert (status, outcomes(shown), shown["matrix"]) == (0, {"1": "nothing-to-do"}, [])


def test_a_host_without_jobs(run: Run, tmp_path: Path) -> None:
    write_jobs(tmp_path, {}, free=64)
    assert rebalance(run, tmp_path)[0] == 0
    assert run("rebalance", "--root", tmp_path)[1] == "no job on this host\n"


def test_what_people_see(run: Run, tmp_path: Path) -> None:
    write_jobs(tmp_path, RING | {4: (0, 3)}, free=64)
    _, out, _ = run("rebalance", "--dry-run", "--backend", "simulated", "--root", tmp_path)
    assert "slurm 1     1   0  600.0 MiB" in out
    assert "slurm 4: node 0 has no room: 600.0 MiB of the job" in out


@pytest.mark.parametrize(
    "words", [("--scheduler", "none"), ("--backend", "none"), ("--reserve", "-1")]
)
def test_wrong_usage(run: Run, tmp_path: Path, words: tuple[str, str]) -> None:
    write_jobs(tmp_path, RING, free=64)
    assert run("rebalance", "--root", tmp_path, *words)[0] == 2


def test_a_job_that_is_off_is_left_alone(run: Run, tmp_path: Path) -> None:
    write_jobs(tmp_path, {1: (0, 1), 2: (1, 0)}, free=200, mib=100)
    (tmp_path / "proc/100/environ").write_bytes(b"SCHEDHOOK=off\0")
    _, shown = rebalance(run, tmp_path)
    assert outcomes(shown) == {"2": "complete"}
    assert [each["job"] for each in shown["left_alone"]] == ["1"]
    assert shown["left_alone"][0]["why"]
