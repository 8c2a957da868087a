"""Roll back changes, with real processes."""

from __future__ import annotations

import errno
import os
import posix
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

import pytest

from schedhook.backends.native import _core
from schedhook.cli.main import main
from schedhook.control import rollback as rollback_module
from schedhook.control import undo as module
from schedhook.control.rollback import Rollback
from schedhook.control.undo import recover, roll_back
from schedhook.hook.recovery import start_recovery
from schedhook.host.hierarchies import Hierarchy
from schedhook.host.processes import read_start_time
from schedhook.values.errors import RefusedError
from tests.unit.agentkit import agent
from tests.unit.clikit import make_runner

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root keeps records, leaves cgroups")


@pytest.fixture
def sleeper() -> Iterator[int]:
    with subprocess.Popen(["sleep", "600"]) as process:
        yield process.pid
        process.kill()


@pytest.fixture(autouse=True)
def records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the directory of root's records."""
    path = tmp_path / "rollback"
    monkeypatch.setattr(module, "DIRECTORY", str(path))
    return path


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def ignores(pid: int, number: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text()
    return bool(int(status.partition("SigIgn:")[2].split()[0], 16) & 1 << number - 1)


def test_changes_since_the_last_commit_are_undone_last_first(tmp_path: Path) -> None:
    with Rollback() as rollback:
        for name in ("one", "two"):
            rollback.record_file(tmp_path / name, "first")
            rollback.commit()
        rollback.record_file(tmp_path / "a\nb", "first")
        rollback.record_file(tmp_path / "a\nb", "second")
        rollback.record_file(tmp_path / "last", "first")
    assert (tmp_path / "a\nb").read_text() == "first"
    assert {path.name for path in tmp_path.iterdir() if path.is_file()} == {"a\nb", "last"}


def test_the_helper_undoes_changes_after_a_while(tmp_path: Path) -> None:
    """As if this process had been stopped in the block. What others write later stays."""
    file = tmp_path / "one"
    file.write_text("old")
    with Rollback(seconds=0.2) as rollback:
        rollback.record_file(file, "old")
        file.write_text("new")
        rollback.watch(file)
        wait_until(lambda: file.read_text() == "old")
        file.write_text("of another process")
    assert file.read_text() == "of another process"


def test_without_a_record_no_helper_starts() -> None:
    with Rollback() as rollback:
        rollback.commit()
        assert rollback._helper is None


def test_a_thread_gets_its_processors_back(sleeper: int) -> None:
    had = os.sched_getaffinity(sleeper)
    one = {min(had)}
    with Rollback() as rollback:
        rollback.record_affinity(sleeper, read_start_time(sleeper), one, had)
    assert os.sched_getaffinity(sleeper) == one


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two processors")
def test_a_thread_that_another_process_has_bound_since_is_left_alone(sleeper: int) -> None:
    first, second = sorted(os.sched_getaffinity(sleeper))[:2]
    with Rollback() as rollback:
        rollback.record_affinity(sleeper, read_start_time(sleeper), {first, second}, {first})
        os.sched_setaffinity(sleeper, {second})
    assert os.sched_getaffinity(sleeper) == {second}


def test_a_later_thread_with_its_number_is_left_alone(sleeper: int) -> None:
    had = os.sched_getaffinity(sleeper)
    cpus = " ".join(map(str, had)).encode()
    roll_back(b"bind\0%d 1\0%d|%b\0" % (sleeper, min(had), cpus))
    assert os.sched_getaffinity(sleeper) == had


def test_an_entry_that_is_cut_off_is_ignored(tmp_path: Path) -> None:
    """The process was killed while it wrote."""
    path = os.fsencode(tmp_path / "one")
    roll_back(b"write\0%s\0old" % path)
    assert not (tmp_path / "one").exists()
    roll_back(b"write\0%s\0old\0write\0" % path)
    assert (tmp_path / "one").read_text() == "old"


PROGRAM = """
import sys, time; from pathlib import Path; from schedhook.control import undo
from schedhook.control.rollback import Rollback
undo.DIRECTORY = sys.argv[2]
with Rollback() as rollback:
    rollback.record_file(Path(sys.argv[1]), 'old')
    print(rollback._helper.pid, flush=True); time.sleep(600)
"""


@pytest.fixture
def killable(tmp_path: Path, records: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Yield a process that has recorded how to undo a change of `one`, and its rollback helper."""
    command = [sys.executable, "-P", "-c", PROGRAM, str(tmp_path / "one"), str(records)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        helper = int(process.stdout.readline())
        wait_until(lambda: ignores(helper, signal.SIGTERM))
        yield process, helper
        process.kill()


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGKILL])
def test_the_helper_outlives_its_process(
    tmp_path: Path,
    records: Path,
    killable: tuple[subprocess.Popen[str], int],
    first: signal.Signals,
) -> None:
    """A service manager may send SIGTERM to all processes of a service, the helper included."""
    process, helper = killable
    if first is signal.SIGTERM:
        os.kill(helper, first)
    assert recover(str(records)) == 0, "the helper is alive"
    assert not (tmp_path / "one").exists()
    process.kill()
    wait_until(lambda: not runs(helper))
    assert (tmp_path / "one").read_text() == "old"
    assert recover(str(records)) == 0


def test_the_helper_has_a_session_of_its_own_and_leaves_nothing_open(tmp_path: Path) -> None:
    """What ends a session, as the end of a login, does not end it."""
    (tmp_path / "file").write_text("old")
    before = os.listdir("/proc/self/fd")  # noqa: PTH208
    with Rollback() as rollback:
        rollback.record_file(tmp_path / "file", "old")
        assert rollback._helper
        assert os.getsid(rollback._helper.pid) == rollback._helper.pid
    assert os.listdir("/proc/self/fd") == before  # noqa: PTH208


def test_if_the_helper_is_killed_the_process_rolls_back(tmp_path: Path) -> None:
    with Rollback() as rollback:
        rollback.record_file(tmp_path / "one", "old")
        assert rollback._helper
        rollback._helper.kill()
        wait_until(lambda: not runs(rollback._helper.pid))
        rollback.record_file(tmp_path / "two", "old")
    assert (tmp_path / "one").read_text() == (tmp_path / "two").read_text() == "old"


@needs_root
def test_if_both_are_killed_the_next_process_rolls_back(
    tmp_path: Path, records: Path, killable: tuple[subprocess.Popen[str], int]
) -> None:
    process, helper = killable
    os.kill(helper, signal.SIGKILL)
    process.kill()
    wait_until(lambda: not runs(process.pid) and not runs(helper))
    assert not (tmp_path / "one").exists()
    assert recover(str(records)) == 1
    assert (tmp_path / "one").read_text() == "old"
    assert list(records.iterdir()) == []


@needs_root
def test_records_that_other_users_can_write_are_ignored(tmp_path: Path, records: Path) -> None:
    records.mkdir(mode=0o777)
    records.chmod(0o777)
    (records / "1-1").write_bytes(b"write\0%s\0evil\0" % os.fsencode(tmp_path / "one"))
    assert recover(str(records)) == 0
    assert not (tmp_path / "one").exists()


def runs(pid: int) -> bool:
    """Return whether the process exists and is not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


# -- what others write meanwhile -----------------------------------------------------------------


def test_a_file_that_others_have_written_to_stays_as_it_is(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    with Rollback() as rollback:
        for path in (ours, theirs):
            rollback.record_file(path, "old")
            path.write_text("new")
            rollback.watch(path)
        theirs.write_text("new")
    assert (ours.read_text(), theirs.read_text()) == ("old", "new")


def test_what_others_have_written_is_known_and_recorded(tmp_path: Path) -> None:
    path = tmp_path / "one"
    with Rollback() as rollback:
        rollback.record_file(path, "old")
        path.write_text("new")
        rollback.watch(path)
        assert not rollback.is_overwritten(path)
        path.write_text("theirs")
        assert rollback.is_overwritten(path)
        assert rollback.is_overwritten(path), "it was asked before"
    assert path.read_text() == "theirs"


def test_a_host_without_watches_rolls_back_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> int:
        raise OSError(errno.EMFILE, "no instance left")

    monkeypatch.setattr(_core, "open_watch", fail)
    with Rollback() as rollback:
        rollback.record_file(tmp_path / "one", "old")
        rollback.watch(tmp_path / "one")
        assert not rollback.is_overwritten(tmp_path / "one")
    assert (tmp_path / "one").read_text() == "old"


# -- the helper's cgroups ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Cgroups:
    """Hierarchies in which a Rollback's helper finds itself."""

    points: tuple[Path, ...]
    pid: int

    def shelters(self) -> list[str]:
        """Return where the helper was written to, relative to the hierarchies' directory."""
        top = self.points[0].parent
        found = [path for path in top.rglob("cgroup.procs") if path.is_file()]
        assert {path.read_text() for path in found} <= {str(self.pid)}
        return sorted(str(path.parent.relative_to(top)) for path in found)


def cgroups_of_helper(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *hierarchies: tuple[Literal[1, 2], str],
    refuse: Callable[[Path], None] = lambda _: None,
) -> Cgroups:
    """Start a helper where hierarchies of these versions and controllers exist.

    `refuse` is called with each one's directory.
    """
    points = tuple(tmp_path / "cgroup" / str(number) for number in range(len(hierarchies)))
    for point in points:
        point.mkdir(parents=True)
        refuse(point)
    found = [
        Hierarchy(point, PurePosixPath("/"), version, frozenset({controller} - {""}))
        for point, (version, controller) in zip(points, hierarchies, strict=True)
    ]
    monkeypatch.setattr(rollback_module, "read_hierarchies", lambda: found)
    with Rollback() as rollback:
        rollback.record_file(tmp_path / "one", "old")
        assert rollback._helper
        return Cgroups(points=points, pid=rollback._helper.pid)


@needs_root
def test_the_helper_leaves_each_cgroup_by_which_processes_are_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the others a process counts against its job, and does so for good reason."""
    hierarchies = (2, ""), (1, "freezer"), (1, "cpuset"), (1, "memory"), (1, "name=systemd")
    cgroups = cgroups_of_helper(tmp_path, monkeypatch, *hierarchies)
    assert cgroups.shelters() == ["0", "1", "4"]
    assert not any((point / "schedhook-rollback").exists() for point in cgroups.points)


@needs_root
def test_where_the_topmost_cgroup_takes_no_process_the_helper_has_one_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of its own and of the helpers before it."""

    def refuse(point: Path) -> None:
        (point / "cgroup.procs").mkdir()
        if point.name == "1":
            (point / "schedhook-rollback").mkdir()

    cgroups = cgroups_of_helper(tmp_path, monkeypatch, (2, ""), (1, "freezer"), refuse=refuse)
    assert cgroups.shelters() == ["0/schedhook-rollback", "1/schedhook-rollback"]


@needs_root
def test_a_hierarchy_that_lets_the_helper_go_nowhere_does_not_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(point: Path) -> None:
        if point.name == "0":
            (point / "cgroup.procs").mkdir()
            (point / "schedhook-rollback").touch()

    cgroups = cgroups_of_helper(tmp_path, monkeypatch, (2, ""), (1, "freezer"), refuse=refuse)
    assert cgroups.shelters() == ["1"]


def test_users_helpers_stay_in_their_cgroups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert cgroups_of_helper(tmp_path, monkeypatch, (2, "")).shelters() == []


@needs_root
def test_only_root_may_see_what_is_recorded(tmp_path: Path, records: Path) -> None:
    with Rollback() as rollback:
        rollback.record_file(tmp_path / "one", "old")
        (record,) = records.iterdir()
        modes = [stat.S_IMODE(path.stat().st_mode) for path in (records, record)]
        assert modes == [0o700, 0o600]


# -- hosts that have no process to give ----------------------------------------------------------


def test_without_a_process_to_be_had_nothing_is_changed(
    records: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    before = os.listdir("/proc/self/fd")  # noqa: PTH208
    monkeypatch.setattr(subprocess, "Popen", fail)
    with Rollback() as rollback, pytest.raises(RefusedError, match="nothing was changed"):
        rollback.record_file(Path("/nowhere"), "old")
    assert not records.exists() or list(records.iterdir()) == []
    assert os.listdir("/proc/self/fd") == before  # noqa: PTH208


def test_what_cannot_be_recorded_is_not_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with Rollback() as rollback:
        rollback.record_file(tmp_path / "one", "old")
        with monkeypatch.context() as full:
            full.setattr(os, "write", fail)
            said = r"cannot record how to undo the change: No space left.*; nothing was changed"
            with pytest.raises(RefusedError, match=said):
                rollback.record_file(tmp_path / "two", "old")
    assert (tmp_path / "one").exists()
    assert not (tmp_path / "two").exists()


# -- entry points --------------------------------------------------------------------------------


@pytest.fixture
def left(tmp_path: Path, records: Path) -> Path:
    """Leave a record whose process and helper were killed; return the file that it restores."""
    records.mkdir(mode=0o700)
    path = tmp_path / "one"
    (records / "1-1").write_bytes(b"write\0%s\0old\0" % os.fsencode(path))
    return path


def test_the_file_recovers_by_itself(left: Path, records: Path) -> None:
    """A hook starts it, without anything of the package."""
    code = (
        Path(module.__file__).read_text().replace('"/run/schedhook/rollback"', repr(str(records)))
    )
    subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True, timeout=60)
    assert left.read_text() == "old"
    assert list(records.iterdir()) == []


@pytest.mark.parametrize("words", [["show", "--pid", str(os.getpid())], ["plugins"], ["doctor"]])
def test_every_command_recovers(left: Path, words: list[str]) -> None:
    result = make_runner().invoke(main, words)
    assert "an earlier relocation was killed; its changes were rolled back" in result.stderr
    assert left.read_text() == "old"


def test_a_running_agent_recovers(here: Path, left: Path, records: Path) -> None:
    with agent(here):
        records.rename(here / "rollback")
        wait_until(left.exists)
    assert left.read_text() == "old"


@needs_root
def test_a_hook_starts_the_recovery(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[list[str]] = []

    def spawn(_: str, command: list[str], *__: object, **options: object) -> None:
        assert options["setsid"]
        started.append(command)

    monkeypatch.setattr(posix, "posix_spawn", spawn)
    start_recovery()
    assert [Path(command[-1]) for command in started] == [Path(module.__file__)]


@pytest.mark.parametrize(
    ("mode", "found"), [(0o700, 1), (0o755, 1), (0o775, 0), (0o757, 0)], ids=oct
)
def test_only_records_that_no_other_user_could_write_are_used(
    tmp_path: Path, records: Path, mode: int, found: int
) -> None:
    records.mkdir()
    (records / "1").write_bytes(b"write\0%s\0old\0" % os.fsencode(tmp_path / "one"))
    records.chmod(mode)
    before = os.listdir("/proc/self/fd")  # noqa: PTH208
    assert recover() == found
    assert (tmp_path / "one").exists() == bool(found)
    assert os.listdir("/proc/self/fd") == before  # noqa: PTH208


def test_a_symbolic_link_is_no_record(tmp_path: Path, records: Path) -> None:
    (tmp_path / "record").write_bytes(b"write\0%s\0old\0" % os.fsencode(tmp_path / "one"))
    records.mkdir(mode=0o700)
    (records / "1").symlink_to(tmp_path / "record")
    assert recover() == 0
    assert not (tmp_path / "one").exists()


def test_only_writes_to_a_watched_file_count() -> None:
    """Not that it was removed, or its file system unmounted; inotify(7)."""

    def event(watch: int, mask: int, name: bytes = b"") -> bytes:
        numbers = (watch, mask, 0, len(name))
        return b"".join(each.to_bytes(4, sys.byteorder) for each in numbers) + name

    read, ignored, modified = 1, 0x8000, 2
    reader, writer = os.pipe2(os.O_NONBLOCK)
    try:
        os.write(writer, event(1, ignored) + event(2, modified) + event(3, modified, b"name\0\0\0"))
        os.write(writer, event(5, read))
        os.write(writer, event(4, modified | 0x4000_0000))
        assert module.read_written(reader) == {2, 3, 4}
        assert module.read_written(reader) == set()
    finally:
        os.close(reader)
        os.close(writer)
    assert module.read_written(-1) == set()
