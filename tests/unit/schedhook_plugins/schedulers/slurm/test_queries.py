"""Each method of asking Slurm's controller where a job runs gives the same answer.

The answers of 22.05 were recorded (recorded/README.md). Those of 25.11 and of pyslurm are
written by hand.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from schedhook.values.errors import SchedhookError, UsageError
from schedhook_plugins.schedulers.slurm import pyslurm_probe, queries
from schedhook_plugins.schedulers.slurm.queries import (
    QUERY_METHODS,
    CommandResult,
    NotUsable,
    RunCommand,
    query_job,
)

RECORDED = Path(__file__).parent / "recorded/22.05"
JOBS = {"one": "4", "two": "5", "big": "6", "pend": "7", "evil": "8", "none": "99"}
METHODS = {method.name: method for method in QUERY_METHODS}
HOSTS = {
    "one": ("n1",),
    "two": ("n1",),
    "big": ("n1", "n2"),
    "pend": (),
    "evil": ("n2",),
}


def recorded(name: str) -> CommandResult:
    path = RECORDED / name
    errors = path.with_name(f"{name}.err")
    status, _, text = (errors.read_text() if errors.exists() else "0\n").partition("\n")
    output = path.read_text() if path.exists() else ""
    return CommandResult(status=int(status), output=output, errors=text)


def slurm_22_05(command: Sequence[str]) -> CommandResult:
    """Answer as the recorded cluster did; fail if the command was not recorded."""
    names = {job: name for name, job in JOBS.items()}
    match list(command):
        case ["squeue", "--noheader", "--states=all", jobs, "--format=%A|%i|%N"]:
            name = f"{names[jobs.removeprefix('--jobs=')]}.squeue"
        case ["squeue", "--json", "--states=all", _]:
            name = "squeue.json"
        case ["scontrol", "--json", "show", "job", _]:
            name = "two.scontrol-json"
        case [("squeue" | "scontrol") as program, "--help"]:
            name = f"{program}.help"
        case [("squeue" | "scontrol"), "--version"]:
            name = "scontrol.version"
        case _:
            raise AssertionError(f"not recorded: {command}")
    return recorded(name)


def logging(run: RunCommand, asked: list[str]) -> RunCommand:
    """Run as `run` does, and append each program's name to `asked`."""

    def log_and_run(command: Sequence[str]) -> CommandResult:
        asked.append(command[0])
        return run(command)

    return log_and_run


@pytest.mark.parametrize("method", ["squeue-json", "text"])
@pytest.mark.parametrize("name", HOSTS)
def test_each_method_gives_the_same_hosts(method: str, name: str) -> None:
    assert query_job(JOBS[name], methods=[METHODS[method]], run=slurm_22_05).hosts == HOSTS[name]


@pytest.mark.parametrize("method", ["squeue-json", "text"])
def test_an_unknown_job_is_a_usage_error(method: str) -> None:
    with pytest.raises(UsageError, match="knows no job 99"):
        query_job("99", methods=[METHODS[method]], run=slurm_22_05)


@pytest.mark.parametrize(
    "job", ["", "0", "12.3", "-1", "1;id", "1\n2", "12345678901", "1_", "1_[", "1+x", "1_[2,]"]
)
def test_only_a_job_number_is_passed_to_slurm(job: str) -> None:
    with pytest.raises(UsageError, match="not the number"):
        query_job(job, run=slurm_22_05)


# -- which method is used ------------------------------------------------------------------------


@pytest.fixture
def without_pyslurm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queries, "find_spec", lambda _name: None)


@pytest.mark.usefixtures("without_pyslurm")
def test_the_first_method_that_works_is_used() -> None:
    asked: list[str] = []
    query_job("6", run=logging(slurm_22_05, asked))
    assert asked == ["scontrol", "squeue"]

    def no_json(command: Sequence[str]) -> CommandResult:
        if "--json" in command:
            return CommandResult(status=1, output="", errors="unrecognized option '--json'")
        return slurm_22_05(command)

    assert query_job("6", run=no_json).hosts == HOSTS["big"]

    def no_commands(command: Sequence[str]) -> CommandResult:
        raise NotUsable(f"there is no {command[0]}")

    with pytest.raises(SchedhookError) as caught:
        query_job("6", run=no_commands)
    assert "\n" not in str(caught.value)
    for each in ("pyslurm is not installed", "squeue-json: there is no squeue", "text: "):
        assert each in str(caught.value)


@pytest.mark.parametrize(
    "output",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"jobs": 3}',
        '{"jobs": [3]}',
        '{"jobs": [{"job_id": 6}]}',
        '{"jobs": [{"job_id": 6, "nodes": 1}]}',
        '{"jobs": [{"job_id": 6, "nodes": "n["}]}',
    ],
)
@pytest.mark.usefixtures("without_pyslurm")
def test_unreadable_json_leads_to_the_next_method(output: str) -> None:
    def broken_json(command: Sequence[str]) -> CommandResult:
        if "--json" in command:
            return CommandResult(status=0, output=output)
        return slurm_22_05(command)

    assert query_job("6", run=broken_json).hosts == HOSTS["big"]


@pytest.mark.usefixtures("without_pyslurm")
def test_the_methods_are_tried_with_any_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queries, "_ANY_JOB", JOBS["none"])
    assert queries.find_answering(["text"], run=slurm_22_05) == ("text", "")

    def fail(command: Sequence[str]) -> CommandResult:
        return CommandResult(status=1, output="", errors=f"{command[0]}: no munge socket\n")

    found = queries.find_answering(["squeue-json", "text"], run=fail)
    why = "squeue ended with status 1: squeue: no munge socket"
    assert found == (None, f"squeue-json: {why}; text: {why}")


def test_probe_tells_which_methods_work() -> None:
    found = queries.probe(slurm_22_05)
    assert [(name, usable) for name, (usable, _) in found.items()] == [
        ("pyslurm", False),
        ("scontrol-json", False),
        ("squeue-json", True),
        ("text", True),
    ]
    assert "22.05.8" in found["text"][1]


# -- arrays and heterogeneous jobs ---------------------------------------------------------------

SEVERAL = {
    "text": "38|36_2|n1\n36|36_[3-4]|\n50|50+0|n1\n51|50+1|n2\n",
    "squeue-json": json.dumps(
        {
            "jobs": [
                {"job_id": 38, "nodes": "n1", "array_job_id": 36, "array_task_id": 2},
                {"job_id": 36, "nodes": "", "array_job_id": 36, "array_task_string": "3-4"},
                {"job_id": 50, "nodes": "n1", "het_job_id": 50, "het_job_offset": 0},
                {"job_id": 51, "nodes": "n2", "het_job_id": 50, "het_job_offset": 1},
            ]
        }
    ),
}


@pytest.mark.parametrize("method", SEVERAL)
@pytest.mark.parametrize(
    ("text", "asked", "number", "hosts"),
    [
        ("36_2", "36", "38", ("n1",)),
        ("36_[2]", "36", "38", ("n1",)),
        ("36_4", "36", "36", ()),
        ("38", "38", "38", ("n1",)),
        ("50+1", "50", "51", ("n2",)),
        ("51", "51", "51", ("n2",)),
    ],
)
def test_the_controller_tells_the_number_of_an_element(
    method: str, text: str, asked: str, number: str, hosts: tuple[str, ...]
) -> None:
    def run(command: Sequence[str]) -> CommandResult:
        assert f"--jobs={asked}" in command, "only a number is passed on"
        return CommandResult(status=0, output=SEVERAL[method])

    found = query_job(text, methods=[METHODS[method]], run=run)
    assert (found.number, found.hosts) == (number, hosts)


@pytest.mark.parametrize("method", SEVERAL)
def test_the_number_of_an_array_lists_its_elements(method: str) -> None:
    def run(_command: Sequence[str]) -> CommandResult:
        return CommandResult(status=0, output=SEVERAL[method])

    for text, listed in (("36", "36_2 (job 38)"), ("50", r"50\+0 \(job 50\), 50\+1")):
        with pytest.raises(UsageError, match=listed.replace("(job 38)", r"\(job 38\)")):
            query_job(text, methods=[METHODS[method]], run=run)
    with pytest.raises(UsageError, match="knows no job 36_7"):
        query_job("36_7", methods=[METHODS[method]], run=run)


@pytest.mark.usefixtures("with_pyslurm")
def test_a_member_that_pyslurm_tells_alone_leads_to_the_next_method() -> None:
    """Asked for an array's number it tells one element only."""
    for member in ({"array_id": 36}, {"heterogeneous_id": 50}):
        assert pyslurm_probe.is_member(SimpleNamespace(**member))
    assert not pyslurm_probe.is_member(SimpleNamespace(array_id=0, heterogeneous_id=None))

    def run(command: Sequence[str]) -> CommandResult:
        if command[0] == sys.executable:
            return CommandResult(status=pyslurm_probe.SEVERAL_JOBS, output="", errors="several")
        if "--json" in command:
            raise NotUsable("no JSON")
        return CommandResult(status=0, output=SEVERAL["text"])

    assert query_job("36_2", run=run).number == "38"


# -- a controller that is down --------------------------------------------------------------------


@pytest.mark.usefixtures("without_pyslurm")
def test_all_methods_together_have_one_limit_of_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(queries, "SECONDS", 0.5)
    for program in ("squeue", "scontrol"):
        script(tmp_path, program, "exec sleep 60")
    began = time.monotonic()
    with pytest.raises(SchedhookError, match=r"scontrol did not end .* not asked, 0.5 s"):
        query_job("6")
    assert "did not end" in (queries.ping() or "")
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("status", "output", "says"),
    [
        (0, "Slurmctld(primary) at n1 is UP\n", None),
        (0, "Slurmctld(primary) at n1 is DOWN\nSlurmctld(backup) at n2 is UP\n", None),
        (1, "Slurmctld(primary) at n1 is DOWN\n", "Slurmctld(primary) at n1 is DOWN"),
    ],
)
def test_ping_tells_whether_a_controller_answers(
    status: int, output: str, says: str | None
) -> None:
    assert queries.ping(lambda _command: CommandResult(status=status, output=output)) == says


# -- the commands themselves ---------------------------------------------------------------------


def script(directory: Path, name: str, text: str) -> None:
    path = directory / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def test_a_command_is_limited_in_time_and_free_of_the_users_variables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("SQUEUE_FORMAT", "%j")
    monkeypatch.setenv("SLURM_CONF", "/somewhere/slurm.conf")
    script(tmp_path, "squeue", 'echo "$SQUEUE_FORMAT|$SLURM_CONF|$LC_ALL"; exit 3')
    assert queries.run_command(["squeue"]) == CommandResult(
        status=3, output="|/somewhere/slurm.conf|C\n"
    )
    script(tmp_path, "scontrol", "exec sleep 60")
    with pytest.raises(NotUsable, match=r"did not end within 0\.2 s"):
        queries.run_command(["scontrol"], seconds=0.2)
    with pytest.raises(NotUsable, match="there is no no-such-command"):
        queries.run_command(["no-such-command"])


# -- 25.11, written by hand ----------------------------------------------------------------------


def job_25_11(**other: Any) -> dict[str, Any]:
    return {"job_id": 6, "job_state": ["RUNNING"], "nodes": "n[1-2]", **other}


def slurm_25_11(command: Sequence[str]) -> CommandResult:
    match list(command):
        case ["scontrol", "--json", "show", "job", "6"]:
            return CommandResult(status=0, output=json.dumps({"jobs": [job_25_11()], "errors": []}))
        case ["scontrol", "--json", "show", "job", _]:
            text = "slurm_load_jobs error: Invalid job id specified"
            return CommandResult(status=1, output="", errors=text)
    return slurm_22_05(command)


@pytest.mark.usefixtures("without_pyslurm")
def test_scontrols_json_of_25_11_gives_the_same_hosts() -> None:
    asked: list[str] = []
    assert query_job("6", run=logging(slurm_25_11, asked)).hosts == HOSTS["big"]
    assert asked == ["scontrol"]
    with pytest.raises(UsageError, match="knows no job 99"):
        query_job("99", run=slurm_25_11)


@pytest.mark.parametrize(
    ("other", "hosts"),
    [
        ({"job_id": {"set": True, "infinite": False, "number": 6}}, ("n1", "n2")),
        ({"nodes": ""}, ()),
        ({"nodes": None}, ()),
    ],
)
def test_json_with_numbers_as_objects_and_without_hosts(
    other: dict[str, Any], hosts: tuple[str, ...]
) -> None:
    answer = CommandResult(status=0, output=json.dumps({"jobs": [job_25_11(**other)]}))
    methods = [METHODS["scontrol-json"]]
    assert query_job("6", methods=methods, run=lambda _command: answer).hosts == hosts


# -- pyslurm, against an object with the documented attributes -------------------------------------


@pytest.fixture
def with_pyslurm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "slurm.conf").touch()
    monkeypatch.setenv("SLURM_CONF", str(tmp_path / "slurm.conf"))
    monkeypatch.setattr(queries, "find_spec", lambda _name: object())


@pytest.mark.parametrize(("listed", "name"), [("n[1-2]", "big"), (None, "pend")])
@pytest.mark.usefixtures("with_pyslurm")
def test_pyslurm_gives_the_same_hosts(listed: str | None, name: str) -> None:
    asked = []

    def run(command: Sequence[str]) -> CommandResult:
        asked.append(list(command))
        job = SimpleNamespace(id=int(JOBS[name]), allocated_nodes=listed)
        return CommandResult(status=0, output=json.dumps(pyslurm_probe.describe(job)))

    assert query_job(JOBS[name], run=run).hosts == HOSTS[name]
    module = "schedhook_plugins.schedulers.slurm.pyslurm_probe"
    assert asked == [[sys.executable, "-P", "-m", module, JOBS[name]]]


@pytest.mark.usefixtures("with_pyslurm")
def test_a_pyslurm_that_ends_its_process_leads_to_the_next_method() -> None:
    def run(command: Sequence[str]) -> CommandResult:
        if command[0] == sys.executable:
            errors = "fatal: Unable to process configuration"
            return CommandResult(status=1, output="", errors=errors)
        return slurm_22_05(command)

    assert query_job("6", run=run).hosts == HOSTS["big"]
    assert queries.probe(run)["pyslurm"] == (
        False,
        "pyslurm does not start: fatal: Unable to process configuration",
    )


@pytest.mark.usefixtures("with_pyslurm")
def test_pyslurm_is_not_started_without_a_configuration(tmp_path: Path) -> None:
    (tmp_path / "slurm.conf").unlink()
    asked: list[str] = []
    assert query_job("6", run=logging(slurm_22_05, asked)).hosts == HOSTS["big"]
    assert sys.executable not in asked


@pytest.mark.usefixtures("with_pyslurm")
def test_the_probe_runs_in_a_process_of_its_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With a module called pyslurm that has what the probe uses."""
    (tmp_path / "pyslurm.py").write_text(
        "__version__ = '25.11.2'\n"
        "class PyslurmError(Exception): pass\n"
        "class Job:\n"
        "    id, allocated_nodes = 6, 'n[1-2]'\n"
        "    @staticmethod\n"
        "    def load(job):\n"
        "        if job != 6: raise PyslurmError('Invalid job id specified')\n"
        "        return Job()\n"
    )
    paths = [str(tmp_path), *(path for path in sys.path if path)]
    monkeypatch.setenv("PYTHONPATH", ":".join(paths))
    assert query_job("6").hosts == ("n1", "n2")
    with pytest.raises(UsageError, match="knows no job 5"):
        query_job("5")
    assert queries.probe()["pyslurm"] == (True, "pyslurm 25.11.2")
