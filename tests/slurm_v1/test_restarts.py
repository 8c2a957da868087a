"""The same as tests/slurm/test_restarts.py, on cgroups of version 1."""

from __future__ import annotations

from tests.slurm.conftest import backfill, hooks
from tests.slurm.test_restarts import (
    test_a_component_is_moved_and_both_complete,
    test_a_requeued_job_starts_where_slurm_puts_it,
)

__all__ = [
    "backfill",
    "hooks",
    "test_a_component_is_moved_and_both_complete",
    "test_a_requeued_job_starts_where_slurm_puts_it",
]
