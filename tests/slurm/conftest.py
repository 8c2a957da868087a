"""A real Slurm for the tests of this tier, started once and cleaned up after each test."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

# At the end, so that the installed schedhook is tested.
sys.path.append(str(Path(__file__).parents[2]))

from schedhook.hook import delivery
from schedhook.plugins.loading import load_plugins
from schedhook.relocation.pipeline import relocate
from schedhook.roles.request import Request
from schedhook.values.config import Config
from schedhook.values.model import Report
from schedhook_plugins.schedulers.slurm import queries
from tests.balancing import balanced, states_of
from tests.slurm.cluster import CannotRun, Cluster, require_machine, running

HOOK_SECONDS = 30
"""The time limit of a hook, which is to end by itself however slow the machine is."""
BALANCING = "off"
"""Hosts with several nodes have it on: SCHEDHOOK_BALANCING=on."""


@pytest.fixture(autouse=True)
def numa_balancing(request: pytest.FixtureRequest) -> Iterator[str]:
    """Switch NUMA balancing as the tier, the test or the option says."""
    (state,) = states_of(request.node, BALANCING)
    with balanced(state):
        yield state


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give Slurm's commands the time that they take on an emulated machine."""
    monkeypatch.setattr(queries, "SECONDS", 60.0)


@pytest.fixture(scope="session")
def slurm() -> Iterator[Cluster]:
    """The cluster with two hosts; where it cannot run tests are skipped, or fail in CI."""
    try:
        require_machine()
    except CannotRun as error:
        if {"CI", "TESTS_IN_VM"} & set(os.environ):
            pytest.fail(str(error))
        pytest.skip(str(error))
    with running(Cluster(hosts=("n1", "n2"))) as cluster:
        yield cluster


@pytest.fixture
def cluster(slurm: Cluster) -> Iterator[Cluster]:
    """The cluster without any job, before the test and after it.

    A test during which a host was drained fails; the host is returned to service for the next test.
    """
    yield slurm
    slurm.cancel_all()
    drained = [host for host in slurm.hosts if slurm.is_drained(host)]
    for host in drained:
        slurm.undrain(host)
    assert not drained, f"drained: {drained}\n{slurm.diagnosis()}"


@pytest.fixture
def backfill(cluster: Cluster) -> Iterator[Cluster]:
    """The cluster with the scheduler that starts heterogeneous jobs, which is the only one."""
    cluster.restart_controller(SchedulerType="sched/backfill", SchedulerParameters="bf_interval=2")
    yield cluster
    cluster.cancel_all()
    cluster.restart_controller()


@pytest.fixture
def methods(cluster: Cluster) -> list[queries.QueryMethod]:
    """What can be asked here: pyslurm is not installed, and scontrol's JSON came with 23.02."""
    names = ["scontrol-json"] if cluster.version >= (23, 2) else []
    names += ["squeue-json", "text"]
    return [method for method in queries.QUERY_METHODS if method.name in names]


@pytest.fixture(scope="session")
def pipeline() -> Callable[[Request], Report]:
    """The relocation pipeline with the default configuration."""
    config = Config()
    plugins = load_plugins(config)
    return lambda request: relocate(request, config, plugins)


@pytest.fixture
def hooks(cluster: Cluster) -> Iterator[Path]:
    """The hooks as `install` writes them, named in slurm.conf until the test has ended."""
    directory = cluster.directory / "hooks"
    install = Path(__file__).parents[2] / "contrib/slurm/install"
    command = [sys.executable, install, "--directory", directory, "--seconds", str(HOOK_SECONDS)]
    subprocess.run(command, check=True, timeout=180, stdout=subprocess.DEVNULL)
    shutil.rmtree(delivery.SPOOL, ignore_errors=True)
    cluster.reconfigure(
        Prolog=f"{directory}/prolog",
        Epilog=f"{directory}/epilog",
        TaskProlog=f"{directory}/task_prolog",
    )
    yield directory
    cluster.cancel_all()
    cluster.reconfigure()
    shutil.rmtree(directory)
    shutil.rmtree(delivery.SPOOL, ignore_errors=True)
