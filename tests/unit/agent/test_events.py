"""Events as adapters read them, and ids of jobs."""

from __future__ import annotations

from pathlib import Path

import pytest

from schedhook.agent.events import read_event
from schedhook.hook.message import parse_message
from schedhook.roles.scheduler import EventKind, check_job
from schedhook.values.errors import UsageError
from schedhook.values.model import Event
from tests.unit.agentkit import FakeScheduler, message


@pytest.mark.parametrize(
    "job",
    ["../../etc", "1/2", ".", "..", "-1", "1\n2", "1\0", "x" * 129, "a b", "٣", "1\x1b[2J", "$(x)"],
)
def test_a_path_is_not_a_valid_job_id(job: str) -> None:
    with pytest.raises(UsageError):
        check_job(job)


@pytest.mark.parametrize("job", ["1", "123_4", "12+1", "7.host.example.org", "9[].host", "9[3]"])
def test_job_ids_of_real_schedulers_are_valid(job: str) -> None:
    check_job(job)


def test_a_job_id_may_be_missing_only_if_the_event_has_no_job(tmp_path: Path) -> None:
    adapter = FakeScheduler(tmp_path)
    read_event(parse_message(message("periodic", "")), adapter)
    with pytest.raises(UsageError):
        read_event(parse_message(message("begin", "")), adapter)


def test_the_adapters_own_kinds_come_before_the_common_names(tmp_path: Path) -> None:
    adapter = FakeScheduler(tmp_path)
    event = Event(scheduler="fake", point="prolog", job="1")
    assert adapter.kind_of(event) is EventKind.JOB_STARTED
    adapter.kinds = {"prolog": "ignore"}  # type: ignore[attr-defined]
    assert adapter.kind_of(event) is EventKind.IGNORE
    strange = Event(scheduler="fake", point="unheard-of", job="1")
    assert adapter.kind_of(strange) is EventKind.IGNORE
    assert adapter.kind_of(Event(scheduler="fake", point="task-prolog", job="1")) is (
        EventKind.STEP_STARTED
    )
