"""The example plug-in, installed as a third party's package, relocates a real job."""

from __future__ import annotations

import sys

import pytest

from tests.numa import programs
from tests.numa.callers import call
from tests.numa.jobs import MIB, Job, cgroup

pytestmark = pytest.mark.nodes(4)

SMALL, LARGE = 16, 64
ENOUGH = 0.999


def test_it_relocates_a_job() -> None:
    package = str(programs.example())
    with (
        cgroup("example") as path,
        Job("anon", SMALL, 0, cgroup=path) as small,
        Job("anon", LARGE, 0, cgroup=path) as large,
    ):
        before = small.checksum(), large.checksum()
        done = call(
            *("relocate", "--cgroup", path, "--from", 0, "--to", 2),
            *("--strategy", "largest-first", "--json"),
            become=lambda: sys.path.insert(0, package),
        )
        assert done.status == 0, done.said
        report = done.report
        assert (report["outcome"], report["strategy"]) == ("complete", "largest-first")
        assert report["bytes_moved"] >= (SMALL + LARGE) * MIB
        assert min(small.share_on(2), large.share_on(2)) >= ENOUGH
        assert (small.checksum(), large.checksum()) == before
