"""Log lines: their format, their severity, and that they do no harm."""

from __future__ import annotations

import io
import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from schedhook.values import log
from schedhook.values.sets import NodeSet


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    yield
    log.configure("auto", "info")


def test_json_lines(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("json", "info")
    log.get_logger().info("pages moved", nodes=NodeSet({0, 1, 2}), path=Path("/proc"), count=3)
    output = capsys.readouterr()
    assert output.out == ""
    line = json.loads(output.err)
    assert list(line)[:3] == ["timestamp", "level", "event"]
    assert line["timestamp"].endswith("Z")
    del line["timestamp"]
    assert line == {
        "level": "info",
        "event": "pages moved",
        "nodes": "0-2",
        "path": "/proc",
        "count": 3,
    }


def test_a_traceback_stays_on_its_json_line(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("json", "info")
    try:
        raise ValueError("lost")
    except ValueError:
        log.get_logger().exception("failed")
    (text,) = capsys.readouterr().err.splitlines()
    assert "ValueError: lost" in json.loads(text)["exception"]


def test_console_lines_are_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("console", "info")
    log.get_logger().warning("pages left", count=3)
    (line,) = capsys.readouterr().err.splitlines()
    assert "pages left" in line
    assert "warning" in line
    assert "count=3" in line
    assert "\x1b" not in line, "no colours where it is not a terminal"


@pytest.mark.parametrize(
    ("level", "written"),
    [
        ("debug", ["debug", "info", "warning", "error"]),
        ("info", ["info", "warning", "error"]),
        ("warning", ["warning", "error"]),
        ("error", ["error"]),
    ],
)
def test_levels(capsys: pytest.CaptureFixture[str], level: str, written: list[str]) -> None:
    log.configure("json", level)
    for severity in ("debug", "info", "warning", "error"):
        getattr(log.get_logger(), severity)("said")
    lines = capsys.readouterr().err.splitlines()
    assert [json.loads(line)["level"] for line in lines] == written


def test_an_existing_logger_follows_the_configuration(
    capsys: pytest.CaptureFixture[str],
) -> None:
    log.configure("json", "error")
    logger = log.get_logger()
    logger.info("unsaid")
    log.configure("json", "info")
    logger.info("said")
    assert [json.loads(line)["event"] for line in capsys.readouterr().err.splitlines()] == ["said"]


def test_bound_values_are_on_every_line(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("json", "info")
    logger = log.get_logger().bind(job="17")
    logger.info("one")
    logger.info("two")
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [(line["event"], line["job"]) for line in lines] == [("one", "17"), ("two", "17")]


def test_auto_is_json_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("auto", "info")
    log.get_logger().info("said")
    assert json.loads(capsys.readouterr().err)["event"] == "said"


@pytest.mark.parametrize(("no_color", "coloured"), [("", True), ("1", False)])
def test_auto_is_console_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, no_color: str, coloured: bool
) -> None:
    monkeypatch.setenv("NO_COLOR", no_color)
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        log.configure("auto", "info")
        log.get_logger().info("said", count=3)
        text = os.read(ours, 4096).decode()
    os.close(ours)
    assert "said" in text
    assert not text.startswith("{")
    assert ("\x1b[" in text) is coloured


@pytest.mark.parametrize("wrong", [("xml", "info"), ("json", "loud")])
def test_other_settings_are_errors(wrong: tuple[str, str]) -> None:
    with pytest.raises(ValueError, match="is not a valid Log"):
        log.configure(*wrong)


class _Full(io.StringIO):
    def write(self, _text: str) -> int:
        raise OSError(28, "No space left on device")


@pytest.mark.parametrize("format_", ["json", "console"])
def test_control_characters_in_names_do_not_reach_a_terminal(
    capsys: pytest.CaptureFixture[str], format_: str
) -> None:
    log.configure(format_, "info")
    log.get_logger().error("no", red="\x1b[31mred", lines="a\x9b\r\nschedhook: all is well")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.isprintable()
    assert "[31mred" in line


@pytest.mark.parametrize("kind", ["full", "closed", "none"])
@pytest.mark.parametrize("format_", ["json", "console", "auto"])
def test_a_closed_or_full_output_is_not_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], kind: str, format_: str
) -> None:
    stream = {"full": _Full(), "closed": io.StringIO(), "none": None}[kind]
    if kind == "closed" and stream is not None:
        stream.close()
    monkeypatch.setattr(sys, "stderr", stream)
    log.configure(format_, "info")
    log.get_logger().error("lost")
    assert capsys.readouterr().out == "", "results go there, a log line must not"


def modules_after(statements: str) -> set[str]:
    code = f"{statements}\nimport sys\nprint(*sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    return set(result.stdout.split())


def test_structlog_is_imported_with_the_first_line_and_rich_never() -> None:
    prepare = (
        "from schedhook.values import log; log.configure('json', 'info'); l = log.get_logger()"
    )
    assert "structlog" not in modules_after(prepare)
    for format_ in ("json", "console"):
        loaded = modules_after(f"{prepare}; log.configure('{format_}', 'info'); l.info('said')")
        assert "structlog" in loaded
        assert not {name for name in loaded if name.partition(".")[0] == "rich"}


def test_rich_can_be_imported_afterwards_and_before() -> None:
    configured = "from schedhook.values import log; log.configure("
    say = configured + "'json', 'info'); log.get_logger().info('said')"
    assert "rich.table" in modules_after(f"{say}\nimport rich.table")
    assert "rich.table" in modules_after(f"import rich.table\n{say}")


# -- systemd's journal -----------------------------------------------------------------------------

LINES = """
from schedhook.values import log
from schedhook.cli.errors import complain
log.configure("console", "debug")
for level in ("debug", "info", "warning", "error"):
    getattr(log.get_logger(), level)("line", of=level)
try:
    raise ValueError("lost")
except ValueError:
    log.get_logger().exception("failed")
complain("schedhook: no such process")
"""


@pytest.mark.parametrize("leads_there", [True, False])
def test_the_journal_is_told_each_lines_priority(leads_there: bool) -> None:
    """Only if standard error leads to it; JOURNAL_STREAM is inherited by all children."""
    reader, writer = os.pipe()
    status = os.fstat(writer)
    stream = f"{status.st_dev}:{status.st_ino + (not leads_there)}"
    subprocess.run(
        [sys.executable, "-P", "-c", LINES],
        stderr=writer,
        check=True,
        env=os.environ | {"JOURNAL_STREAM": stream},
    )
    os.close(writer)
    with os.fdopen(reader) as output:
        lines = output.read().splitlines()
    assert len(lines) > 7, "a traceback has several lines"
    if leads_there:
        assert [line[:3] for line in lines[:4]] == ["<7>", "<6>", "<4>", "<3>"]
        assert all(line.startswith("<3>") for line in lines[4:])
    else:
        assert not any(line.startswith("<") for line in lines)
