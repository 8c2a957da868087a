"""What Slurm's controller says of a job, from each way to ask it.

22.05's answers were recorded (recorded/README.md). 25.11's, and pyslurm's, are written by hand.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schedhook.values.errors import SchedhookError, UsageError
from schedhook.values.sets import CpuSet
from schedhook_plugins.schedulers.slurm import pyslurm_probe, queries
from schedhook_plugins.schedulers.slurm.answers import Allocation, Geometry, JobInfo, parse_json
from schedhook_plugins.schedulers.slurm.hostlist import expand_hosts
from schedhook_plugins.schedulers.slurm.queries import QUERY_METHODS, Answer, NotUsable, query

RECORDED = Path(__file__).parent / "recorded/22.05"
NUMBERS = {"one": 4, "two": 5, "big": 6, "pend": 7, "evil": 8, "none": 99}
MIB = 1 << 20
BY_NAME = {provider.name: provider for provider in QUERY_METHODS}


def recorded(name: str) -> Answer:
    path = RECORDED / name
    errors = path.with_name(f"{name}.err")
    status, _, text = (errors.read_text() if errors.exists() else "0\n").partition("\n")
    output = path.read_text() if path.exists() else ""
    return Answer(status=int(status), output=output, errors=text)


def slurm_22_05(command: Sequence[str]) -> Answer:
    """Answers as the recorded cluster did; nothing that was not recorded may be asked."""
    names = {str(number): name for name, number in NUMBERS.items()}
    match list(command):
        case ["squeue", "--noheader", "--states=all", jobs, "--format=%A|%U|%u|%T|%N"]:
            name = f"{names[jobs.removeprefix('--jobs=')]}.squeue"
        case ["squeue", "--json", "--states=all", _]:
            name = "squeue.json"
        case ["scontrol", "--details", "show", "job", job]:
            name = f"{names[job]}.scontrol"
        case ["scontrol", "--json", "show", "job", _]:
            name = "two.scontrol-json"
        case ["scontrol", "--oneliner", "show", "node", _]:
            name = "nodes"
        case [("squeue" | "scontrol") as program, "--help"]:
            name = f"{program}.help"
        case [("squeue" | "scontrol"), "--version"]:
            name = "scontrol.version"
        case _:
            raise AssertionError(f"nobody recorded {command}")
    return recorded(name)


def alice(name: str, state: str, **allocated: tuple[str, int]) -> JobInfo:
    return JobInfo(
        job=str(NUMBERS[name]),
        user_id=2001,
        user_name="alice",
        state=state,
        hosts=tuple(allocated),
        allocated={
            host: Allocation(cpu_ids=CpuSet.parse(cpus), memory=memory * MIB)
            for host, (cpus, memory) in allocated.items()
        },
    )


EXPECTED = {
    "one": alice("one", "RUNNING", n1=("0", 200)),
    "two": alice("two", "SUSPENDED", n1=("1-2", 300)),
    "big": alice("big", "RUNNING", n1=("3", 200), n2=("0-1", 400)),
    "pend": alice("pend", "PENDING"),
    "evil": alice("evil", "RUNNING", n2=("2", 200)),
}


@pytest.mark.parametrize("provider", ["squeue-json", "text"])
@pytest.mark.parametrize("name", EXPECTED)
def test_each_way_gives_the_same_answer(provider: str, name: str) -> None:
    found = query(str(NUMBERS[name]), query_methods=[BY_NAME[provider]], run=slurm_22_05)
    assert found == EXPECTED[name]
    assert found.suspended == (name == "two")


@pytest.mark.parametrize("provider", ["squeue-json", "text"])
def test_a_job_that_nobody_knows(provider: str) -> None:
    with pytest.raises(UsageError, match="knows no job 99"):
        query("99", query_methods=[BY_NAME[provider]], run=slurm_22_05)


def test_a_name_does_not_pass_for_the_owner() -> None:
    """The recorded job's name holds a line that scontrol writes for root's jobs."""
    assert "UserId=root(0) GroupId=root(0)\n" in recorded("evil.scontrol").output
    assert query("8", query_methods=[BY_NAME["text"]], run=slurm_22_05).user_id == 2001


@pytest.mark.parametrize("job", ["", "0", "12_3", "-1", "1;id", "1\n2", "12345678901"])
def test_what_is_no_number_is_not_asked_about(job: str) -> None:
    with pytest.raises(UsageError, match="not the number"):
        query(job, run=slurm_22_05)


# -- which way is taken ------------------------------------------------------------------------


def without_pyslurm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queries, "find_spec", lambda _name: None)


def test_the_first_way_that_works_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    without_pyslurm(monkeypatch)
    assert query("6", run=slurm_22_05).provider == "squeue"

    def no_json(command: Sequence[str]) -> Answer:
        if "--json" in command:
            return Answer(status=1, output="", errors="unrecognized option '--json'")
        return slurm_22_05(command)

    assert query("6", run=no_json).provider == "text"

    def nothing(command: Sequence[str]) -> Answer:
        raise NotUsable(f"there is no {command[0]}")

    with pytest.raises(SchedhookError) as caught:
        query("6", run=nothing)
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
        '{"jobs": [{"job_id": 6}]}',
        '{"jobs": [{"job_id": 6, "user_id": 1, "job_state": [], "nodes": "n["}]}',
    ],
)
def test_json_that_cannot_be_read_is_passed_over(
    monkeypatch: pytest.MonkeyPatch, output: str
) -> None:
    without_pyslurm(monkeypatch)

    def odd(command: Sequence[str]) -> Answer:
        return Answer(status=0, output=output) if "--json" in command else slurm_22_05(command)

    assert query("6", run=odd) == EXPECTED["big"]


def test_what_there_is_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    without_pyslurm(monkeypatch)
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


def test_a_command_is_bounded_and_keeps_its_own_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("SQUEUE_FORMAT", "%j")
    monkeypatch.setenv("SLURM_CONF", "/somewhere/slurm.conf")
    script(tmp_path, "squeue", 'echo "$SQUEUE_FORMAT|$SLURM_CONF|$LC_ALL"; exit 3')
    assert queries.run(["squeue"]) == Answer(status=3, output="|/somewhere/slurm.conf|C\n")
    script(tmp_path, "scontrol", "exec sleep 60")
    with pytest.raises(NotUsable, match=r"did not answer within 0\.2 s"):
        queries.run(["scontrol"], seconds=0.2)
    with pytest.raises(NotUsable, match="there is no sinfo-of-nobody"):
        queries.run(["sinfo-of-nobody"])


# -- 25.11, written by hand ----------------------------------------------------------------------


def number(value: int | None) -> dict[str, object]:
    return {"set": value is not None, "infinite": False, "number": value or 0}


def job_25_11(**other: Any) -> dict[str, Any]:
    def core(index: int, *status: str) -> dict[str, Any]:
        return {"index": index, "status": list(status)}

    return {
        "job_id": 6,
        "user_id": 2001,
        "user_name": "alice",
        "job_state": ["RUNNING"],
        "nodes": "n[1-2]",
        "job_resources": {
            "cpus": 3,
            "nodes": {
                "count": 2,
                "list": "n[1-2]",
                "allocation": [
                    {
                        "name": "n1",
                        "cpus": {"count": 1, "used": 0},
                        "memory": {"used": 0, "allocated": 200},
                        "sockets": [{"index": 3, "cores": [core(0, "ALLOCATED")]}],
                    },
                    {
                        "name": "n2",
                        "cpus": {"count": 2, "used": 2},
                        "memory": {"used": 0, "allocated": 400},
                        "sockets": [
                            {"index": 0, "cores": [core(0, "ALLOCATED", "IN_USE")]},
                            {"index": 1, "cores": [core(0, "ALLOCATED")]},
                            {"index": 2, "cores": [core(0, "INVALID")]},
                        ],
                    },
                ],
            },
        },
        **other,
    }


def slurm_25_11(command: Sequence[str]) -> Answer:
    match list(command):
        case ["scontrol", "--json", "show", "job", "6"]:
            return Answer(status=0, output=json.dumps({"jobs": [job_25_11()], "errors": []}))
        case ["scontrol", "--json", "show", "job", _]:
            text = "slurm_load_jobs error: Invalid job id specified"
            return Answer(status=1, output="", errors=text)
    return slurm_22_05(command)


def test_25_11_gives_the_same_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    without_pyslurm(monkeypatch)
    found = query("6", run=slurm_25_11)
    assert (found, found.provider) == (EXPECTED["big"], "scontrol")
    with pytest.raises(UsageError, match="knows no job 99"):
        query("99", run=slurm_25_11)


def test_25_11_states_and_numbers() -> None:
    def parsed(**other: Any) -> JobInfo:
        shape = Geometry(cores_per_socket=1, threads_per_core=1)
        return parse_json(job_25_11(**other), "test", lambda _hosts: {"n1": shape, "n2": shape})

    assert parsed(job_state=["SUSPENDED"]).suspended
    assert parsed(job_state=["COMPLETING", "RUNNING"]).state == "COMPLETING"
    assert parsed(user_id=number(7)).user_id == 7
    with pytest.raises(ValueError, match="no user"):
        parsed(user_id=number(None))
    assert parsed(nodes="", job_resources={}).allocated == {}


# -- pyslurm, against an object with the documented attributes -------------------------------------


def pyslurm_job(**other: Any) -> SimpleNamespace:
    """pyslurm 25.11's Job, as far as its documentation goes and the queries use it."""
    layout = {
        "n1": {"cpu_ids": "3", "gres": {}, "memory": 200},
        "n2": {"cpu_ids": "0-1", "gres": {}, "memory": 400},
    }
    values = {
        "id": 6,
        "state": "RUNNING",
        "user_id": 2001,
        "user_name": "alice",
        "allocated_nodes": "n[1-2]",
        "get_resource_layout_per_node": lambda: layout,
        **other,
    }
    return SimpleNamespace(**values)


def with_pyslurm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "slurm.conf").touch()
    monkeypatch.setenv("SLURM_CONF", str(tmp_path / "slurm.conf"))
    monkeypatch.setattr(queries, "find_spec", lambda _name: object())


def test_pyslurm_gives_the_same_answer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with_pyslurm(monkeypatch, tmp_path)
    asked = []

    def run(command: Sequence[str]) -> Answer:
        asked.append(list(command))
        return Answer(status=0, output=json.dumps(pyslurm_probe.describe(pyslurm_job())))

    found = query("6", run=run)
    assert (found, found.provider) == (EXPECTED["big"], "pyslurm")
    module = "schedhook_plugins.schedulers.slurm.pyslurm_probe"
    assert asked == [[sys.executable, "-P", "-m", module, "6"]]


def test_pyslurm_of_a_pending_job(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with_pyslurm(monkeypatch, tmp_path)
    job = pyslurm_job(
        id=7, state="PENDING", allocated_nodes=None, get_resource_layout_per_node=dict
    )
    told = json.dumps(pyslurm_probe.describe(job))
    assert query("7", run=lambda _command: Answer(status=0, output=told)) == EXPECTED["pend"]


def test_pyslurm_that_ends_its_process_is_passed_over(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with_pyslurm(monkeypatch, tmp_path)

    def run(command: Sequence[str]) -> Answer:
        if command[0] == sys.executable:
            return Answer(status=1, output="", errors="fatal: Unable to process configuration")
        return slurm_22_05(command)

    assert query("6", run=run).provider == "squeue"
    assert queries.probe(run)["pyslurm"] == (
        False,
        "pyslurm does not start: fatal: Unable to process configuration",
    )


def test_pyslurm_is_not_even_started_without_a_configuration(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with_pyslurm(monkeypatch, tmp_path)
    (tmp_path / "slurm.conf").unlink()

    def run(command: Sequence[str]) -> Answer:
        assert command[0] != sys.executable
        return slurm_22_05(command)

    assert query("6", run=run).provider == "squeue"


def test_the_process_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With a module of pyslurm's name that has what is used of it."""
    with_pyslurm(monkeypatch, tmp_path)
    (tmp_path / "pyslurm.py").write_text(
        "__version__ = '25.11.2'\n"
        "class PyslurmError(Exception): pass\n"
        "class Job:\n"
        "    id, state, user_id, user_name, allocated_nodes = 6, 'RUNNING', 2001, 'alice', 'n1'\n"
        "    @staticmethod\n"
        "    def load(job):\n"
        "        if job != 6: raise PyslurmError('Invalid job id specified')\n"
        "        return Job()\n"
        "    def get_resource_layout_per_node(self):\n"
        "        return {'n1': {'cpu_ids': '0-1', 'gres': {}, 'memory': 300}}\n"
    )
    paths = [str(tmp_path), *(path for path in sys.path if path)]
    monkeypatch.setenv("PYTHONPATH", ":".join(paths))
    found = query("6")
    assert (found.provider, str(found.allocated["n1"].cpu_ids)) == ("pyslurm", "0-1")
    with pytest.raises(UsageError, match="knows no job 5"):
        query("5")
    assert queries.probe()["pyslurm"] == (True, "pyslurm 25.11.2")


# -- host lists and processors -------------------------------------------------------------------


def test_host_lists() -> None:
    """As `scontrol show hostnames` of 22.05 writes them out (recorded)."""
    found = expand_hosts("n[1-3,07,10-11],r[1-2]n[08-09],login")
    written = "n1 n2 n3 n07 n10 n11 r1n08 r1n09 r2n08 r2n09 login"
    assert found == tuple(written.split())
    assert expand_hosts("(null)") == expand_hosts(" ") == ()


@pytest.mark.parametrize(
    "text", ["n[1", "n]1[", "n[3-1]", "n[a]", "n[1-99999999]", "n m", "n[[1]]"]
)
def test_bad_host_lists(text: str) -> None:
    with pytest.raises(ValueError, match=r"not a list|not a number|runs backwards"):
        expand_hosts(text)


@given(st.lists(st.integers(0, 300), min_size=1, unique=True), st.sampled_from(["n", "rack-2-n"]))
def test_any_list_of_numbers_comes_back(numbers: list[int], prefix: str) -> None:
    text = f"{prefix}[{CpuSet(numbers)}]"
    assert expand_hosts(text) == tuple(f"{prefix}{number}" for number in sorted(numbers))


def test_cores_become_slurms_numbers() -> None:
    shape = Geometry(cores_per_socket=4, threads_per_core=2)
    assert shape.cpu_ids([(0, 0), (1, 3)]) == CpuSet({0, 1, 14, 15})
