"""The progress bar of a relocation."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from pathlib import Path

from tests.unit.clikit import ESCAPES, SCHEDHOOK, SIMULATED, on_terminal

RELOCATE = ("relocate", "--job", "72", *SIMULATED, "--map", "0:3", "--bandwidth", "2000")


def test_a_relocation_on_a_terminal_has_a_bar_with_rate_and_time_left(four: Path) -> None:
    status, written = on_terminal(*RELOCATE, "--root", four)
    assert status == 0
    text = ESCAPES.sub("", written.decode())
    assert re.search(r"moving [^/]* [0-9.]+/1\.1 GiB [0-9.]+ [MG]B/s 00:0", text)


def test_a_relocation_that_is_killed_leaves_the_cursor_visible(four: Path) -> None:
    status, written = on_terminal(
        *(*RELOCATE, "--bandwidth", "50", "--root", four),
        stop_after=b"moving",
        stop_by=signal.SIGTERM,
    )
    assert status == -signal.SIGTERM
    assert written.rfind(b"\x1b[?25h") > written.rfind(b"\x1b[?25l")


def test_json_on_a_terminal_has_no_bar(four: Path) -> None:
    status, written = on_terminal(*RELOCATE, "--json", "--root", four)
    assert status == 0
    assert json.loads(written)["outcome"] == "complete"


def test_without_a_terminal_there_is_no_bar(four: Path) -> None:
    done = subprocess.run(
        [*SCHEDHOOK, *RELOCATE, "--root", four],
        capture_output=True,
        check=True,
    )
    assert done.stderr == b""
