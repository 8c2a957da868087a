"""Commands that run until a signal stops them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from schedhook.cli.signals import until_stopped
from tests.unit.clikit import STOPS, end, started


@contextmanager
def handled(number: int, handler: signal.Handlers) -> Iterator[None]:
    """Set how this process handles a signal; it may have been started with SIGINT ignored."""
    before = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before)


@pytest.mark.parametrize("number", STOPS)
def test_a_signal_ends_the_block_and_nothing_else(number: signal.Signals) -> None:
    with handled(number, signal.SIG_DFL):
        with until_stopped():
            os.kill(os.getpid(), number)
            pytest.fail("not ended")
        assert signal.getsignal(number) is signal.SIG_DFL


def test_a_second_signal_does_not_interrupt_the_cleaning_up() -> None:
    cleaned = False
    with handled(signal.SIGTERM, signal.SIG_DFL), until_stopped():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            cleaned = True
    assert cleaned


class Interrupted:
    """An object whose end a signal interrupts."""

    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0)


def test_a_signal_is_not_lost_where_python_drops_exceptions() -> None:
    """In a destructor, and around fork(2), where the module logging has functions called."""
    before = sys.unraisablehook
    with handled(signal.SIGTERM, signal.SIG_DFL), until_stopped():
        Interrupted()
        time.sleep(20)
        pytest.fail("not ended")
    assert sys.unraisablehook == before


def test_a_signal_that_comes_again_too_late_ends_nothing() -> None:
    with handled(signal.SIGTERM, signal.SIG_DFL):
        with until_stopped():
            Interrupted()
        time.sleep(0.2)


@pytest.mark.parametrize("number", STOPS)
def test_an_ignored_signal_stays_ignored(number: signal.Signals) -> None:
    with handled(number, signal.SIG_IGN), until_stopped():
        os.kill(os.getpid(), number)
        assert signal.getsignal(number) is signal.SIG_IGN


@pytest.mark.parametrize("error", [OSError("disk"), KeyboardInterrupt()])
def test_without_a_signal_errors_are_raised(error: BaseException) -> None:
    with pytest.raises(type(error)), until_stopped():
        raise error


# -- agent and watch -----------------------------------------------------------------------------


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Return a configuration whose files are all in `tmp_path`."""
    path = tmp_path / "config.toml"
    path.write_text(
        f'[agent]\nsocket = "{tmp_path}/agent.sock"\nspool = "{tmp_path}/spool"\n'
        f'[journal]\npath = "{tmp_path}/state/journal.db"\n'
        '[log]\nformat = "json"\n'
    )
    (tmp_path / "spool").mkdir(mode=0o700)
    return path


@contextmanager
def serving(
    command: str, config: Path, ignoring: tuple[int, ...] = ()
) -> Iterator[subprocess.Popen[str]]:
    """Start a command, and wait until it serves."""
    pipe = subprocess.PIPE
    with started(command, "--config", config, ignoring=ignoring, stderr=pipe) as process:
        assert process.stderr is not None
        while "agent started" not in process.stderr.readline():
            assert process.poll() is None
        yield process


@pytest.mark.parametrize("number", STOPS)
@pytest.mark.parametrize("command", ["agent", "watch"])
def test_agent_and_watch_end_by_each_signal(
    config: Path, command: str, number: signal.Signals
) -> None:
    with serving(command, config) as process:
        assert process.stderr is not None
        assert end(process, number) == 0
        assert "agent stopped" in process.stderr.read()


@pytest.mark.parametrize("command", ["agent", "watch"])
def test_in_the_background_agent_and_watch_end_by_sigterm(config: Path, command: str) -> None:
    with serving(command, config, ignoring=(signal.SIGINT, signal.SIGHUP)) as process:
        process.send_signal(signal.SIGHUP)
        assert end(process, signal.SIGTERM) == 0
