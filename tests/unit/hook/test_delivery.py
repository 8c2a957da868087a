"""The hooks' program: how it delivers an event, and what it does if it cannot."""

from __future__ import annotations

import contextlib
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

from schedhook.hook import delivery, fallback
from schedhook.hook.message import parse_message
from schedhook.hook.spool import read_spool
from tests.unit.agentkit import HOOK, hook

HOOK_COMMAND = (sys.executable, "-I", "-S", str(HOOK))
MOST_MODULES = 12
"""In addition to those of `python3 -I -S -c pass`."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[list[bytes]]:
    """Return the messages that an agent gets, which answers each with `ok`."""
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


def test_a_hook_sends_its_event_to_the_agent_and_says_so(
    tmp_path: Path, server: list[bytes]
) -> None:
    result = hook(tmp_path, "begin", "7", "--strict", "--patience=20")
    assert (result.returncode, result.stdout, result.stderr) == (0, "handed over\n", "")
    assert parse_message(server[0]).environ["FAKE_JOB"] == "7"
    assert not (tmp_path / "spool").exists()


def test_a_hook_with_wait_prints_the_result(tmp_path: Path, server: list[bytes]) -> None:
    result = hook(tmp_path, "preresume", "7", "--wait", "--strict")
    assert (result.returncode, result.stdout) == (0, "moved 1 MiB, complete\n")
    assert parse_message(server[0]).wait


def test_standard_input_is_sent_as_it_is(tmp_path: Path, server: list[bytes]) -> None:
    read, write = os.pipe()
    os.write(write, b'{"job": "7", "x": "\xff\x00"}')
    os.close(write)
    hook(tmp_path, "begin", "7", stdin=read)
    os.close(read)
    assert parse_message(server[0]).data == b'{"job": "7", "x": "\xff\x00"}'


def test_a_task_prolog_does_not_read_the_jobs_standard_input(
    tmp_path: Path, server: list[bytes]
) -> None:
    read, write = os.pipe()
    os.write(write, b"the job's own")
    os.close(write)
    done = subprocess.run(
        [*HOOK_COMMAND, "slurm", "task-prolog", f"--socket={tmp_path / 'agent.sock'}"],
        env={"SLURM_JOB_ID": "7"},
        stdin=read,
        stdout=subprocess.PIPE,
        check=True,
        timeout=60,
    )
    assert done.stdout == b"", "Slurm obeys it"
    assert os.read(read, 100) == b"the job's own"
    os.close(read)
    assert parse_message(server[0]).data == b""


def test_without_an_agent_the_event_is_written_to_the_spool(tmp_path: Path) -> None:
    result = hook(tmp_path, "begin", "7", "--strict")
    assert (result.returncode, result.stderr) == (0, "")
    said = "agent.sock: No such file or directory; the event is kept in"
    assert said in result.stdout
    ((path, raw),) = read_spool(tmp_path / "spool")
    assert parse_message(raw).environ["FAKE_JOB"] == "7"
    assert path.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "spool").stat().st_mode & 0o777 == 0o700


def test_a_silent_agent_delays_a_hook_for_a_bounded_time(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "agent.sock"))
        listener.listen()
        before = time.monotonic()
        result = hook(tmp_path, "begin", "7", "--timeout", "0.5")
        assert time.monotonic() - before < 5
    assert result.returncode == 0
    assert len(list(read_spool(tmp_path / "spool"))) == 1


def silent(tmp_path: Path) -> socket.socket:
    """Listen as an agent that hangs."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "agent.sock"))
    listener.listen()
    return listener


def fill_backlog(tmp_path: Path) -> list[socket.socket]:
    """Open connections until the kernel takes no more of them for the agent; see listen(2)."""
    opened = []
    with contextlib.suppress(BlockingIOError):
        while True:
            opened.append(socket.socket(socket.AF_UNIX))
            opened[-1].setblocking(False)
            opened[-1].connect(str(tmp_path / "agent.sock"))
    return opened


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("length", [0, 900_000], ids=["short", "long"])
def test_a_job_hardly_waits_for_an_agent_that_hangs(
    tmp_path: Path, full: bool, length: int
) -> None:
    """A long message does not fit in the kernel's buffer."""
    with silent(tmp_path), contextlib.ExitStack() as stack:
        for connection in fill_backlog(tmp_path) if full else ():
            stack.enter_context(connection)
        (tmp_path / "input").write_bytes(b"x" * length)
        with (tmp_path / "input").open() as data:
            result = hook(tmp_path, "begin", "7", "--strict", stdin=data)
    assert (result.returncode, result.stderr) == (0, "")
    why = "Resource temporarily unavailable" if full else "the agent has not answered for 0.05 s"
    assert f"{why}; the event is kept in" in result.stdout
    ((_, raw),) = read_spool(tmp_path / "spool")
    assert parse_message(raw).data == b"x" * length


@pytest.mark.parametrize(
    ("user", "choice", "patient"), [(1000, "off", True), (1000, "", False), (0, "off", False)]
)
def test_a_users_choice_is_worth_patience_as_the_spool_is_roots(
    user: int, choice: str, patient: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environ = {b"SCHEDHOOK": choice.encode()} if choice else {}
    message = delivery.make_message("slurm", "task_prolog", environ, b"", False)
    monkeypatch.setattr(delivery, "SPOOL", str(tmp_path / "spool"))
    monkeypatch.setattr(delivery.posix, "geteuid", lambda: user)
    with silent(tmp_path):
        before = time.monotonic()
        with contextlib.suppress(delivery.NotDelivered):
            delivery.deliver(
                message, str(tmp_path / "agent.sock"), delivery.SPOOL, 3.0, False, 0.05
            )
        assert (time.monotonic() - before > 0.7) == patient
    assert (tmp_path / "spool").exists() == (user == 0)


def test_what_waits_is_patient_but_not_with_an_agent_that_has_left_events(tmp_path: Path) -> None:
    words = ("look", "7", "--wait", "--timeout", "20")
    with silent(tmp_path):
        before = time.monotonic()
        hook(tmp_path, *words)
        assert time.monotonic() - before > 0.7
        (first,) = (tmp_path / "spool").iterdir()
        old = f"{time.time_ns() - 4 * 10**9:020d}-1.event"
        first.rename(first.with_name(old))
        result = hook(tmp_path, *words)
    assert result.returncode == 0
    assert len(list(read_spool(tmp_path / "spool"))) == 2


def test_an_event_that_waits_is_not_lost_if_the_agent_hangs(tmp_path: Path) -> None:
    """It is handled without the agent, and counts once, as it has one time."""
    with silent(tmp_path):
        hook(tmp_path, "preresume", "7", "--wait", "--timeout", "20")
    ((_, raw),) = read_spool(tmp_path / "spool")
    assert parse_message(raw).wait


def test_endless_input_delays_a_hook_for_a_bounded_time(tmp_path: Path) -> None:
    read, write = os.pipe()
    result = hook(tmp_path, "begin", "7", "--timeout", "0.3", stdin=read)
    os.close(read)
    os.close(write)
    assert result.returncode == 0
    assert "not finished after 0.3 s" in result.stderr


def test_a_refused_event_is_reported_and_not_spooled(tmp_path: Path) -> None:
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
def test_without_agent_and_spool_a_hook_reports_it_and_exits_0(tmp_path: Path, kind: str) -> None:
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
        for number in range(fallback.MOST_SPOOLED):
            (spool / f"{number}.event").touch()
    lenient, strict = hook(tmp_path, "begin", "7"), hook(tmp_path, "begin", "7", "--strict")
    assert (lenient.returncode, strict.returncode) == (0, 1)
    assert "spool" in lenient.stderr
    assert lenient.stdout == ""


def test_an_agent_that_is_busy_with_a_full_spool_gets_the_event(tmp_path: Path) -> None:
    """Nothing but the agent can take it, so it is waited for."""
    spool = tmp_path / "spool"
    spool.mkdir(mode=0o700)
    for number in range(fallback.MOST_SPOOLED):
        (spool / f"{number}.event").touch()
    with silent(tmp_path) as listener:

        def answer_late() -> None:
            for late in (True, False):
                connection, _ = listener.accept()
                with connection:
                    while connection.recv(65536):
                        pass
                    if late:
                        time.sleep(0.2)
                    with contextlib.suppress(BrokenPipeError):
                        connection.sendall(b"ok\n")

        thread = threading.Thread(target=answer_late)
        thread.start()
        result = hook(tmp_path, "begin", "7", "--strict")
        thread.join()
    assert (result.returncode, result.stdout) == (0, "handed over\n")


def test_a_full_disk_leaves_no_partial_message(tmp_path: Path) -> None:
    limited = (
        "import resource, runpy, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (40, 40));"
        "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    # Nor does the interpreter write bytecode (-B): it would leave the first 40 bytes of a module's.
    hook_command = [sys.executable, "-B", "-c", limited, HOOK, "fake", "begin"]
    command = [*hook_command, "--spool", tmp_path / "spool"]
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
def test_wrong_arguments_do_not_fail_a_job(arguments: str) -> None:
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


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["pbs", "be gin"], "'be gin' is not the name"),
        (["pbs", "begin\n"], "is not the name"),
        (["pbs", "x" * 65], "is not the name"),
        (["../pbs", "begin"], "'../pbs' is not the name"),
        (["fake", "begin", "--timeout", "x"], "--timeout x: give seconds"),
        (["fake", "begin", "--timeout", "nan"], "--timeout nan: give seconds"),
        (["fake", "begin", "--timeout=1e300"], "--timeout 1e300: give seconds"),
        (["fake", "begin", "--timeout=0"], "--timeout 0: give seconds"),
    ],
)
def test_what_no_agent_would_take_is_not_spooled(
    tmp_path: Path, words: list[str], says: str
) -> None:
    spool = tmp_path / "spool"
    result = subprocess.run(
        [*HOOK_COMMAND, "--socket=/nowhere/s", f"--spool={spool}", "--strict", *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 1
    assert says in result.stderr
    assert "Error" not in result.stderr
    assert result.stderr.count("\n") == 1
    assert not spool.exists()


def test_a_user_cannot_write_to_roots_spool(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(delivery.posix, "geteuid", lambda: 1000)
    with pytest.raises(delivery.NotDelivered):
        delivery.deliver(b"x", str(tmp_path / "none"), delivery.SPOOL, 1.0, False, 0.5)


def test_a_hook_that_cannot_handle_the_event_does_not_fail_the_job(tmp_path: Path) -> None:
    lenient = hook(tmp_path, "unheard-of", "7", "--wait")
    strict = hook(tmp_path, "unheard-of", "7", "--wait", "--strict")
    assert (lenient.returncode, strict.returncode) == (0, 1)
    assert not (tmp_path / "spool").exists()


def test_a_hook_loads_only_a_few_small_modules() -> None:
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
    # syslog is loaded because this event could not be delivered, recovery only if a relocation
    # happens to run on this host.
    expected = {"delivery", "fallback", "_socket", "_signal", "posix", "time", "syslog", "recovery"}
    assert added <= expected, sorted(added)
    assert len(added) <= MOST_MODULES
    assert "delivery" in added


def test_every_user_can_run_the_hooks_program() -> None:
    assert stat.S_IMODE(HOOK.stat().st_mode) & 0o444 == 0o444
