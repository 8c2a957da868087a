"""A job that has chosen `off` is left alone on every way by which the agent moves memory."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from schedhook.agent.events import make_retry, read_users_event
from schedhook.hook import delivery
from schedhook.hook.message import parse_message
from schedhook.roles.scheduler import EventKind
from schedhook.values.actions import OnSharedProcessors, PbsActions, Repatriate
from schedhook.values.config import Config
from schedhook.values.model import Outcome
from schedhook.values.sets import NodeSet
from schedhook_plugins.schedulers.slurm.scheduler import Slurm
from tests.unit.agent.one_job import OneJob, at
from tests.unit.agentkit import FakeScheduler, event, homes, place, with_actions

EVERYTHING = with_actions(
    park=NodeSet.parse("2-3"),
    repatriate=Repatriate.ALL,
    repatriate_least_mb=0,
)


@pytest.fixture(params=["off", "gentle", ""])
def word(request: pytest.FixtureRequest) -> str:
    """What the job's process has as SCHEDHOOK; only with `off` nothing moves."""
    return str(request.param)


@pytest.fixture
def process(word: str) -> Iterator[int]:
    with subprocess.Popen(["/bin/sleep", "600"], env={"SCHEDHOOK": word}) as process:
        yield process.pid
        process.kill()


class Job(OneJob):
    """A job with one task of one process, on node 0."""

    def __init__(self, directory: Path, process: int, config: Config = EVERYTHING) -> None:
        self._process = process
        super().__init__(directory, config)

    def put(self, *nodes: str, job: str = "1") -> None:
        place(self.directory, job, {"0.0": ([self._process], nodes[0], nodes[0])})


@pytest.fixture
def job(tmp_path: Path, process: int) -> Job:
    return Job(tmp_path, process)


def test_following(job: Job, word: str) -> None:
    job.put("2")
    said = job.look("resize")
    assert [request.gentle for request in job.moves.requests] == (
        [] if word == "off" else [True if word else None]
    )
    if word == "off":
        assert said == "0.0: left on nodes 0, as the job chose (SCHEDHOOK=off)"
        assert homes(job.journal, "fake", "1")["0.0"] == at("0", "0")
        assert job.look() == "all in place", "said once, not at each look"


def test_retrying(job: Job, word: str) -> None:
    job.moves.outcome = Outcome.REFUSED
    job.put("2")
    asked = job.dispatcher.handle(event("look"), 3.0)
    assert (asked.retry_after is None) is (word == "off")
    job.moves.outcome = Outcome.COMPLETE
    job.moves.requests.clear()
    job.dispatcher.handle(make_retry(event("look")), 4.0)
    assert bool(job.moves.requests) is (word != "off")


def test_parking_and_return(job: Job, word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeScheduler, "suspended", lambda *_: True)
    said = job.look("postsuspend")
    assert job.moves.pairs == ([] if word == "off" else [{0: 2}])
    if word == "off":
        assert said == "0.0: left where it is, as the job chose (SCHEDHOOK=off)"
    job.moves.requests.clear()
    job.look("preresume")
    assert job.moves.pairs == ([] if word == "off" else [{2: 0}])


def test_what_was_parked_before_comes_back(
    job: Job, word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the agent that has moved it away, and may have widened the job's cpuset for that."""
    if word == "off":
        return
    monkeypatch.setattr(FakeScheduler, "suspended", lambda *_: True)
    job.look("postsuspend")
    job.moves.requests.clear()
    job.dispatcher.adapter("fake").notes.set("1", "choice", "off")
    job.look("preresume")
    assert job.moves.pairs == [{2: 0}]


def test_other_processors_at_a_resume(
    tmp_path: Path, process: int, word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    replaces: list[bool] = []

    def resolve(*_: object, replace: bool) -> None:
        replaces.append(replace)

    monkeypatch.setattr(FakeScheduler, "resolve_sharing", resolve)
    monkeypatch.setattr(FakeScheduler, "name", "pbs")  # the only one that can be so configured
    pbs = PbsActions(on_shared_processors=OnSharedProcessors.REPLACE)
    Job(tmp_path, process, with_actions(pbs=pbs)).look("preresume")
    assert replaces == [word != "off"]


def test_coming_home_when_another_job_ends(job: Job, word: str) -> None:
    job.dispatcher.handle(event("begin", "2"), 4.0)
    more = job.dispatcher.handle(event("end", "2"), 5.0).more
    assert [each.job for each in more] == ["1"]
    for each in more:
        job.dispatcher.handle(each, 6.0)
    assert [request.home for request in job.moves.requests] == ([] if word == "off" else [True])


def test_coming_home_to_granted_nodes(job: Job, word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeScheduler, "granted", lambda *_: {"0.0": at("0", "0")})
    job.look(repatriate=True)
    assert bool(job.moves.requests) is (word != "off")


def test_memory_of_unknown_origin(job: Job, word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeScheduler, "granted", lambda *_: {"1.0": at("2", "2")})
    place(job.directory, "1", {"1.0": ([job._process], "2", "2")})
    job.look("resize")
    assert bool(job.moves.requests) is (word != "off")


def test_a_step_that_says_off_is_believed_from_then_on(job: Job, word: str) -> None:
    job.put("2")
    job.look()
    assert bool(job.moves.requests) is (word != "off")
    job.moves.requests.clear()
    job.look("attach", seen_by="user", choice="off")
    job.put("3")
    job.look()
    assert job.moves.requests == []


def test_a_user_may_say_one_word_for_a_job_of_their_own_and_nothing_else() -> None:
    for said, heard in (("off", "off"), (" Gentle ", "gentle"), ("rm -rf /", None), ("", None)):
        environ = {
            b"SLURM_JOB_ID": b"7",
            b"SCHEDHOOK": said.encode(),
            b"SCHEDHOOK_CONFIG": b"/evil",
            b"SLURM_JOB_PARTITION": b"gpu",
        }
        raw = delivery.make_message("slurm", "task_prolog", environ, b"", wait=False)
        assert b"/evil" not in raw
        found = read_users_event(parse_message(raw), Slurm(), 1000, lambda _: 1000)
        assert found.data == {"seen_by": "user"} | ({"choice": heard} if heard else {})
        assert Slurm().kind_of(found) is EventKind.STEP_STARTED


def test_what_slurm_tells_prolog_of_a_job_is_known_to_rules() -> None:
    adapter = Slurm()
    environ = {
        "SLURM_JOB_ID": "7",
        "SLURM_JOB_PARTITION": "gpu",
        "SLURM_JOB_ACCOUNT": "cfd",
        "SLURM_JOB_COMMENT": "my run; schedhook=off",
        "SCHEDHOOK": "follow",
    }
    adapter.record_event(adapter.read_event("prolog", environ, b""))
    origin = adapter.origin("7")
    assert (origin.queue, origin.account, origin.choice) == ("gpu", "cfd", "off")
    assert adapter.origin("8").queue is None
    step = adapter.read_event("task_prolog", environ | {"SLURM_JOB_ID": "8"}, b"")
    adapter.record_event(step)
    assert adapter.origin("8").queue is None, "a step's environment is its user's"


@pytest.mark.parametrize(
    ("comment", "word"),
    [
        ("schedhook=off", "off"),
        ("a,schedhook=gentle,b", "gentle"),
        ("noschedhook=off", None),
        ("schedhook=off2", None),
        ("schedhook=", None),
        ("x" * 5000 + " schedhook=off", None),
    ],
)
def test_the_word_in_a_comment(comment: str, word: str | None) -> None:
    for variable in ("SLURM_JOB_COMMENT", "SLURM_JOB_EXTRA"):
        environ = {"SLURM_JOB_ID": "7", variable: comment}
        assert Slurm().read_event("prolog", environ, b"").data.get("asked") == word
