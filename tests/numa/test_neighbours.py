"""Neighbours on the real kernel: what they are entitled to on a node stays theirs."""

from __future__ import annotations

import mmap
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.numa.dirt import count_killed, taken
from tests.numa.jobs import MIB, Job, cgroup, drop_caches, free_bytes

pytestmark = pytest.mark.nodes(4)

STRATEGIES = ["move-pages", "migrate-process"]
RESERVE = 64
"""MiB, as configured by default."""
SCALE = 1 if mmap.PAGESIZE == 4096 else 2
"""With larger pages the kernel keeps more."""
SMALL, MORE, BIG = 16 * SCALE, 120 * SCALE, 150 * SCALE
"""MiB that the neighbour has, that it may still take, and that the relocated job has."""
KEPT = 40 * SCALE
"""MiB of a node that the kernel keeps for itself, at most."""
LESS = 80 * SCALE
"""MiB by which a neighbour takes less than the job has left."""


@pytest.fixture(autouse=True)
def nobody_killed() -> Iterator[None]:
    drop_caches()
    before = count_killed()
    yield
    assert count_killed() == before


@contextmanager
def fenced(name: str, node: int, mib: int, more: int) -> Iterator[tuple[Job, Path]]:
    """Start a job of `mib` MiB that may only allocate on the node, and `more` MiB beyond these."""
    with cgroup(name) as path:
        (path / "cpuset.mems").write_text(str(node))
        with Job("anon", mib, node, cgroup=path) as job:
            used = int((path / "memory.current").read_text())
            (path / "memory.max").write_text(str(used + more * MIB))
            (path / "memory.swap.max").write_text("0")
            yield job, path


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_neighbour_can_still_grow_as_far_as_it_may(run: Any, strategy: str) -> None:
    with (
        fenced("neighbour", 2, SMALL, MORE) as (neighbour, _),
        taken(2, leave=BIG + RESERVE + MORE // 2),
        Job("anon", BIG, 0) as job,
    ):
        before = job.checksum(), neighbour.checksum()
        arguments = ("--pid", job.pid, "--from", 0, "--to", 2, "--strategy", strategy)
        status, report = run("relocate", *arguments)
        assert (status, report["outcome"]) == (4, "refused")
        assert "nowhere else may still take" in report["notes"][-1]
        assert report["plan"]["claimed"]["2"] >= 0.9 * MORE * MIB
        assert job.share_on(0) == 1

        status, report = run("relocate", *arguments, "--force")
        assert (status, report["outcome"]) == (3, "partial")
        assert report["left_by_reason"]["reserve"] > 0
        assert 0 < report["bytes_moved"] <= (BIG - MORE // 2 + KEPT) * MIB
        neighbour.say(f"touch {MORE - 16} 2")
        assert (job.checksum(), neighbour.checksum()) == before
        assert free_bytes(2) >= RESERVE * MIB


def test_a_site_that_overcommits_can_say_so(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "config.toml"
    config.write_text("[relocation]\novercommit = true\n")
    monkeypatch.setenv("SCHEDHOOK_CONFIG", str(config))
    with (
        fenced("neighbour", 2, SMALL, MORE),
        taken(2, leave=BIG + RESERVE + MORE - SMALL),
        Job("anon", BIG, 0) as job,
    ):
        status, report = run("relocate", "--pid", job.pid, "--from", 0, "--to", 2)
        assert (status, report["outcome"]) == (0, "complete"), report["notes"]


def test_force_leaves_the_reserve(run: Any) -> None:
    with taken(2, leave=BIG), Job("anon", BIG, 0) as job:
        status, report = run("relocate", "--pid", job.pid, "--from", 0, "--to", 2, "--force")
        assert (status, report["outcome"]) == (3, "partial")
        assert report["left_by_reason"]["reserve"] >= RESERVE // 2 * MIB
        assert free_bytes(2) >= RESERVE * MIB
        assert report["bytes_moved"] > (BIG - RESERVE - KEPT - 32) * MIB


def test_a_node_that_fills_up_meanwhile_stops_the_move(run: Any) -> None:
    with (
        taken(2, leave=2 * BIG + RESERVE),
        Job("anon", SMALL, 2) as neighbour,
        Job("anon", BIG, 0) as job,
    ):
        before = job.checksum(), neighbour.checksum()

        def grow() -> None:
            time.sleep(1)
            neighbour.say(f"touch {2 * BIG - LESS} 2")

        growing = threading.Thread(target=grow)
        growing.start()
        status, report = run(
            "relocate", "--pid", job.pid, "--from", 0, "--to", 2, "--bandwidth", BIG / 20
        )
        growing.join()
        assert (status, report["outcome"]) == (3, "partial")
        assert report["left_by_reason"]["reserve"] > 0
        assert "the move stopped because node 2 has" in report["notes"][-1]
        assert 0 < report["bytes_moved"] <= (LESS + KEPT) * MIB
        assert free_bytes(2) >= (RESERVE - 8) * MIB
        assert (job.checksum(), neighbour.checksum()) == before


def test_a_job_that_moves_with_its_cpuset_takes_its_claim_along(run_cpuset: Any) -> None:
    with (
        fenced("job", 0, SMALL, MORE) as (job, path),
        taken(2, leave=SMALL + RESERVE + MORE // 2),
    ):
        before = job.checksum()
        arguments = ("--cgroup", path, "--from", 0, "--to", 2)
        status, report = run_cpuset(*arguments)
        assert (status, report["outcome"]) == (4, "refused")
        assert (path / "cpuset.mems").read_text().strip() == "0"

        status, report = run_cpuset(*arguments, "--force")
        assert (path / "cpuset.mems").read_text().strip() == "0,2"
        assert any("left wide: node 2" in note for note in report["notes"])
        job.say(f"touch {MORE - 16} 0")
        assert job.checksum() == before
