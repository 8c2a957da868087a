"""Events on their way in: the hook's program, the spool, and what strangers may send."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schedhook.agent.events import read_event
from schedhook.hook import delivery
from schedhook.hook.message import parse_message
from schedhook.hook.spool import read_spool
from schedhook.roles.scheduler import EventKind, check_job
from schedhook.values.errors import SchedhookError, UsageError
from schedhook.values.model import Event
from tests.unit.agentkit import HOOK, FakeScheduler, hook, message

HOOK_COMMAND = (sys.executable, "-I", "-S", str(HOOK))
MOST_MODULES = 12
"""Beyond those of `python3 -I -S -c pass`."""


# -- messages ------------------------------------------------------------------------------------


@given(
    environ=st.dictionaries(
        st.text(min_size=1)
        .filter(lambda name: "\0" not in name and "=" not in name)
        .map(lambda name: b"FAKE_" + name.encode("utf-8", "surrogatepass")),
        st.binary().filter(lambda value: b"\0" not in value),
    ),
    data=st.binary(),
    wait=st.booleans(),
)
def test_what_is_sent_is_what_is_read(environ: dict[bytes, bytes], data: bytes, wait: bool) -> None:
    read = parse_message(delivery.make_message("fake", "begin", environ, data, wait))
    assert (read.scheduler, read.point, read.wait, read.data) == ("fake", "begin", wait, data)
    back = {
        name.encode("utf-8", "surrogateescape"): value.encode("utf-8", "surrogateescape")
        for name, value in read.environ.items()
    }
    assert back == environ
    assert abs(read.at - time.time()) < 60


@given(st.binary())
def test_garbage_is_a_usage_error_and_nothing_else(raw: bytes) -> None:
    with pytest.raises(UsageError):
        parse_message(raw)


@given(st.integers(0, 200), st.binary(min_size=1, max_size=3))
def test_a_message_with_a_hole_is_read_or_a_usage_error(position: int, junk: bytes) -> None:
    whole = message("begin", "7")
    try:
        parse_message(whole[:position] + junk + whole[position + len(junk) :])
    except UsageError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize("count", [b"-1", b"3", b"99999999999999999999", b"x", b""])
def test_a_count_that_is_wrong(count: bytes) -> None:
    fields = [delivery.MAGIC, b"", b"1.0", b"fake", b"begin", count, b"FAKE_JOB=7", b""]
    with pytest.raises(UsageError):
        parse_message(b"\0".join(fields))


@pytest.mark.parametrize("at", [b"nan", b"inf", b"-1e300", b"1e300", b"0"])
def test_a_time_that_cannot_be_is_now(at: bytes) -> None:
    fields = [delivery.MAGIC, b"", at, b"fake", b"begin", b"0", b""]
    assert abs(parse_message(b"\0".join(fields)).at - time.time()) < 60


def test_too_much_is_neither_sent_nor_read() -> None:
    with pytest.raises(delivery.NotDelivered):
        delivery.make_message("fake", "begin", {}, b"x" * delivery.MOST_BYTES, False)
    with pytest.raises(UsageError):
        parse_message(b"x" * (delivery.MOST_BYTES + 1))


def test_only_the_schedulers_variables_travel_and_no_secrets() -> None:
    environ = {
        b"SLURM_JOB_ID": b"7",
        b"SLURM_JWT": b"secret",
        b"AWS_SECRET_ACCESS_KEY": b"secret",
        b"PATH": b"/bin",
    }
    raw = delivery.make_message("slurm", "prolog", environ, b"", False)
    assert parse_message(raw).environ == {"SLURM_JOB_ID": "7"}
    assert b"secret" not in raw


@pytest.mark.parametrize("name", ["../slurm", "a/b", "", "-x", "a b", "x" * 65, "ä"])
def test_names_that_no_scheduler_or_point_has(name: str) -> None:
    for scheduler, point in ((name, "begin"), ("fake", name)):
        fields = [delivery.MAGIC, b"", b"1", scheduler.encode(), point.encode(), b"0", b""]
        with pytest.raises(UsageError):
            parse_message(b"\0".join(fields))


# -- what events mean ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "job",
    ["../../etc", "1/2", ".", "..", "-1", "1\n2", "1\0", "x" * 129, "a b", "٣", "1\x1b[2J", "$(x)"],
)
def test_no_path_is_taken_for_a_job(job: str) -> None:
    with pytest.raises(UsageError):
        check_job(job)


@pytest.mark.parametrize("job", ["1", "123_4", "12+1", "7.host.example.org", "9[].host", "9[3]"])
def test_jobs_as_schedulers_call_them(job: str) -> None:
    check_job(job)


def test_a_job_may_be_missing_only_where_none_is_meant(tmp_path: Path) -> None:
    adapter = FakeScheduler(tmp_path)
    read_event(parse_message(message("periodic", "")), adapter)
    with pytest.raises(UsageError):
        read_event(parse_message(message("begin", "")), adapter)


def test_the_adapters_word_on_a_point_goes_first(tmp_path: Path) -> None:
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


# -- the hook's program --------------------------------------------------------------------------


@pytest.fixture
def server(tmp_path: Path) -> Iterator[list[bytes]]:
    """An agent that says `ok` and keeps what it got."""
    got: list[bytes] = []
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "agent.sock"))
    listener.listen()

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                whole = b""
                while part := connection.recv(65536):
                    whole += part
                got.append(whole)
                connection.sendall(b"ok\n")
                if b"wait" in whole[:30]:
                    connection.sendall(b"moved 1 MiB, complete\n")

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield got
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()


def test_the_agent_gets_the_event_and_nothing_is_printed(
    tmp_path: Path, server: list[bytes]
) -> None:
    result = hook(tmp_path, "begin", "7", "--strict")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert parse_message(server[0]).environ["FAKE_JOB"] == "7"
    assert not (tmp_path / "spool").exists()


def test_who_waits_gets_the_agents_last_word(tmp_path: Path, server: list[bytes]) -> None:
    result = hook(tmp_path, "preresume", "7", "--wait", "--strict")
    assert (result.returncode, result.stdout) == (0, "moved 1 MiB, complete\n")
    assert parse_message(server[0]).wait


def test_standard_input_travels(tmp_path: Path, server: list[bytes]) -> None:
    read, write = os.pipe()
    os.write(write, b'{"job": "7", "x": "\xff\x00"}')
    os.close(write)
    hook(tmp_path, "begin", "7", stdin=read)
    os.close(read)
    assert parse_message(server[0]).data == b'{"job": "7", "x": "\xff\x00"}'


def test_a_jobs_standard_input_is_left_to_the_job(tmp_path: Path, server: list[bytes]) -> None:
    read, write = os.pipe()
    os.write(write, b"the job's own")
    os.close(write)
    subprocess.run(
        [*HOOK_COMMAND, "slurm", "task-prolog", f"--socket={tmp_path / 'agent.sock'}"],
        env={"SLURM_JOB_ID": "7"},
        stdin=read,
        check=True,
        timeout=60,
    )
    assert os.read(read, 100) == b"the job's own"
    os.close(read)
    assert parse_message(server[0]).data == b""


def test_without_an_agent_the_event_is_in_the_spool(tmp_path: Path) -> None:
    result = hook(tmp_path, "begin", "7", "--strict")
    assert (result.returncode, result.stderr) == (0, "")
    ((path, raw),) = read_spool(tmp_path / "spool")
    assert parse_message(raw).environ["FAKE_JOB"] == "7"
    assert path.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "spool").stat().st_mode & 0o777 == 0o700


def test_the_spool_is_read_in_the_order_of_writing(tmp_path: Path) -> None:
    for job in ("1", "2", "3"):
        hook(tmp_path, "begin", job)
    jobs = [parse_message(raw).environ["FAKE_JOB"] for _, raw in read_spool(tmp_path / "spool")]
    assert jobs == ["1", "2", "3"]


def test_an_agent_that_says_nothing_costs_a_bounded_time(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "agent.sock"))
        listener.listen()
        before = time.monotonic()
        result = hook(tmp_path, "begin", "7", "--timeout", "0.5")
        assert time.monotonic() - before < 5
    assert result.returncode == 0
    assert len(list(read_spool(tmp_path / "spool"))) == 1


def test_input_that_never_ends_costs_a_bounded_time(tmp_path: Path) -> None:
    read, write = os.pipe()
    result = hook(tmp_path, "begin", "7", "--timeout", "0.3", stdin=read)
    os.close(read)
    os.close(write)
    assert result.returncode == 0
    assert "not done after 0.3 s" in result.stderr


def test_an_agent_that_refuses_is_told_of_and_not_gone_around(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "agent.sock"))
        listener.listen()

        def refuse() -> None:
            for _ in range(2):
                connection, _ = listener.accept()
                with connection:
                    while connection.recv(65536):
                        pass
                    connection.sendall(b"not your job\n")

        thread = threading.Thread(target=refuse)
        thread.start()
        lenient, strict = hook(tmp_path, "begin", "7"), hook(tmp_path, "begin", "7", "--strict")
        thread.join()
    assert (lenient.returncode, strict.returncode) == (0, 1)
    assert "not your job" in lenient.stderr
    assert not (tmp_path / "spool").exists()


UNUSABLE = ["file", "link", "others", "full"]


@pytest.mark.parametrize("kind", UNUSABLE)
def test_no_agent_and_no_spool_is_told_and_harms_nobody(tmp_path: Path, kind: str) -> None:
    spool = tmp_path / "spool"
    if kind == "file":
        spool.write_text("")
    elif kind == "link":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        spool.symlink_to(tmp_path / "elsewhere")
    elif kind == "others":
        spool.mkdir()
        spool.chmod(0o777)
    else:
        spool.mkdir(mode=0o700)
        for number in range(delivery.MOST_SPOOLED):
            (spool / f"{number}.event").touch()
    lenient, strict = hook(tmp_path, "begin", "7"), hook(tmp_path, "begin", "7", "--strict")
    assert (lenient.returncode, strict.returncode) == (0, 1)
    assert "spool" in lenient.stderr
    assert lenient.stdout == ""


def test_a_full_disk_leaves_no_half_message(tmp_path: Path) -> None:
    limited = (
        "import resource, runpy, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (40, 40));"
        "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    command = [sys.executable, "-c", limited, HOOK, "fake", "begin", "--spool", tmp_path / "spool"]
    result = subprocess.run(
        [*command, "--socket", tmp_path / "none"],
        env={"FAKE_JOB": "7"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0
    assert "File too large" in result.stderr
    assert list((tmp_path / "spool").iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [
        "",
        "fake",
        "fake begin more",
        "fake begin --bad",
        "fake begin --timeout x",
        "fake begin --timeout",
    ],
)
def test_wrong_arguments_are_no_reason_to_fail_a_job(arguments: str) -> None:
    result = subprocess.run(
        [*HOOK_COMMAND, "--socket=/nowhere/s", "--spool=/nowhere/s", *arguments.split()],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0
    assert result.stderr.startswith("schedhook: ")
    assert "Traceback" not in result.stderr


def test_a_user_cannot_spool_for_root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(delivery.posix, "geteuid", lambda: 1000)
    with pytest.raises(delivery.NotDelivered):
        delivery.deliver(b"x", str(tmp_path / "none"), delivery.SPOOL, 1.0, False)


def test_where_it_cannot_be_handled_here_the_job_goes_on(tmp_path: Path) -> None:
    lenient = hook(tmp_path, "unheard-of", "7", "--wait")
    strict = hook(tmp_path, "unheard-of", "7", "--wait", "--strict")
    assert (lenient.returncode, strict.returncode) == (0, 1)
    assert not (tmp_path / "spool").exists()


def test_the_hook_loads_next_to_nothing() -> None:
    listing = "import sys; print(*sorted(sys.modules))"
    bare = subprocess.run(
        [sys.executable, "-I", "-S", "-c", listing],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout.split()
    program = (
        f"import sys; sys.argv = [{str(HOOK)!r}, 'fake', 'begin', '--socket', '/nowhere',"
        " '--spool', '/nowhere/s']; import posix; posix._exit = lambda status: print(*sys.modules);"
        f"exec(compile(open({str(HOOK)!r}).read(), {str(HOOK)!r}, 'exec'),"
        f" {{'__name__': '__main__', '__file__': {str(HOOK)!r}}})"
    )
    loaded = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout.split()
    added = set(loaded) - set(bare)
    # syslog, only since this event could not be delivered.
    assert added <= {"delivery", "_socket", "_signal", "posix", "time", "syslog"}, sorted(added)
    assert len(added) <= MOST_MODULES
    assert "delivery" in added


# -- the spool -----------------------------------------------------------------------------------


def test_files_that_are_no_messages_are_not_read(tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    spool.mkdir(mode=0o700)
    (tmp_path / "secret").write_text("secret")
    (spool / "1.event").symlink_to(tmp_path / "secret")
    os.mkfifo(spool / "2.event")
    (spool / "3.event").mkdir()
    (spool / "4.other").write_text("x")
    (spool / "5.event").write_bytes(message("begin", "7"))
    assert [(path.name, raw) for path, raw in read_spool(spool)] == [
        ("5.event", (spool / "5.event").read_bytes())
    ]


def test_half_messages_are_cleared_away_when_they_are_old(tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    spool.mkdir(mode=0o700)
    for name, age in (("old.tmp", 7200), ("new.tmp", 0)):
        (spool / name).write_text("half")
        os.utime(spool / name, (time.time() - age,) * 2)
    assert list(read_spool(spool)) == []
    assert [path.name for path in spool.iterdir()] == ["new.tmp"]


def test_a_spool_that_others_write_is_not_trusted(tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    spool.mkdir()
    spool.chmod(0o777)
    (spool / "1.event").write_bytes(message("begin", "7"))
    with pytest.raises(SchedhookError, match="writable by no other"):
        list(read_spool(spool))


def test_no_spool_is_an_empty_spool(tmp_path: Path) -> None:
    assert list(read_spool(tmp_path / "none")) == []


def test_the_hooks_program_can_be_run_by_everybody() -> None:
    assert stat.S_IMODE(HOOK.stat().st_mode) & 0o444 == 0o444
