"""A window over lines that are too many for the terminal, moved by keys; for `show --watch`."""

from __future__ import annotations

import os
import re
import select
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TypeVar

from rich.console import Console, ConsoleDimensions, ConsoleOptions, RenderableType, RenderResult
from rich.live import Live
from rich.segment import Segment
from rich.text import Text

_T = TypeVar("_T")

_KEYS = {
    b"\x1b[A": "up",
    b"\x1bOA": "up",
    b"k": "up",
    b"\x1b[B": "down",
    b"\x1bOB": "down",
    b"j": "down",
    b"\r": "down",
    b"\n": "down",
    b"\x1b[5~": "page up",
    b"b": "page up",
    b"\x1b[6~": "page down",
    b" ": "page down",
    b"\x1b[H": "home",
    b"\x1bOH": "home",
    b"\x1b[1~": "home",
    b"g": "home",
    b"\x1b[F": "end",
    b"\x1bOF": "end",
    b"\x1b[4~": "end",
    b"G": "end",
    b"q": "quit",
}
"""What terminals send for a key, and the letters that mean the same."""
_KEY = re.compile(rb"\x1b[\[O][0-9;]*[A-Za-z~]|.", re.DOTALL)
_TICK_SECONDS = 0.2
"""Between two looks at whether the terminal has another size."""


@dataclass(slots=True)
class Window:
    """The part of some lines that is shown, `height` of them from number `first` on."""

    first: int = 0
    height: int = 1
    total: int = 0

    def fit(self, total: int, height: int) -> None:
        """Take over how many lines there are, and how many can be shown."""
        self.total, self.height = total, max(height, 1)
        self._go(self.first)

    def move(self, key: str) -> None:
        """Move as a key says; never beyond the lines."""
        page = max(self.height - 1, 1)  # one line stays, to find the place
        steps = {"up": -1, "down": 1, "page up": -page, "page down": page}
        ends = {"home": 0, "end": self.total}
        self._go(ends.get(key, self.first + steps.get(key, 0)))

    def _go(self, first: int) -> None:
        self.first = max(0, min(first, self.total - self.height))


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """What is shown at one time."""

    head: Text
    """The line above, which is always visible."""
    body: RenderableType
    legend: Text | None
    """The line below, if not all of the body is visible."""


def run_pager(
    console: Console, read: Callable[[], _T], draw: Callable[[_T], Page], seconds: float
) -> None:
    """Draw what `read` returns every `seconds` seconds, until the user presses q.

    A key, or another size of the terminal, shows at once.
    """
    window = Window()
    with Live(console=console, screen=True, auto_refresh=False) as live, _keyboard() as keyboard:
        while True:
            shown = read()
            due = time.monotonic() + seconds
            while True:
                size = console.size
                live.update(_Windowed(draw(shown), window), refresh=True)
                if "quit" in (keys := _wait(keyboard, console, size, due)):
                    return
                for key in keys:
                    window.move(key)
                if time.monotonic() >= due:
                    break


@dataclass(frozen=True, slots=True)
class _Windowed:
    """The head, the window of the body, and, if that is cut, legend and place."""

    page: Page
    window: Window

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        free = options.update(height=None)
        lines = console.render_lines(self.page.body, free, pad=False)
        rows = options.max_height - 1
        foot: list[Text] = []
        if len(lines) > rows:
            foot = [self.page.legend] if self.page.legend else []
            self.window.fit(len(lines), rows - len(foot) - 1)
            foot.append(self._place())
        else:
            self.window.fit(len(lines), rows)
        first = self.window.first
        shown = lines[first : first + self.window.height]
        yield from _rows(
            [
                *self._lines(console, free, [self.page.head]),
                *shown,
                *self._lines(console, free, foot),
            ]
        )

    def _place(self) -> Text:
        window = self.window
        last = min(window.first + window.height, window.total)
        text = (
            f"lines {window.first + 1}-{last} of {window.total}; arrows, PgUp, PgDn, Home, End; q"
        )
        return Text(text, style="reverse")

    def _lines(
        self, console: Console, options: ConsoleOptions, texts: Sequence[Text]
    ) -> Iterator[list[Segment]]:
        for text in texts:
            text.no_wrap, text.overflow = True, "ellipsis"
            yield from console.render_lines(text, options, pad=False)


def _rows(lines: Sequence[Sequence[Segment]]) -> Iterator[Segment]:
    for number, line in enumerate(lines):
        if number:
            yield Segment.line()
        yield from line


@contextmanager
def _keyboard() -> Iterator[int | None]:
    """Yield a descriptor that yields keys as they are pressed, None if there is no keyboard.

    In the background the terminal is another process's, and to change it would stop this one.
    """
    descriptor = _find_keyboard()
    if descriptor is None:
        yield None
        return
    before = termios.tcgetattr(descriptor)
    tty.setcbreak(descriptor)
    try:
        yield descriptor
    finally:
        with suppress(OSError, termios.error):  # the terminal may be gone
            termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _find_keyboard() -> int | None:
    with suppress(OSError, ValueError, AttributeError):  # standard input may be closed
        descriptor = sys.stdin.fileno()
        if os.isatty(descriptor) and os.tcgetpgrp(descriptor) == os.getpgrp():
            return descriptor
    return None


def _wait(keyboard: int | None, console: Console, size: ConsoleDimensions, due: float) -> list[str]:
    """Return keys once some were pressed; none if it is `due` or the terminal has another size."""
    while (left := due - time.monotonic()) > 0 and console.size == size:
        wait = min(left, _TICK_SECONDS)
        if keyboard is None:
            time.sleep(wait)
        elif select.select([keyboard], [], [], wait)[0]:
            pressed = os.read(keyboard, 1024)
            if not pressed:  # its end: it would be ready for ever
                time.sleep(wait)
            if keys := parse_keys(pressed):
                return keys
    return []


def parse_keys(pressed: bytes) -> list[str]:
    """Return the keys that mean something here, in order."""
    found = (_KEYS.get(each) for each in _KEY.findall(pressed))
    return [key for key in found if key]
