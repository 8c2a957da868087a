"""`show --watch` on a small terminal: every row can be reached, and resizing shows at once."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from schedhook.cli.output.pager import Window, parse_keys
from tests.unit.clikit import SCHEDHOOK
from tests.unit.screenkit import add_job, make_host

JOBS = range(1001, 1061)
_ESCAPE = re.compile(r"\x1b[\[O][0-9;?]*[A-Za-z~]|\x1b\]8;[^\x1b]*\x1b\\")


def test_a_window_never_leaves_its_lines() -> None:
    window = Window()
    window.fit(total=100, height=20)
    window.move("up")
    assert window.first == 0
    window.move("page down")
    assert window.first == 19, "one line stays"
    window.move("end")
    assert window.first == 80
    window.move("down")
    assert window.first == 80
    window.fit(total=30, height=25)
    assert window.first == 5
    window.fit(total=3, height=25)
    assert window.first == 0
    window.move("end")
    assert window.first == 0


def test_keys_of_terminals_and_letters() -> None:
    pressed = b"\x1b[A\x1bOBk\x1b[5~x\x1b[6~ \x1b[1~G\x1b[15~q\x1b"
    assert parse_keys(pressed) == [
        "up", "down", "up", "page up", "page down", "page down", "home", "end", "quit"
    ]  # fmt: skip


class Terminal:
    """`schedhook show --watch` on a terminal of its own."""

    def __init__(self, root: Path, rows: int = 24, columns: int = 80) -> None:
        self.pid, self._master = pty.fork()
        if self.pid == 0:
            # readline(3) sets COLUMNS and LINES behind the interpreter's back.
            size = ("COLUMNS", "LINES", "NO_COLOR")
            environ = {name: os.environ[name] for name in os.environ if name not in size}
            termios.tcsetwinsize(0, (rows, columns))
            words = [*SCHEDHOOK, "show", "--watch", "3600", "--root", str(root)]
            os.execve(words[0], words, environ | {"TERM": "xterm"})
        self._written = b""

    def press(self, keys: bytes) -> None:
        os.write(self._master, keys)

    def resize(self, rows: int, columns: int) -> None:
        termios.tcsetwinsize(self._master, (rows, columns))

    def wait_for(self, text: str) -> list[str]:
        """Return the lines of the screen once it has the text."""
        limit = time.monotonic() + 20
        while text not in "\n".join(lines := self._screen()):
            assert time.monotonic() < limit, "\n".join(lines)
            if select.select([self._master], [], [], 0.1)[0]:
                self._written += os.read(self._master, 65536)
        time.sleep(0.1)
        while select.select([self._master], [], [], 0.1)[0]:
            self._written += os.read(self._master, 65536)
        return self._screen()

    def end(self) -> tuple[int, str]:
        """Return the exit status and all that was written."""
        while True:
            try:
                self._written += os.read(self._master, 65536)
            except OSError:
                status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
                return status, self._written.decode()

    def _screen(self) -> list[str]:
        last = self._written.rpartition(b"\x1b[H")[2].decode(errors="replace")
        return [line.rstrip() for line in _ESCAPE.sub("", last).splitlines()]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    make_host(tmp_path)
    for job in JOBS:
        add_job(tmp_path, job, {job * 10: (0, {0: 5, 1: job - 1000})})
    return tmp_path


@pytest.fixture
def terminal(root: Path) -> Iterator[Terminal]:
    terminal = Terminal(root)
    yield terminal
    try:
        os.kill(terminal.pid, signal.SIGKILL)
        os.waitpid(terminal.pid, 0)
    except (ProcessLookupError, ChildProcessError):
        pass


def test_every_row_is_reached_on_80_by_24_and_the_legend_stays(terminal: Terminal) -> None:
    lines = terminal.wait_for("lines 1-21 of ")
    assert len(lines) == 24
    assert "every 3600 s" in lines[0]
    assert lines[1] == "63 jobs on this host"
    seen: set[str] = set()
    first = 1
    while True:
        assert max(map(len, lines)) <= 80
        assert len(lines) == 24
        assert "on-node" in lines[22], "the legend"
        seen |= set(re.findall(r"slurm (\d+)", "\n".join(lines)))
        place = re.match(r"lines (\d+)-(\d+) of (\d+); ", lines[23])
        assert place
        if place[2] == place[3]:
            break
        first = min(first + 20, int(place[3]) - 20)
        terminal.press(b"\x1b[6~")
        lines = terminal.wait_for(f"lines {first}-")
    assert seen == {"71", "72", "73", *map(str, JOBS)}
    assert any("node 3" in line for line in lines)
    terminal.press(b"\x1b[H")
    assert terminal.wait_for("lines 1-21 of ")[1] == "63 jobs on this host"
    terminal.press(b"q")
    status, written = terminal.end()
    assert status == 0
    assert "\x1b[?1049l" in written
    assert "Traceback" not in written


def test_another_size_shows_at_once(terminal: Terminal) -> None:
    terminal.wait_for("lines 1-21 of ")
    terminal.resize(40, 120)
    lines = terminal.wait_for("lines 1-37 of ")
    assert len(lines) == 40
    assert any("processors" in line for line in lines), "wide terminals have more columns"
    terminal.resize(10, 60)
    lines = terminal.wait_for("lines 1-7 of ")
    assert len(lines) == 10
    assert max(map(len, lines)) <= 60
    terminal.resize(200, 80)
    lines = terminal.wait_for("to bring it home")
    assert not any("lines 1-" in line for line in lines), "all of it is visible"


def test_ctrl_c_gives_the_terminal_back(terminal: Terminal) -> None:
    terminal.wait_for("lines 1-21 of ")
    before = termios.tcgetattr(terminal._master)
    assert not before[3] & termios.ICANON
    terminal.press(b"\x03")
    status, written = terminal.end()
    assert status == 0
    assert written.endswith("\x1b[?25h") or "\x1b[?1049l" in written
