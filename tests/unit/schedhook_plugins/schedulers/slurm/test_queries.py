"""Each method of asking Slurm's controller where a job runs gives the same answer.

The answers of 22.05 were recorded (recorded/README.md). Those of 25.11 and of pyslurm are
written by hand.
"""

from __future__ import annotations

import json
import sys
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
    query_hosts,
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
        case ["squeue", "--noheader", "--states=all", jobs, "--format=%A|%N"]:
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
    assert query_hosts(JOBS[name], methods=[METHODS[method]], run=slurm_22_05) == HOSTS[name]


@pytest.mark.parametrize("method", ["squeue-json", "text"])
def test_an_unknown_job_is_a_usage_error(method: str) -> None:
    with pytest.raises(UsageError, match="knows no job 99"):
        query_hosts("99", methods=[METHODS[method]], run=slurm_22_05)


@pytest.mark.parametrize("job", ["", "0", "12_3", "-1", "1;id", "1\n2", "12345678901"])
def test_only_a_job_number_is_passed_to_slurm(job: str) -> None:
    with pytest.raises(UsageError, match="not the number"):
        query_hosts(job, run=slurm_22_05)


# -- which method is used ------------------------------------------------------------------------


@pytest.fixture
def without_pyslurm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queries, "find_spec", lambda _name: None)


@pytest.mark.usefixtures("without_pyslurm")
def test_the_first_method_that_works_is_used() -> None:
    asked: list[str] = []
    query_hosts("6", run=logging(slurm_22_05, asked))
    assert asked == ["scontrol", "squeue"]

    def no_json(command: Sequence[str]) -> CommandResult:
        if "--json" in command:
            return CommandResult(status=1, output="", errors="unrecognized option '--json'")
        return slurm_22_05(command)

    assert query_hosts("6", run=no_json) == HOSTS["big"]

    def no_commands(command: Sequence[str]) -> CommandResult:
        raise NotUsable(f"there is no {command[0]}")

    with pytest.raises(SchedhookError) as caught:
        query_hosts("6", run=no_commands)
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

    assert query_hosts("6", run=broken_json) == HOSTS["big"]


@pytest.mark.usefixtures("without_pyslurm")
def test_probe_tells_which_methods_work() -> None:
    found = queries.probe(slurm_22_05)
    assert [(name, usable) for name, (usable, _) in found.items()] == [
        ("pyslurm", False),
        ("scontrol-json", False),
        ("squeue-json", True),
        ("text", True),
    ]
    assert "22.05.8" in found["text"][1]


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
    with pytest.raises(NotUsable, match=r"did not answer within 0\.2 s"):
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
    assert query_hosts("6", run=logging(slurm_25_11, asked)) == HOSTS["big"]
    assert asked == ["scontrol"]
    with pytest.raises(UsageError, match="knows no job 99"):
        query_hosts("99", run=slurm_25_11)


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
    assert query_hosts("6", methods=methods, run=lambda _command: answer) == hosts


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
        job = SimpleNamespace(allocated_nodes=listed)
        return CommandResult(status=0, output=json.dumps(pyslurm_probe.describe(job)))

    assert query_hosts(JOBS[name], run=run) == HOSTS[name]
    module = "schedhook_plugins.schedulers.slurm.pyslurm_probe"
    assert asked == [[sys.executable, "-P", "-m", module, JOBS[name]]]


@pytest.mark.usefixtures("with_pyslurm")
def test_a_pyslurm_that_ends_its_process_leads_to_the_next_method() -> None:
    def run(command: Sequence[str]) -> CommandResult:
        if command[0] == sys.executable:
            errors = "fatal: Unable to process configuration"
            return CommandResult(status=1, output="", errors=errors)
        return slurm_22_05(command)

    assert query_hosts("6", run=run) == HOSTS["big"]
    assert queries.probe(run)["pyslurm"] == (
        False,
        "pyslurm does not start: fatal: Unable to process configuration",
    )


@pytest.mark.usefixtures("with_pyslurm")
def test_pyslurm_is_not_started_without_a_configuration(tmp_path: Path) -> None:
    (tmp_path / "slurm.conf").unlink()
    asked: list[str] = []
    assert query_hosts("6", run=logging(slurm_22_05, asked)) == HOSTS["big"]
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
        "    allocated_nodes = 'n[1-2]'\n"
        "    @staticmethod\n"
        "    def load(job):\n"
        "        if job != 6: raise PyslurmError('Invalid job id specified')\n"
        "        return Job()\n"
    )
    paths = [str(tmp_path), *(path for path in sys.path if path)]
    monkeypatch.setenv("PYTHONPATH", ":".join(paths))
    assert query_hosts("6") == ("n1", "n2")
    with pytest.raises(UsageError, match="knows no job 5"):
        query_hosts("5")
    assert queries.probe()["pyslurm"] == (True, "pyslurm 25.11.2")
