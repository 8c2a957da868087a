"""Wrong inputs to every command: one line that names the remedy, and nothing is changed."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from schedhook.cli.errors import run_command
from schedhook.cli.main import COMMANDS, main
from schedhook.cli.setup import targets
from schedhook.journal.file import journal_path
from schedhook.testing.hosts import write_process
from schedhook.values.config import Config
from schedhook_plugins.schedulers.slurm.command import command as job_migrate
from tests.unit import wrong_inputs as tables
from tests.unit.clikit import Run, unquoted
from tests.unit.screenkit import AREA, make_host
from tests.unit.wrong_inputs import Wrong
from tests.users import NOBODY

EVERY: list[Wrong] = [
    *tables.COMMANDS_AND_OPTIONS,
    *tables.SETS_AND_MAPS,
    *tables.NUMBERS,
    *tables.NO_SUCH_THING,
    *tables.FILES,
]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory of files, most of which are not what they are taken for."""
    files = tmp_path_factory.mktemp("files")
    for name, content in {
        "good.toml": b"",
        "latin.toml": '[relocation]\nstrategy = "m\xf6ve"\n'.encode("latin-1"),
        "cut.toml": b'[relocation]\nstrategy = "mo',
        "bytes": b"\xff\xfe\0\xff",
        "empty": b"",
        "cut.json": b'{"pid": 100, "cpu',
        "cut.csv": b"pid,cpu,address\n100,1\n",
        "good.CF": b'{"program": "/opt/schedhook/bin/schedhook"}',
        "damaged": b"SQLite format 3\0" + b"\1" * 50,
        "damaged.toml": f'[journal]\npath = "{files}/damaged"\n'.encode(),
        "directory.toml": f'[journal]\npath = "{files}"\n'.encode(),
    }.items():
        (files / name).write_bytes(content)
    return files


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a host of four nodes and three jobs, and process 100."""
    root = make_host(tmp_path_factory.mktemp("host"))
    write_process(root, 100, areas=[AREA], nodes="0-3")
    return root


def state(*directories: Path) -> dict[Path, tuple[int, int]]:
    """Return size and time of change of every file."""
    every = [path for directory in directories for path in directory.rglob("*")]
    return {path: (path.lstat().st_size, path.lstat().st_mtime_ns) for path in every}


def words_of(line: str, files: Path, host: Path) -> list[str]:
    """Return the words of a line of the tables, with F, H and ON replaced."""
    on = ["--root", str(host), "--backend", "simulated", "--pid", "100"]
    words: list[str] = []
    for word in shlex.split(line):
        replaced = str(files) + word[1:] if word == "F" or word.startswith("F/") else word
        words += on if word == "ON" else [str(host) if word == "H" else replaced]
    return words


def test_the_tables_have_every_command() -> None:
    lines = [line for line, _, _ in EVERY]
    assert {line.partition(" ")[0] for line in lines} >= set(COMMANDS)
    assert len(set(lines)) == len(lines) >= 80


@pytest.mark.parametrize(("line", "status", "words"), EVERY, ids=[each[0][:60] for each in EVERY])
def test_a_wrong_input_is_one_line(
    run: Run, files: Path, host: Path, line: str, status: int, words: str
) -> None:
    before = state(files, host)
    got, out, err = run(*words_of(line, files, host))
    assert (got, out) == (status, "")
    assert err.startswith("schedhook: ")
    assert err.count("\n") == 1
    assert unquoted(words) in unquoted(err.replace(str(files), "F"))
    assert state(files, host) == before


@pytest.mark.parametrize(("text", "words"), tables.CONFIGURATION)
def test_a_wrong_configuration_names_file_and_key(
    run: Run, tmp_path: Path, text: str, words: str
) -> None:
    path = tmp_path / "config.toml"
    path.write_text(text)
    status, out, err = run("plugins", "--config", path)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"schedhook: {path}: ")
    assert words in err


def test_a_wrong_configuration_is_a_finding_of_doctor(run: Run, files: Path) -> None:
    status, out, err = run("doctor", "--config", files / "cut.toml")
    assert (status, err) == (1, "")
    assert "Unterminated string" in " ".join(out.split())


@pytest.mark.parametrize(("text", "words"), tables.HOOK_CONFIGURATION)
def test_a_wrong_configuration_of_pbs_hook(run: Run, tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "site.CF"
    path.write_text(text)
    status, out, err = run("setup", "pbs", "--hook-config", path)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"install: {path}: ")
    assert words in err


@pytest.mark.parametrize(("line", "status", "words"), tables.JOB_MIGRATE)
def test_a_wrong_input_to_job_migrate(
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    line: str,
    status: int,
    words: str,
) -> None:
    journal = journal_path(Config())
    before = journal.exists()
    monkeypatch.setattr(sys, "argv", ["job-migrate", *shlex.split(line)])
    with pytest.raises(SystemExit) as leave:
        run_command(job_migrate, "job-migrate")
    out, err = capfd.readouterr()
    assert (leave.value.code, out, err.count("\n")) == (status, "", 1)
    assert journal.exists() == before
    assert err.startswith("job-migrate: ")
    assert unquoted(words) in unquoted(err)


# -- rights --------------------------------------------------------------------------------------


@contextmanager
def as_nobody() -> Iterator[None]:
    if os.geteuid() != 0:
        pytest.skip("needs root, to act as another user")
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def private(here: Path) -> Path:
    """Return a directory that only root may enter, with files for root only."""
    private = here / "private"
    private.mkdir(mode=0o700)
    for name in ("config.toml", "log", "journal.db"):
        (private / name).touch(mode=0o600)
    (here / "journal.toml").write_text(f'[journal]\npath = "{private}/journal.db"\n')
    return private


@pytest.mark.parametrize(
    ("line", "status", "words"),
    [
        ("show --pid {root}", 4, "not permitted; run as root or as the process's own user"),
        (
            "show --config {private}/config.toml",
            2,
            "Permission denied; check what it is, its owner",
        ),
        (
            "profile {private}/log --pid 1",
            2,
            "Permission denied; name a file with a profiler's log",
        ),
        ("history --config {here}/journal.toml", 1, "Permission denied; run as root"),
        ("metrics --config {here}/journal.toml", 1, "Permission denied; run as root"),
        ("setup systemd", 4, "run as root"),
        ("setup slurm --directory {private}/hooks", 1, "choose a --directory that"),
    ],
)
def test_without_rights_the_error_names_them(
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    private: Path,
    line: str,
    status: int,
    words: str,
) -> None:
    monkeypatch.setattr(targets, "_SYSTEM", private / "system")
    monkeypatch.setattr(targets, "_TMPFILES", private / "tmpfiles")
    (private.parent / "config.toml").touch()
    environ = {"SCHEDHOOK_CONFIG": str(private.parent / "config.toml"), "HOME": str(private.parent)}
    before = state(private.parent)
    with subprocess.Popen(["sleep", "60"]) as root:
        try:
            filled = line.format(root=root.pid, private=private, here=private.parent)
            with as_nobody():
                got, _, err = run(*filled.split(), **environ)
        finally:
            root.kill()
    assert got == status
    lines = [each for each in err.splitlines() if not each.startswith("warning: users other than")]
    assert len(lines) == 1
    assert words in lines[0]
    assert state(private.parent) == before


# -- the output ----------------------------------------------------------------------------------

PRINT = (
    "--help",
    "--version",
    "relocate --help",
    "relocate ON --map 0:2",
    "relocate ON --map 0:2 --json",
    "plan ON --map 0:2",
    "rebalance --root H --backend simulated --dry-run",
    "show --root H",
    "show --root H --watch 1",
    "show --root H --watch 1 --json",
    "plugins",
    "history",
    "history --json",
    "metrics --root H",
    "setup metrics",
    "setup systemd --dry-run",
    "recover",
    "doctor --root H",
)


@pytest.mark.parametrize("line", PRINT)
@pytest.mark.parametrize("output", ["full", "gone"])
def test_an_output_that_cannot_be_written(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    files: Path,
    host: Path,
    line: str,
    output: str,
) -> None:
    """A full disk is one line, a reader that has gone is none; in both cases the status is 1."""
    if output == "full":
        stdout = Path("/dev/full").open("w")  # noqa: SIM115 - closed below
    else:
        reader, writer = os.pipe()
        os.close(reader)
        stdout = os.fdopen(writer, "w")
    errors = tmp_path / "errors"
    config = tmp_path / "config.toml"
    config.write_text(f'[journal]\npath = "{tmp_path}/journal.db"\n')
    monkeypatch.setenv("SCHEDHOOK_CONFIG", str(config))
    monkeypatch.setattr(sys, "argv", ["schedhook", *words_of(line, files, host)])
    with errors.open("w") as stderr:
        monkeypatch.setattr(sys, "stdout", stdout)
        monkeypatch.setattr(sys, "stderr", stderr)
        with pytest.raises(SystemExit) as leave:
            run_command(main, "schedhook")
        with suppress(OSError):
            stdout.close()
    said = "schedhook: the output cannot be written: No space left on device\n"
    assert (leave.value.code, errors.read_text()) == (1, said if output == "full" else "")
