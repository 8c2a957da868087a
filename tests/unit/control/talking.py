"""Programs of tests/numa that answer lines: targets for what acts on other processes."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.numa.programs import program


class Talking:
    """A running program that has said `ready`, and answers each line with one."""

    def __init__(
        self, name: str, *arguments: str, prefix: tuple[str | Path, ...] = (), **options: Any
    ) -> None:
        self.process = subprocess.Popen(
            [*prefix, program(name), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            **options,
        )
        self.pid = self.process.pid
        assert self._line() == "ready"

    def ask(self, line: str = "well?") -> str:
        assert self.process.stdin
        self.process.stdin.write(line + "\n")
        return self._line()

    def _line(self) -> str:
        assert self.process.stdout
        line = self.process.stdout.readline()
        assert line, f"the program ended with {self.process.wait()}"
        return line.strip()

    def end(self) -> None:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.close()
        self.process.stdout.close()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@contextmanager
def talking(name: str, *arguments: str, **options: Any) -> Iterator[Talking]:
    """Start a program for the block."""
    program = Talking(name, *arguments, **options)
    try:
        yield program
    finally:
        program.end()
