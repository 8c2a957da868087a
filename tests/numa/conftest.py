"""Tests of kernel behaviour: they run as root where there are several NUMA nodes.

``@pytest.mark.nodes(4)`` declares how many nodes with memory a test needs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from schedhook.cli.main import main
from tests.balancing import balanced, setting, states_of
from tests.numa.dirt import PageCache, page_cache_on
from tests.numa.dirty_host import DirtyHost
from tests.numa.disks import compressed_disk
from tests.numa.jobs import cannot_run, drop_caches
from tests.numa.programs import program

NODES = Path("/sys/devices/system/node")
MIN_FREE = Path("/proc/sys/vm/min_free_kbytes")
MOST_KEPT_KIB = 110 << 10
"""What Linux 6.1 and 6.12 keep in the virtual machine of these tests, on x86-64."""
BALANCING = "off"
"""Most of these tests watch single pages."""


def nodes_with_memory() -> list[int]:
    """The numbers of the nodes that have memory, as the kernel tells them."""

    def total_kib(node: Path) -> int:
        return int((node / "meminfo").read_text().partition("MemTotal:")[2].split()[0])

    found = [node for node in NODES.glob("node[0-9]*") if total_kib(node) > 0]
    return sorted(int(node.name.removeprefix("node")) for node in found)


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    config.addinivalue_line("markers", "nodes(count): NUMA nodes with memory that the test needs")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test with each state of NUMA balancing that it is marked with."""
    states = states_of(metafunc.definition, BALANCING)
    if len(states) > 1:
        metafunc.parametrize("numa_balancing", states, indirect=True)


@pytest.fixture(autouse=True)
def numa_balancing(request: pytest.FixtureRequest) -> Iterator[str]:
    """Switch NUMA balancing as the tier, the test or the option says."""
    state = getattr(request, "param", None) or states_of(request.node, BALANCING)[0]
    with balanced(state):
        yield state
    if state == "on":
        program.cache_clear()  # it may have moved pages of the programs' files, too


@pytest.fixture(autouse=True)
def declared_topology(request: pytest.FixtureRequest) -> None:
    """A host that is too small runs none of them."""
    marker = request.node.get_closest_marker("nodes")
    needed = marker.args[0] if marker else 1
    have = len(nodes_with_memory())
    if have < needed:
        cannot_run(f"needs {needed} NUMA nodes with memory, this host has {have}")


@pytest.fixture(autouse=True)
def free_memory() -> Iterator[None]:
    """Let the kernel keep no more memory free than where huge pages have 2 MiB.

    The tests of room count on that; for larger ones it keeps a twentieth of all memory. Each
    processor may keep an eighth of a node's, which MemFree does not show, and return it later.
    """
    with ExitStack() as stack:
        if int(MIN_FREE.read_text()) > MOST_KEPT_KIB:
            stack.enter_context(setting(MIN_FREE, MOST_KEPT_KIB))
            stack.enter_context(setting(MIN_FREE.with_name("percpu_pagelist_high_fraction"), 200))
        yield


@pytest.fixture(scope="session")
def dirty_host(
    pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[DirtyHost | None]:
    """Make the host dirty on request."""
    if not pytestconfig.getoption("dirty"):
        yield None
        return
    with DirtyHost.make(nodes_with_memory(), tmp_path_factory.mktemp("dirty")) as host:
        yield host


@pytest.fixture(autouse=True)
def dirty(dirty_host: DirtyHost | None) -> Iterator[None]:
    """Start each test on a host that is as dirty, and check that its programs are unharmed."""
    if dirty_host:
        dirty_host.make_dirty()
    yield
    if dirty_host:
        dirty_host.check()


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Any:
    """Call the command in this process: starting an interpreter takes seconds in the guest."""

    def run(*arguments: object) -> tuple[int, dict[str, Any]]:
        capsys.readouterr()
        status = main([str(each) for each in arguments] + ["--json"], standalone_mode=False)
        report = json.loads(capsys.readouterr().out)
        print(json.dumps(report))  # shown where the test fails
        if "outcome" in report and report["outcome"] not in ("failed",):
            assert_adds_up(report)
        return status, report

    return run


@pytest.fixture
def run_cpuset(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Call `relocate` with the strategy cpuset, which is allowed here on any kernel."""
    config = tmp_path / "config.toml"
    config.write_text("[plugins.options.cpuset]\nallow_blocking = true\n")
    monkeypatch.setenv("SCHEDHOOK_CONFIG", str(config))

    def run_cpuset(*arguments: object) -> tuple[int, dict[str, Any]]:
        status, report = run("relocate", *arguments, "--strategy", "cpuset")
        assert_adds_up(report)  # also after a failure
        return status, report

    return run_cpuset


@pytest.fixture(scope="session")
def cache_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageCache]:
    """Mount the disk of the page cache."""
    directory = tmp_path_factory.mktemp("cache") / "disk"
    with compressed_disk(4096) as disk, page_cache_on(disk, directory) as cache:
        yield cache


@pytest.fixture
def page_cache(cache_disk: PageCache) -> Iterator[PageCache]:
    """Let a test fill nodes with page cache."""
    drop_caches()
    yield cache_disk
    cache_disk.remove()


def assert_adds_up(report: dict[str, Any]) -> None:
    """What every report promises."""
    assert report["bytes_planned"] == report["bytes_moved"] + report["bytes_left"], report
    assert report["bytes_left"] == sum(report["left_by_reason"].values()), report
    assert report["bytes_moved"] == sum(each["bytes_moved"] for each in report["processes"])
    assert report["bytes_left"] == sum(each["bytes_left"] for each in report["processes"])
