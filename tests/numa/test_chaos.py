"""Two minutes, or as long as wanted, of everything at random: nobody comes to harm.

SCHEDHOOK_CHAOS_SECONDS says how long, and SCHEDHOOK_SEED repeats a run that is printed with its
seed, its steps and the number of checks.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.numa.agents import PATIENCE
from tests.numa.chaos import chaos_host
from tests.numa.killing import random_moments

SECONDS = float(os.environ.get("SCHEDHOOK_CHAOS_SECONDS", "120"))
SETTLE_EVERY = 6
"""Steps; in between they disturb each other."""
LONG = 60.0
"""Seconds after which a step's output has the end of the agent's log."""

pytestmark = [pytest.mark.nodes(4), pytest.mark.timeout(SECONDS + 3 * PATIENCE)]


def test_nobody_comes_to_harm(tmp_path: Path) -> None:
    end = time.monotonic() + SECONDS
    done: list[str] = []
    with chaos_host(tmp_path, random_moments()) as host:
        try:
            while time.monotonic() < end:
                if not host.jobs:
                    host.start_job()
                began = time.monotonic()
                done.append(host.step())
                host.check()
                if len(done) % SETTLE_EVERY == 0:
                    host.check_settled()
                seconds = time.monotonic() - began
                print(f"{len(done)}: {done[-1]} ({seconds:.1f} s)", flush=True)
                if seconds > LONG:
                    print(host.log.read_text()[-2000:], flush=True)
            host.check_settled()
            host.check_ended()
        except BaseException:
            print(f"seed {os.environ.get('SCHEDHOOK_SEED', '1')}, last: {done[-5:]}")
            print(host.log.read_text()[-20_000:])
            raise
    print(f"seed {os.environ.get('SCHEDHOOK_SEED', '1')}: {len(done)} steps, {host.checks} checks")
    print(", ".join(f"{name} {count}" for name, count in sorted(host.steps.items())))
    print(f"{host.moved() >> 20} MiB moved")
    assert host.checks, "nothing was done"
    assert host.moved() or len(done) < 10, "no memory has moved"
