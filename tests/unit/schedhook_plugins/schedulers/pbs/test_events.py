"""Events of PBS: what its hook hands over."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schedhook.roles.notes import MemoryNotes
from schedhook.roles.scheduler import JobOrigin
from schedhook.values.errors import UsageError
from schedhook_plugins.schedulers.pbs.events import jobs_told
from schedhook_plugins.schedulers.pbs.notes import PbsNotes, Told
from schedhook_plugins.schedulers.pbs.scheduler import PbsScheduler


def told(job: str | None, **more: object) -> bytes:
    about = None if job is None else {"id": job, "euser": "root", "exec_vnode": None}
    return json.dumps({"job": about, "host": "n1", "jobs": [], **more}).encode()


def test_an_event_is_read(tmp_path: Path) -> None:
    event = PbsScheduler(tmp_path).read_event("resize", {}, told("12[3].n1"))
    assert (event.scheduler, event.point, event.job) == ("pbs", "resize", "12[3].n1")
    assert (event.user, event.host) == (0, "n1")
    assert PbsScheduler(tmp_path).read_event("periodic", {}, told(None)).job == ""


@pytest.mark.parametrize(
    "data", [b"", b"\xff", b"[]", b"7", b'{"job": 7}', b'{"jobs": {"1": 2}}', b'{"job": "x"}', b"["]
)
def test_what_is_no_event_is_a_usage_error(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(UsageError, match="PBS event begin: "):
        PbsScheduler(tmp_path).read_event("begin", {}, data)


@given(st.recursive(st.none() | st.integers() | st.text(max_size=3), st.lists, max_leaves=5))
def test_whatever_a_job_is_said_to_be(value: object) -> None:
    data = json.dumps({"job": {"id": value, "euser": value, "exec_vnode": value}, "host": value})
    event = PbsScheduler(Path("/nowhere")).read_event("begin", {}, data.encode())
    assert isinstance(event.job, str)


def test_an_event_of_all_jobs_tells_of_each(tmp_path: Path) -> None:
    jobs = [{"id": "1.n1", "exec_vnode": "(n1[0])"}, {"id": "2.n1"}, {"id": ""}, {"id": 7}, "3.n1"]
    pbs = PbsScheduler(tmp_path)
    event = pbs.read_event("periodic", {}, told(None, jobs=jobs))
    pbs.record_event(event)
    assert jobs_told(event) == {"1.n1", "2.n1"}
    notes = PbsNotes(lambda: pbs.notes)
    assert notes.told("1.n1") == Told(exec_vnode="(n1[0])", host="n1")
    assert set(notes.jobs()) == {"1.n1", "2.n1"}


def test_what_pbs_tells_of_a_job_is_known_to_rules(tmp_path: Path) -> None:
    pbs = PbsScheduler(tmp_path)
    about = {"id": "1.n1", "queue": "workq", "Account_Name": "cfd", "schedhook": "off"}
    for job in (about, {"id": "1.n1"}):  # what a later event leaves out is as it was
        pbs.record_event(pbs.read_event("launch", {}, json.dumps({"job": job}).encode()))
        assert pbs.origin("1.n1") == JobOrigin(queue="workq", account="cfd", choice="off")
    assert pbs.origin("2.n1") == JobOrigin()


def test_only_some_events_tell_all_jobs(tmp_path: Path) -> None:
    pbs = PbsScheduler(tmp_path)
    assert pbs.jobs_told(pbs.read_event("startup", {}, told(None))) == frozenset()
    assert pbs.jobs_told(pbs.read_event("resize", {}, told("1.n1"))) is None


def test_the_notes_may_be_replaced_at_any_time(tmp_path: Path) -> None:
    pbs = PbsScheduler(tmp_path)
    pbs.record_event(pbs.read_event("postsuspend", {}, told("1.n1")))
    assert pbs.suspended("1.n1")
    pbs.notes = MemoryNotes()
    assert not pbs.suspended("1.n1")


def test_a_point_that_no_hook_has_is_an_error(tmp_path: Path) -> None:
    """It was accepted, and said `nothing to do`."""
    with pytest.raises(UsageError, match="PBS has no hook 'prolog'; known hooks: begin, launch"):
        PbsScheduler(tmp_path).read_event("prolog", {}, b'{"job": {"id": "7.n1"}}')
