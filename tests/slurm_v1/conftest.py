"""A real Slurm on cgroups of version 1, which needs a guest of its own: the controllers move."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.numa.jobs import cpuset_v1
from tests.slurm.cluster import CannotRun, Cluster, require_machine, running
from tests.slurm.conftest import cluster, numa_balancing, patience

__all__ = ["cluster", "numa_balancing", "patience"]


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The cluster with two hosts; where it cannot run tests are skipped, or fail in CI."""
    try:
        require_machine()
    except CannotRun as error:
        if {"CI", "TESTS_IN_VM"} & set(os.environ):
            pytest.fail(str(error))
        pytest.skip(str(error))
    directory = tmp_path_factory.mktemp("cgroups")
    with cpuset_v1(directory):
        mount_v1(directory, "freezer")
        with running(Cluster(hosts=("n1", "n2"), version_1=directory)) as cluster:
            yield cluster
        for path in sorted((directory / "cpuset").rglob("*/"), reverse=True):  # those below first
            path.rmdir()


def mount_v1(directory: Path, controller: str) -> None:
    """Mount a controller that version 2 does not have, for the life of the guest."""
    (directory / controller).mkdir()
    words = ["mount", "-t", "cgroup", "-o", controller, controller, directory / controller]
    subprocess.run(words, check=True, timeout=60)
