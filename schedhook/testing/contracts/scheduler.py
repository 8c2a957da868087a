"""What every adapter for a batch scheduler must do, as tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from schedhook.roles.scheduler import Scheduler
from schedhook.testing.contracts.plugin import PluginContract
from schedhook.testing.hosts import FakeNode, write_cgroup_mounts, write_host
from schedhook.values.errors import UsageError
from schedhook.values.model import Event


class SchedulerContract(PluginContract):
    """For every adapter: what it says of jobs that are not there, and of events that make no
    sense. That it finds real jobs only its author can test."""

    @pytest.fixture
    def scheduler(self, tmp_path: Path) -> Scheduler:
        write_host(tmp_path, [FakeNode(number=number, cpus=str(number)) for number in range(2)])
        write_cgroup_mounts(tmp_path)
        return self.loaded().scheduler(self.name).create(tmp_path)

    def test_it_says_its_name(self, scheduler: Scheduler) -> None:
        assert scheduler.name == self.name

    def test_an_unknown_job_has_nothing_here(self, scheduler: Scheduler) -> None:
        assert scheduler.tasks("987654321") == ()
        assert scheduler.cgroups("987654321") == ()

    @pytest.mark.parametrize("data", [b"", b"\xff\0", b"{", b"[]", b'{"job": 7}'])
    def test_an_event_is_read_or_refused(self, scheduler: Scheduler, data: bytes) -> None:
        try:
            event = scheduler.read_event("no-such-point", {"X": "y"}, data)
        except UsageError as error:
            assert "\n" not in str(error)
        else:
            assert isinstance(event, Event)
