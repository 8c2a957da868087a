"""contrib/pbs/schedhook.PY, run as pbs_mom runs it: it accepts in time in any case."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from schedhook.hook import delivery
from tests.pbs.mom import EVENTS, PBS_EXEC, Mom, Result

CONTRIB = Path(__file__).resolve().parents[2] / "contrib/pbs"
ALARM = 10
LIMIT = 0.5
"""Seconds, for programs that do not answer."""
ENOUGH = 6.0
"""Seconds, for programs that answer; a loaded host is slow."""
WAITS = ("resize", "postsuspend", "preresume")
JOB: dict[str, Any] = {
    "id": "12.n1",
    "euser": "alice",
    "exec_vnode": "(n1[0]:ncpus=1:mem=1024kb)+(n1[2]:ncpus=1)",
    "exec_host2": "n1:15002/0*2",
    "schedselect": "2:ncpus=1",
    "session_id": 4711,
    "run_count": 1,
    "queue": "workq",
    "Account_Name": "cfd",
}

Told = Callable[[], dict[str, Any]]


@pytest.fixture
def mom(tmp_path: Path) -> Mom:
    mom = Mom(directory=tmp_path, alarm=ALARM)
    mom.import_hook(CONTRIB / "schedhook.PY")
    return mom


@pytest.fixture
def program(tmp_path: Path) -> Callable[[str], Path]:
    """Make a program out of shell lines."""

    def make(lines: str, mode: int = 0o755) -> Path:
        path = tmp_path / "schedhook"
        path.write_text(f"#!/bin/sh\n{lines}\n")
        path.chmod(mode)
        return path

    return make


def configuration(program: object, limit: float = ENOUGH, **more: Any) -> str:
    return json.dumps({"program": str(program), "seconds": {"default": limit}} | more)


def told_by(event: str, **job: Any) -> dict[str, Any]:
    """Return what PBS tells at this event."""
    match event:
        case "exechost_startup":
            return {"vnode_list": {"n1[0]": {}, "n1[1]": {}}}
        case "exechost_periodic":
            return {"vnode_list": {}, "job_list": {"12.n1": JOB | job, "13.n1": JOB | job}}
        case "execjob_attach":
            return {"job": JOB | job, "pid": 99, "vnode_list": {}}
        case "execjob_launch":
            return {"job": JOB | job, "progname": "/bin/sh", "argv": ["-sh"], "env": {}}
        case _:
            return {"job": JOB | job, "vnode_list": {}}


def line_of(result: Result) -> str:
    """Return the one line that the hook logged, in the job's log if the event has a job."""
    lines = [*result.host_log, *(line for _job, line in result.job_log)]
    assert len(lines) == 1, (lines, result.errors)
    assert lines[0].isprintable()
    assert lines[0].isascii()
    return lines[0]


def assert_accepted(result: Result) -> None:
    assert result.accepted, result.errors
    assert not result.timed_out
    assert result.seconds < ALARM
    # No traceback, no warning: it would go into pbs_mom's log line by line.
    assert result.errors == ""


MISHAPS = {
    "is not there": (None, "No such file"),
    "is no program": ("text", "Permission denied"),
    "hangs": ("exec sleep 60", "no answer within"),
    "hangs and ignores signals": ("trap '' TERM INT HUP; while :; do sleep 60; done", "no answer"),
    "stops itself": ("kill -STOP $$", "no answer within"),
    "fails": ("echo first; echo broken >&2; exit 3", "exit status 3: broken"),
    "crashes": ("kill -SEGV $$", "killed by signal 11"),
    "is killed": ("kill -KILL $$", "killed by signal 9"),
    "says nothing": ("exit 0", "no answer from"),
    "prints garbage": ("printf '\\000\\377\\033[31m\\200%s\\r' x", "?"),
    "prints a lot": ("head -c 1000000 /dev/urandom", "no answer within"),
    "prints without end": ("exec cat /dev/zero", "no answer within"),
    "never reads": ("exec 0<&-; echo fine", "fine"),
    "leaves a child that holds its output": ("sleep 60 & echo fine", "fine"),
}


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("mishap", MISHAPS)
def test_accepts_whatever_the_program_does(
    mom: Mom, program: Callable[..., Path], event: str, mishap: str, tmp_path: Path
) -> None:
    lines, expected = MISHAPS[mishap]
    if lines is None:
        path = tmp_path / "missing/schedhook"
    else:
        path = program(lines, 0o644 if lines == "text" else 0o755)
    limit = LIMIT if "no answer" in expected else ENOUGH
    mom.import_config(configuration(path, limit))

    result = mom.run(event, **told_by(event))

    assert_accepted(result)
    assert expected in line_of(result)
    assert f"schedhook {event.partition('_')[2]}: " in line_of(result)


BROKEN = {
    "missing": None,
    "empty": "",
    "not JSON": "program = /bin/true",
    "cut off": '{"program": "/bin/true", ',
    "a list": "[]",
    "a number": "7",
    "no program": "{}",
    "program is a number": '{"program": 7}',
    "program is empty": '{"program": []}',
    "limits are a list": '{"program": "/bin/true", "seconds": [1]}',
    "a limit is a word": '{"program": "/bin/true", "seconds": {"default": "soon"}}',
    "a limit is null": '{"program": "/bin/true", "seconds": {"default": null}}',
    "a limit is no number": '{"program": "/bin/true", "seconds": {"default": NaN}}',
    "not UTF-8": b"\xff\xfe\x00",
    "nested without end": "[" * 100_000,
}


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("broken", BROKEN)
def test_accepts_whatever_the_configuration_says(mom: Mom, event: str, broken: str) -> None:
    text = BROKEN[broken]
    if isinstance(text, bytes):
        (mom.hooks / "schedhook.CF").write_bytes(text)
    elif text is not None:
        mom.import_config(text)

    result = mom.run(event, **told_by(event))

    assert_accepted(result)
    told = ("not handed over", "no answer within", "exit status 127")
    assert any(words in line_of(result) for words in told)


@pytest.mark.parametrize(
    ("event", "wanted"), [*((event, 1000) for event in EVENTS), ("execjob_begin", float("inf"))]
)
def test_the_alarm_bounds_every_limit(
    mom: Mom, program: Callable[..., Path], event: str, wanted: float
) -> None:
    mom.set_alarm(4)
    limits = {event.partition("_")[2]: wanted}
    mom.import_config(configuration(program("sleep 60"), seconds=limits))

    result = mom.run(event, **told_by(event))

    assert_accepted(result)
    assert result.seconds < mom.alarm


def test_without_an_alarm_in_the_control_file_it_is_thirty_seconds(mom: Mom) -> None:
    # Running into it would take long; the hook's own words tell what it takes the alarm for.
    mom.set_alarm(30)
    text = (CONTRIB / "schedhook.PY").read_text().removesuffix("main()\n")
    (mom.hooks / "schedhook.PY").write_text(f"{text}pbs.logmsg(5, str(alarm()))\n")
    mom.import_config("{}")
    assert mom.run("execjob_begin", job=JOB).host_log == ("30.0",)
    mom.set_alarm(90)
    assert mom.run("execjob_begin", job=JOB).host_log == ("90.0",)


@pytest.fixture
def handed_over(
    mom: Mom, program: Callable[..., Path], tmp_path: Path
) -> Iterator[Callable[..., dict[str, Any]]]:
    """Run the hook with a program that keeps what it gets."""
    kept = tmp_path / "kept"

    def run(event: str, config: dict[str, Any] | None = None, **told: Any) -> dict[str, Any]:
        path = program(
            f'cat > {kept}.json; echo "$@" > {kept}.arguments; env > {kept}.env;'
            f" pwd > {kept}.cwd; cut -d' ' -f6 /proc/$$/stat > {kept}.session; echo $$ >> "
            f"{kept}.session; ls -l /proc/$$/fd > {kept}.files; echo done"
        )
        mom.import_config(configuration(path, **(config or {})))
        result = mom.run(event, **told)
        assert_accepted(result)
        assert line_of(result).endswith(": done")
        data: dict[str, Any] = json.loads(kept.with_suffix(".json").read_text())
        data["arguments"] = kept.with_suffix(".arguments").read_text().split()
        return data

    yield run


@pytest.mark.parametrize("event", EVENTS)
def test_hands_over_what_happened(handed_over: Callable[..., dict[str, Any]], event: str) -> None:
    point = event.partition("_")[2]
    data = handed_over(event, **told_by(event))

    assert data["arguments"][:2] == ["pbs", point] or data["arguments"][:3] == [
        "event",
        "pbs",
        point,
    ]
    assert data["point"] == point
    assert data["host"] == "n1"
    assert "actions" not in data, "config.toml has them"
    assert data["pid"] == (99 if event == "execjob_attach" else None)
    expected = JOB | {"on_primary": True, "schedhook": None}
    assert data["job"] == (None if event.startswith("exechost") else expected)
    ids = [job["id"] for job in data["jobs"]]
    assert ids == (["12.n1", "13.n1"] if event == "exechost_periodic" else [])
    waits = ["--wait", "--timeout", f"{ENOUGH * 0.8:g}"] if point in WAITS else []
    assert data["arguments"][3:] == waits


@pytest.mark.parametrize(
    "job",
    ["12[3].n1", "12[].n1", "1.host-with.dots.example.org"]
    # PBS itself would not take these.
    + ([] if PBS_EXEC else ["7.h$(touch /tmp/x);'\"&|", "9.hö st"]),
)
def test_any_job_id(handed_over: Callable[..., dict[str, Any]], job: str) -> None:
    assert handed_over("execjob_resize", **told_by("execjob_resize", id=job))["job"]["id"] == job


def test_a_sister_has_no_session_and_is_not_primary(
    handed_over: Callable[..., dict[str, Any]],
) -> None:
    told = told_by("execjob_resize", session_id=None, primary=False)
    data = handed_over("execjob_resize", **told)
    assert data["job"]["session_id"] is None
    assert data["job"]["on_primary"] is False


def test_what_the_job_asks_for(handed_over: Callable[..., dict[str, Any]]) -> None:
    for asked, heard in (({"schedhook": "off"}, "off"), ({"ncpus": 1}, None), (None, None)):
        data = handed_over("execjob_begin", job=JOB | {"Resource_List": asked})
        assert data["job"]["schedhook"] == heard


def test_attributes_that_are_not_set(handed_over: Callable[..., dict[str, Any]]) -> None:
    data = handed_over("execjob_begin", job={"id": "1.n1"})
    assert data["job"]["exec_vnode"] is None
    assert data["vnodes"] == []


def test_the_program_stands_alone(
    handed_over: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    handed_over("execjob_end", **told_by("execjob_end"))
    environ = dict(line.split("=", 1) for line in (tmp_path / "kept.env").read_text().splitlines())
    assert set(environ) <= {"PATH", "LC_ALL", "PWD", "OLDPWD", "SHLVL", "_"}
    assert "/bin" in environ["PATH"].split(":")
    assert (tmp_path / "kept.cwd").read_text() == "/\n"
    session, own = (tmp_path / "kept.session").read_text().split()
    assert session == own
    # Nothing of pbs_mom's; what the shell itself opens has two digits.
    files = [line.split()[8] for line in (tmp_path / "kept.files").read_text().splitlines()[1:]]
    assert {int(name) for name in files if len(name) == 1} <= {0, 1, 2}


OTHERS = {
    "execjob_prologue": 128,
    "execjob_epilogue": 256,
    "execjob_preterm": 1024,
    "execjob_abort": 262144,
}
SERVERS = {"periodic": 32768, "queuejob": 1}


@pytest.mark.parametrize("event", OTHERS if PBS_EXEC else OTHERS | SERVERS)
def test_other_events_are_ignored(
    mom: Mom, program: Callable[..., Path], event: str, tmp_path: Path
) -> None:
    mom.import_config(configuration(program(f"touch {tmp_path}/ran")))
    result = mom.run(event, type=(OTHERS | SERVERS)[event], job=JOB)
    assert_accepted(result)
    assert (result.job_log, result.host_log) == ((), ())
    assert not (tmp_path / "ran").exists()


def test_a_worker_with_its_own_session_outlives_the_hook(
    mom: Mom, program: Callable[..., Path], tmp_path: Path
) -> None:
    path = program(f"setsid sh -c 'sleep 3; touch {tmp_path}/moved' & echo started")
    mom.import_config(configuration(path))
    result = mom.run("execjob_resize", **told_by("execjob_resize"))
    assert_accepted(result)
    assert not (tmp_path / "moved").exists()
    until((tmp_path / "moved").exists)


def test_a_program_that_hangs_is_gone_afterwards(
    mom: Mom, program: Callable[..., Path], tmp_path: Path
) -> None:
    mom.import_config(configuration(program(f"echo $$ > {tmp_path}/pid; sleep 60; exit"), 1))
    assert_accepted(mom.run("execjob_preresume", **told_by("execjob_preresume")))
    pid = int((tmp_path / "pid").read_text())
    until(lambda: gone(pid))


def test_pbs_mom_may_ignore_its_children(mom: Mom, program: Callable[..., Path]) -> None:
    text = (CONTRIB / "schedhook.PY").read_text()
    ignoring = "import signal\nsignal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
    (mom.hooks / "schedhook.PY").write_text(ignoring + text)
    mom.import_config(configuration(program("sleep 0.1; echo fine")))
    result = mom.run("execjob_begin", job=JOB)
    assert_accepted(result)
    assert line_of(result).endswith(": fine")


def test_a_file_system_that_hangs_at_exec(mom: Mom, program: Callable[..., Path]) -> None:
    # A hook that waited for the exec would hang here.
    text = (CONTRIB / "schedhook.PY").read_text()
    hanging = "import os, time\nos.execve = lambda *words: time.sleep(600)\n"
    (mom.hooks / "schedhook.PY").write_text(hanging + text)
    mom.import_config(configuration(program("echo fine"), LIMIT))
    result = mom.run("execjob_preresume", **told_by("execjob_preresume"))
    assert_accepted(result)
    assert "no answer within" in line_of(result)


def test_a_log_that_cannot_be_written_does_not_hold_up_a_job(mom: Mom) -> None:
    mom.import_config("{}")
    result = mom.run("execjob_preresume", job=JOB | {"id": ""})  # logjobmsg raises
    assert_accepted(result)
    assert result.job_log == ()


# -- with schedhook's own program ----------------------------------------------------------------


SHIPPED = json.loads((CONTRIB / "schedhook.CF").read_text())
BOUND = 2.0
"""Seconds for which pbs_mom may wait in all."""
LOADED = 1.5
"""Seconds for the start of interpreters on a loaded host."""
AGENTS = {
    "none": "No such file or directory; the event is kept in",
    "hung": "the agent has not answered for 0.05 s; the event is kept in",
    "well": "handed over",
}


@pytest.fixture
def deliver(mom: Mom, program: Callable[..., Path], tmp_path: Path) -> Callable[..., Result]:
    """Run the hook as shipped, with the program that hands events to an agent."""
    (tmp_path / "config.toml").write_text(f'[journal]\npath = "{tmp_path}/journal.db"\n')
    hook = Path(delivery.__file__).with_name("run.py")
    words = [sys.executable, "-I", "-S", str(hook), '"$@"']
    words += [f"--socket={tmp_path}/agent.sock", f"--spool={tmp_path}/spool"]
    path = program(f"export SCHEDHOOK_CONFIG={tmp_path}/config.toml\nshift\nexec {' '.join(words)}")

    def run(event: str) -> Result:
        mom.import_config(json.dumps(SHIPPED | {"program": str(path)}))
        return mom.run(event, **told_by(event))

    return run


@contextlib.contextmanager
def agent(path: Path, state: str) -> Iterator[None]:
    """Listen at a socket as an agent that accepts events, or as one that hangs."""
    if state == "none":
        yield
        return
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        listener.settimeout(30)

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                while connection.recv(65536):
                    pass
                connection.sendall(b"ok\n")

        thread = threading.Thread(target=serve, daemon=True)
        if state == "well":
            thread.start()
        yield
        if state == "well":
            thread.join()


@pytest.mark.parametrize("state", AGENTS)
def test_handed_over_is_said_only_if_the_agent_has_the_event(
    deliver: Callable[..., Result], tmp_path: Path, state: str
) -> None:
    with agent(tmp_path / "agent.sock", state):
        result = deliver("execjob_begin")
    assert_accepted(result)
    assert AGENTS[state] in line_of(result)
    assert ("handed over" in line_of(result)) == (state == "well")
    assert len(list(tmp_path.glob("spool/*.event"))) == (state != "well")
    assert result.seconds < BOUND + LOADED


@pytest.mark.parametrize("event", ["execjob_preresume", "execjob_resize", "execjob_begin"])
def test_an_agent_that_hangs_costs_little(
    deliver: Callable[..., Result], tmp_path: Path, event: str
) -> None:
    with agent(tmp_path / "agent.sock", "hung"):
        results = [deliver(event) for _ in range(2)]
    for result in results:
        assert_accepted(result)
        assert result.seconds < BOUND + LOADED
    assert len(list(tmp_path.glob("spool/*.event"))) == 2, "nothing is lost"


def test_the_shipped_limits_are_within_the_bound() -> None:
    text = (CONTRIB / "schedhook.PY").read_text()
    assert f"LIMIT = {SHIPPED['seconds']['default']}" in text
    assert max(SHIPPED["seconds"].values()) < BOUND


def test_a_hook_that_does_raise_is_rejected(mom: Mom) -> None:
    """That the tests above can fail."""
    (mom.hooks / "schedhook.PY").write_text("import pbs\npbs.event().progname\n")
    assert not mom.run("execjob_preresume", job=JOB).accepted
    (mom.hooks / "schedhook.PY").write_text("import pbs\npbs.event().reject('no')\n")
    assert not mom.run("execjob_preresume", job=JOB).accepted
    mom.set_alarm(1)
    (mom.hooks / "schedhook.PY").write_text("import time\ntime.sleep(9)\n")
    result = mom.run("execjob_preresume", job=JOB)
    assert result.timed_out
    assert not result.accepted


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    # Its parent may not have waited for it yet.
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
