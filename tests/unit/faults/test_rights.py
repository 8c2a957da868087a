"""Act as another user, in a real process, against the agent, the hook and root's files."""

from __future__ import annotations

import json
import os
import resource
import stat
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from schedhook.agent.events import read_users_event
from schedhook.agent.results import EventResult
from schedhook.agent.server import Agent
from schedhook.agent.sockets import lock
from schedhook.control.rollback import Rollback
from schedhook.hook import delivery, fallback
from schedhook.hook.message import Message
from schedhook.hook.spool import read_spool
from schedhook.journal.errors import JournalError
from schedhook.journal.journal import Journal
from schedhook.plugins.descriptors import StrategyPlugin
from schedhook.plugins.loading import load_plugins
from schedhook.roles.scheduler import EventKind, Scheduler
from schedhook.values.config import Config, load_config
from schedhook.values.errors import ConfigError, RefusedError, UsageError
from schedhook.values.model import Event
from schedhook_plugins.schedulers.pbs.scheduler import PbsScheduler
from schedhook_plugins.schedulers.slurm.scheduler import Slurm
from tests.unit.agentkit import (
    FakeScheduler,
    Moves,
    agent,
    answers,
    connect,
    history,
    hook,
    make_dispatcher,
    message,
    place,
    processor_time,
    say,
    started,
    wait_for,
)
from tests.users import NOBODY

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")

SAY = """
connection = socket.socket(socket.AF_UNIX)
connection.connect(sys.argv[1])
try:
    connection.sendall(sys.stdin.buffer.read())
    connection.shutdown(socket.SHUT_WR)
except OSError:
    pass  # refused before all was sent
print(connection.recv(1000).decode(), end="")
"""


def as_nobody(program: str) -> list[str]:
    """Return the words that run a Python program as another user."""
    become = f"import os, socket, sys; os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})\n"
    return [sys.executable, "-c", become + program]


def nobody_says(here: Path, raw: bytes) -> str:
    """Send a message as another user, and return the agent's answer."""
    return subprocess.run(
        [*as_nobody(SAY), here / "agent.sock"],
        input=raw,
        stdout=subprocess.PIPE,
        check=True,
        timeout=60,
    ).stdout.decode()


@contextmanager
def nobody_does(program: str, *arguments: object) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program as another user; yield it after its first line of output, then kill it."""
    words = [*as_nobody(program), *map(str, arguments)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"begun\n"
            yield process
        finally:
            process.kill()


@contextmanager
def nobodys_process() -> Iterator[int]:
    with subprocess.Popen(["sleep", "60"], user=NOBODY) as process:
        try:
            yield process.pid
        finally:
            process.kill()


# -- the agent's socket --------------------------------------------------------------------------


@needs_root
def test_a_user_may_only_report_steps_of_their_own_jobs(here: Path) -> None:
    with agent(here):
        say(here, message("begin", "mine", user=str(NOBODY), wait=True))
        say(here, message("begin", "roots", user="0", wait=True))
        say(here, message("begin", "others", user="1000", wait=True))
        assert nobody_says(here, message("attach", "mine")) == "ok\n"
        for job in ("others", "roots", "unknown"):
            answer = nobody_says(here, message("attach", job, user=str(NOBODY)))
            assert answer == f"job {job} is not known to belong to user {NOBODY}\n"
        for point, job in (("end", "mine"), ("begin", "new"), ("look", "mine"), ("look", "")):
            answer = nobody_says(here, message(point, job, user=str(NOBODY)))
            assert "only the scheduler may" in answer
    assert all(run["ended"] is None for run in history(here))
    assert started(here) == {"mine", "roots", "others"}


@needs_root
def test_the_owner_of_an_unknown_job_is_read_from_its_processes(here: Path) -> None:
    with nobodys_process() as theirs:
        place(here, "theirs", {"0": ([theirs], "0", "0")})
        place(here, "ours", {"0": ([os.getpid()], "0", "0")})
        place(here, "both", {"0": ([theirs], "0", "0"), "1": ([os.getpid()], "0", "0")})
        with agent(here):
            assert nobody_says(here, message("attach", "theirs")) == "ok\n"
            for job in ("ours", "both"):
                assert "not known to belong" in nobody_says(here, message("attach", job))


@needs_root
def test_a_job_belongs_to_a_user_only_if_every_process_does(tmp_path: Path) -> None:
    adapter = FakeScheduler(tmp_path)
    with nobodys_process() as theirs:
        place(tmp_path, "1", {"0": ([theirs], "0", "0")})
        assert adapter.owner("1") == NOBODY
        place(tmp_path, "1", {"0": ([theirs], "0", "0"), "1": ([os.getpid()], "0", "0")})
        assert adapter.owner("1") is None
    place(tmp_path, "1", {})
    assert adapter.owner("1") is None


@needs_root
def test_only_the_job_id_of_a_users_message_is_used_and_nothing_is_recorded(here: Path) -> None:
    lies = {"job": "mine", "data": {"repatriate": True, "pid": 1, "x": "y" * 100_000}}
    with agent(here):
        say(here, message("begin", "mine", user=str(NOBODY), wait=True))
        raw = message("attach", "mine", user="0", wait=True, data=json.dumps(lies).encode())
        assert nobody_says(here, raw).startswith("ok\n")
        wait_for(lambda: (here / "events.jsonl").read_text().count("attach"))
    seen = [json.loads(line) for line in (here / "events.jsonl").read_text().splitlines()]
    for each in seen:
        del each["when"]
    assert [each for each in seen if each["point"] == "attach"] == [
        {"point": "attach", "job": "mine", "user": None, "data": {"seen_by": "user"}}
    ]
    (run,) = history(here)
    assert [event["point"] for event in run["events"]] == ["begin"]


FORGED = {
    "job": {"id": "7.n1", "euser": "root", "session_id": 1, "exec_vnode": "(n1[1]:ncpus=1)"},
    "jobs": [{"id": "8.n1", "session_id": 1}],
    "actions": {"resize": "follow", "preresume": "replace"},
    "pid": 1,
}


@pytest.mark.parametrize("adapter", [PbsScheduler(), Slurm()], ids=["pbs", "slurm"])
def test_users_may_send_only_the_events_of_hooks_that_users_run(adapter: Scheduler) -> None:
    accepted = []
    for point in (*adapter.kinds, *EventKind, "made-up"):  # type: ignore[attr-defined]
        said = Message(
            scheduler=adapter.name,
            point=point,
            environ={"SLURM_JOB_ID": "7", "SLURM_JOB_UID": "0", "SLURM_PROCID": "3"},
            data=json.dumps(FORGED).encode(),
            at=0.0,
            wait=False,
        )
        try:
            event = read_users_event(said, adapter, 1000, lambda _: 1000)
        except RefusedError:
            continue
        except UsageError:
            assert point in EventKind.STEP_STARTED  # an adapter need not know the common names
            continue
        accepted.append(point)
        assert (event.user, event.host, event.data) == (None, "", {"seen_by": "user"})
        assert adapter.kind_of(event) is EventKind.STEP_STARTED
        for owner in (None, 0, 1001):
            with pytest.raises(RefusedError):
                read_users_event(said, adapter, 1000, lambda _, owner=owner: owner)  # type: ignore[misc]
    assert accepted == {"pbs": ["attach"], "slurm": ["task-prolog", "task_prolog"]}[adapter.name]


@needs_root
def test_a_users_message_is_limited_more_than_roots(here: Path) -> None:
    much = b"x" * (1 << 19)
    with agent(here):
        say(here, message("begin", "mine", user=str(NOBODY), wait=True))
        big = delivery.make_message(
            "fake", "begin", {b"FAKE_JOB": b"7", b"FAKE_X": much}, b"", False
        )
        assert say(here, big) == "ok\n"
        assert "more than 262144 bytes" in nobody_says(here, big)


GREEDY = """
held = []
for _ in range(200):
    held.append(socket.socket(socket.AF_UNIX)); held[-1].connect(sys.argv[1])
print('begun', flush=True); sys.stdin.read()
"""


@needs_root
def test_a_user_cannot_use_up_all_connections(here: Path) -> None:
    with agent(here) as process:
        descriptors = Path(f"/proc/{process.pid}/fd")
        before = len(list(descriptors.iterdir()))
        with nobody_does(GREEDY, here / "agent.sock"):
            assert say(here, message("begin", "7")) == "ok\n"
            # The agent may just have files of the journal open for the event.
            wait_for(lambda: len(list(descriptors.iterdir())) - before <= 16)


ASK = """
import collections, json
answers, held = collections.Counter(), []
print('begun', flush=True)
for raw in sys.argv[2:]:
    for _ in range(20):
        held.append(socket.socket(socket.AF_UNIX)); held[-1].connect(sys.argv[1])
        try:
            held[-1].sendall(bytes.fromhex(raw)); held[-1].shutdown(socket.SHUT_WR)
        except OSError:
            pass  # refused before all was sent
        answers[held[-1].recv(1000).decode().strip()] += 1
print(json.dumps(answers), flush=True); sys.stdin.read()
"""


@needs_root
def test_a_users_waiting_events_are_limited(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While nothing is handled: one event of each kind and job, and one for each connection."""
    dispatcher = make_dispatcher(here, Moves())
    dispatcher.journal.runs.record_start("fake", "mine", NOBODY)
    free = threading.Event()

    def wait(_event: Event, _at: float) -> EventResult:
        free.wait(60)
        return EventResult(summary="done")

    monkeypatch.setattr(dispatcher, "handle", wait)
    serving = Agent(dispatcher, Config(), path=here / "agent.sock")
    thread = threading.Thread(target=serving.run)
    thread.start()
    try:
        wait_for(lambda: answers(here / "agent.sock"))
        points = ("attach", "task_prolog", "step-started")
        asked = [message(point, "mine") for point in points] + [
            message("attach", "mine", wait=True)
        ]
        words = [raw.hex() for raw in asked]
        with nobody_does(ASK, here / "agent.sock", *words) as process:
            assert process.stdout is not None
            answered = json.loads(process.stdout.readline())
            assert answered == {"ok": 3 * 20 + 16, "too many connections": 4}
            # One more is being handled.
            assert len(serving._workers._waiting["fake", "mine"]) == len(points) + 16
            assert say(here, message("begin", "7")) == "ok\n", "root's events are still accepted"
    finally:
        free.set()
        serving.stop()
        thread.join(60)
    assert not thread.is_alive()


FLOOD = """
import collections, json, select
raw, answers = bytes.fromhex(sys.argv[2]), collections.Counter()
print('begun', flush=True)
while not select.select([sys.stdin], [], [], 0)[0]:
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(sys.argv[1])
            try:
                connection.sendall(raw)
                connection.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # refused before all was sent
            answers[connection.recv(1000).decode().strip()] += 1
    except OSError as error:
        answers[error.strerror] += 1
print(json.dumps(answers))
"""


@needs_root
def test_a_flood_of_a_users_events_delays_no_hook_and_records_nothing(here: Path) -> None:
    raw = message("attach", "mine").hex()
    seconds: list[float] = []
    with agent(here), ExitStack() as stack:
        say(here, message("begin", "mine", user=str(NOBODY), wait=True))
        floods = [
            stack.enter_context(nobody_does(FLOOD, here / "agent.sock", raw)) for _ in range(4)
        ]
        for number in range(20):
            began = time.monotonic()
            result = hook(here, "begin", str(number), "--strict", "--patience=20")
            seconds.append(time.monotonic() - began)
            assert (result.returncode, result.stderr) == (0, "")
        answered: Counter[str] = Counter()
        for flood in floods:
            answered.update(json.loads(flood.communicate(timeout=60)[0]))
    print(
        f"{len(seconds)} hooks of root's in a user's flood took {statistics.median(seconds):.3f} s"
        f" (median), at most {max(seconds):.3f} s; the user sent {answered.total()} events and was"
        f" answered {dict(answered)}"
    )
    assert answered["too many events in a short time"] > 0
    assert not (here / "spool").exists(), "every event was sent over the socket"
    runs = {run["job"]: run for run in history(here)}
    assert len(runs) == 21
    assert [event["point"] for event in runs["mine"]["events"]] == ["begin"]
    # At most what the user's rate limit allows, not all that the four processes sent.
    assert (here / "events.jsonl").read_text().count("attach") < 1000


@needs_root
def test_an_agent_without_free_descriptors_waits_without_a_busy_loop(here: Path) -> None:
    with agent(here) as process, ExitStack() as stack:
        used = len(list(Path(f"/proc/{process.pid}/fd").iterdir()))
        soft, hard = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (used + 3, hard))
        held = [stack.enter_context(connect(here)) for _ in range(10)]
        time.sleep(0.5)
        before = processor_time(process.pid)
        time.sleep(1.0)
        assert processor_time(process.pid) - before < 0.5
        for connection in held:
            connection.close()
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (soft, hard))
        assert say(here, message("begin", "7")) == "ok\n"
    assert "cannot accept connections" in (here / "agent.log").read_text()


# -- the hook ------------------------------------------------------------------------------------

IMPOSTOR = """
os.umask(0)
server = socket.socket(socket.AF_UNIX)
server.bind(sys.argv[1])
server.listen()
print('begun', flush=True)
while True:
    with server.accept()[0] as connection, open(sys.argv[2], 'ab') as kept:
        kept.write(connection.recv(65536))
        try:
            connection.sendall(b'ok\\n')
        except OSError:
            pass
"""


@needs_root
def test_a_hook_sends_nothing_to_another_users_agent(here: Path) -> None:
    place_of = here / "impostor"
    place_of.mkdir()
    os.chown(place_of, NOBODY, NOBODY)
    path = place_of / "agent.sock"
    with nobody_does(IMPOSTOR, path, place_of / "kept"):
        result = hook(here, "begin", "7", "--socket", str(path), "--patience=20")
        assert (result.returncode, result.stderr) == (0, "")
        ((_, raw),) = read_spool(here / "spool")
        assert b"FAKE_JOB=7" in raw
        waits = hook(here, "begin", "7", "--socket", str(path), "--wait")
        assert waits.stdout == ""
        with pytest.raises(delivery.NotDelivered, match="served by uid 65534"):
            delivery.send(raw, str(path), 5.0, False, 2.0)
        wait_for((place_of / "kept").exists)
    assert (place_of / "kept").read_bytes() == b""


# -- root's files --------------------------------------------------------------------------------


@pytest.mark.parametrize("umask", [0o000, 0o077, 0o777], ids=oct)
def test_directories_have_their_modes_whatever_the_umask(
    here: Path, monkeypatch: pytest.MonkeyPatch, umask: int
) -> None:
    """Hooks and commands inherit the umask of schedulers and shells.

    Users must be able to pass through /run/schedhook, and to change nothing there.
    """
    monkeypatch.setattr("schedhook.control.undo.DIRECTORY", str(here / "run/schedhook/rollback"))
    before = os.umask(umask)
    try:
        with Rollback() as rollback:
            rollback.record_file(here / "nothing", "")
            rollback.commit()
        with lock(here / "run/agent/agent.sock"):
            pass
        Journal.open(here / "lib/schedhook/journal.db").close()
        fallback.write_spool(b"", str(here / "spool"))
    finally:
        os.umask(before)
    modes = {str(each.relative_to(here)): each.stat().st_mode & 0o777 for each in here.rglob("*/")}
    private = {"lib/schedhook", "spool"}
    if os.geteuid() == 0:  # else records have no files
        private |= {"run/schedhook/rollback"}
    open_to_users = {"run", "run/schedhook", "run/agent", "lib"}
    assert modes == dict.fromkeys(private, 0o700) | dict.fromkeys(open_to_users, 0o755)


PRY = """
for path in sys.argv[1:]:
    for mode in ('rb', 'ab'):
        try:
            open(path, mode)
        except OSError:
            continue
        print(mode, path)
    try:
        print(os.listdir(path))
    except OSError:
        pass
"""


@needs_root
def test_users_can_neither_read_nor_write_what_the_agent_keeps(here: Path) -> None:
    fallback.write_spool(message("begin", "0"), str(here / "spool"))
    with agent(here):
        say(here, message("begin", "7", wait=True))
        fallback.write_spool(message("begin", "8"), str(here / "spool"))
        paths = [*here.glob("state/*"), *here.glob("spool/*"), here / "agent.sock.lock"]
        paths += [here / "state", here / "spool", here / "state/new", here / "spool/9.event"]
        found = subprocess.run(
            [*as_nobody(PRY), *paths], stdout=subprocess.PIPE, check=True, timeout=60
        ).stdout
    assert found == b""
    assert any("journal" in path.name for path in paths)


@needs_root
@pytest.mark.parametrize("who", ["directory", "file"])
def test_a_journal_of_another_user_is_not_opened(tmp_path: Path, who: str) -> None:
    directory = tmp_path / "state"
    Journal.open(directory / "journal.db").close()
    os.chown(directory if who == "directory" else directory / "journal.db", NOBODY, NOBODY)
    with pytest.raises(JournalError, match="belongs to user 65534"):
        Journal.open(directory / "journal.db")


def test_a_pipe_is_refused_as_a_journal_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "journal.db", 0o600)
    with pytest.raises(JournalError, match="not a regular file"):
        Journal.open(tmp_path / "journal.db")
    assert stat.S_ISFIFO((tmp_path / "journal.db").stat().st_mode)


@needs_root
def test_root_does_not_read_a_configuration_that_others_can_write(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text('[journal]\npath = "/tmp/theirs"\n')
    environ = {"SCHEDHOOK_CONFIG": str(path)}
    assert load_config(environ=environ).journal.path == "/tmp/theirs"
    path.chmod(0o666)
    with pytest.raises(ConfigError, match="written by others"):
        load_config(environ=environ)
    path.chmod(0o644)
    os.chown(path, NOBODY, NOBODY)
    with pytest.raises(ConfigError, match="belongs to user 65534"):
        load_config(environ=environ)
    assert load_config(path).journal.path == "/tmp/theirs", (
        "a file named on the command line is read"
    )


# -- third parties' plug-ins ---------------------------------------------------------------------

PLUGIN = """
from pathlib import Path
from schedhook import StrategyPlugin, hookimpl
(Path(__file__).parent / "ran").touch()
@hookimpl
def schedhook_strategies():
    return [StrategyPlugin(name="theirs", summary="x", move=print)]
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Yield a directory of packages with one plug-in, my_package.plugin."""
    site = tmp_path / "site"
    package = site / "my_package"
    metadata = site / "my_package-1.0.dist-info"
    for directory in (package, metadata):
        directory.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "plugin.py").write_text(PLUGIN)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: my-package\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[schedhook]\ntheirs = my_package.plugin\n")
    (metadata / "RECORD").write_text("my_package-1.0.dist-info/entry_points.txt,,\n")
    monkeypatch.syspath_prepend(site)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield site
    for name in ("my_package", "my_package.plugin"):
        sys.modules.pop(name, None)


def test_a_plug_in_that_only_root_can_write_is_loaded(site: Path) -> None:
    assert "theirs" in load_plugins(Config(), environ={}).names(StrategyPlugin)
    assert (site / "my_package/ran").exists()


@needs_root
@pytest.mark.parametrize("how", ["group", "others", "owner"])
@pytest.mark.parametrize(
    "what",
    [
        "my_package/plugin.py",
        "my_package/__init__.py",
        "my_package",
        "my_package-1.0.dist-info/entry_points.txt",
        "my_package-1.0.dist-info",
        ".",
        "..",
    ],
)
def test_root_does_not_load_what_others_can_change(site: Path, what: str, how: str) -> None:
    path = (site / what).resolve()
    if how == "owner":
        os.chown(path, NOBODY, NOBODY)
    else:
        path.chmod(path.stat().st_mode | (0o020 if how == "group" else 0o002))
    plugins = load_plugins(Config(), environ={})
    assert "theirs" not in plugins.names(StrategyPlugin)
    assert not (site / "my_package/ran").exists(), "not even imported"
    (problem,) = plugins.problems
    assert problem.source.name == "theirs"
    why = "belongs to user 65534" if how == "owner" else "may be written by others"
    assert f"not loaded as root: {path} {why}; chown root and chmod go-w" in problem.what


@needs_root
def test_a_link_to_a_directory_that_others_can_write_is_refused(site: Path, tmp_path: Path) -> None:
    open_to_all = tmp_path / "open"
    open_to_all.mkdir()
    (site / "my_package").rename(open_to_all / "my_package")
    open_to_all.chmod(0o777)
    (site / "my_package").symlink_to(open_to_all / "my_package")
    (problem,) = load_plugins(Config(), environ={}).problems
    assert f"{open_to_all} may be written by others" in problem.what


@needs_root
def test_other_users_than_root_load_any_plug_in(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (site / "my_package/plugin.py").chmod(0o666)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert "theirs" in load_plugins(Config(), environ={}).names(StrategyPlugin)
