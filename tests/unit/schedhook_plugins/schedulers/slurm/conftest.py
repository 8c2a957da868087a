"""Fixtures of the tests of Slurm's plug-in."""

from __future__ import annotations

from pathlib import Path

import pytest

from schedhook.control import cpu_move
from schedhook_plugins.schedulers.slurm import rebinding
from tests.unit.schedhook_plugins.schedulers.slurm.job_host import JobHost


@pytest.fixture
def job_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> JobHost:
    """A host with job 7, whose threads are bound by changing files."""
    made = JobHost(tmp_path)
    for module in (cpu_move, rebinding):
        monkeypatch.setattr(module, "affinity", lambda thread, _: made.affinity(thread.tid))
        monkeypatch.setattr(module, "bind", lambda thread, cpus, _: made.bind(thread.tid, cpus))
    return made
