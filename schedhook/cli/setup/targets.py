"""What is set up for each target: its steps, and what is left to the administrator."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile

from schedhook.cli.setup.shipped import find_program, shipped
from schedhook.cli.setup.spank import DIRECTORY, spank_lines, spank_steps
from schedhook.cli.setup.steps import Directory, Place, Run, Step
from schedhook.hook import delivery
from schedhook.values.config import DEFAULT_PATH, Config
from schedhook.values.errors import UsageError

_UNIT = "schedhook-agent"
_SYSTEM = Path("/etc/systemd/system")
_TMPFILES = Path("/etc/tmpfiles.d")
_CONFIGURATION = DEFAULT_PATH.parent
_SHARE = Path("/usr/local/share")

COMPLETIONS = {
    "bash": ("schedhook", "bash-completion/completions"),
    "zsh": ("_schedhook", "zsh/site-functions"),
    "fish": ("schedhook.fish", "fish/vendor_completions.d"),
}
"""Of each shell: its completion's file, and the directory below /usr/share or /usr/local/share."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What one target needs."""

    steps: Sequence[Step]
    left: Sequence[str] = ()
    """Lines about what the administrator does."""
    subjects: Sequence[str] = ()
    """How the subjects of doctor's findings about it begin."""


def systemd_setup() -> Setup:
    """Return the agent's unit, which is enabled and started, and the spool's directory."""
    text = shipped(f"systemd/{_UNIT}.service").read_text()
    unit = Place(
        path=_SYSTEM / f"{_UNIT}.service",
        text=text.replace("@SCHEDHOOK@", _in_unit(find_program())),
    )
    tmpfiles = _TMPFILES / "schedhook.conf"
    return Setup(
        steps=(
            Run(undo_words=("systemctl", "daemon-reload")),  # the last step of an undo
            Directory(path=_CONFIGURATION),  # the unit's ConfigurationDirectory
            unit,
            Place(path=tmpfiles, text=shipped("systemd/schedhook.tmpfiles.conf").read_text()),
            Run(words=("systemd-tmpfiles", "--create", str(tmpfiles))),
            Run(words=("systemctl", "daemon-reload")),
            Run(
                words=("systemctl", "enable", "--now", _UNIT),
                undo_words=("systemctl", "disable", "--now", _UNIT),
                undo_needs=unit,
            ),
        ),
        left=("records stay in /var/lib/schedhook and /var/spool/schedhook when this is undone",),
        subjects=("agent", "spool", "journal"),
    )


def _in_unit(value: Path | str) -> str:
    """Return a path or a name as a unit has it; see systemd.unit(5).

    Raise UsageError for one that would have to be quoted.
    """
    text = str(value)
    if any(char.isspace() or char in "\"'\\$%" for char in text):
        raise UsageError(f"{text!r}: choose one without blanks, quotes, $ and %")
    return text


def metrics_setup(config: Config, *, undo: bool) -> Setup:
    """Return what lets the agent export metrics as configured; if not, how to configure it.

    To undo it, they need not be configured any more.
    """
    metrics = config.metrics
    files = [
        f"Grafana: import {shipped('grafana/schedhook.json')}",
        f"Prometheus: rule_files: {shipped('prometheus/schedhook.rules.yml')}",
    ]
    if not undo and not (metrics.textfile or metrics.socket or metrics.listen):
        lines = (
            "in /etc/schedhook/config.toml, then this command again:",
            "    [metrics]",
            '    textfile = "/var/lib/node_exporter/textfile/schedhook.prom"',
            "for node_exporter: --collector.textfile.directory=/var/lib/node_exporter/textfile",
        )
        return Setup(steps=(), left=(*lines, *files), subjects=("metrics",))
    allowed = []
    if metrics.textfile:
        directory = Path(metrics.textfile).parent
        allowed.append(f"ReadWritePaths={_in_unit(directory)}")
        files.insert(0, f"node_exporter: --collector.textfile.directory={directory}")
    if metrics.group:
        allowed.append(f"SupplementaryGroups={_in_unit(metrics.group)}")
    text = "\n".join(["# Written by `schedhook setup metrics`.", "[Service]", *allowed, ""])
    reload = ("systemctl", "daemon-reload")
    restart = ("systemctl", "try-restart", _UNIT)
    path = _SYSTEM / f"{_UNIT}.service.d/metrics.conf"
    return Setup(
        steps=(
            Run(undo_words=restart),
            Run(undo_words=reload),
            Place(path=path, text=text, has_own_directory=True),
            Run(words=reload),
            Run(words=restart),
        ),
        left=files,
        subjects=("metrics",),
    )


def shell_setup(directory: Path | None) -> Setup:
    """Return the manual pages and the shells' completions, below `directory`."""
    share = directory or _SHARE
    pages = sorted(shipped("man").iterdir())
    steps = [Place(path=share / "man/man1" / page.name, text=page.read_text()) for page in pages]
    for shell, (name, place) in COMPLETIONS.items():
        text = shipped(f"completions/{shell}/{name}").read_text()
        steps.append(Place(path=share / place / name, text=text))
    return Setup(steps=steps)


def slurm_setup(directory: Path | None, dry_run: bool) -> Setup:
    """Return the shipped installer of Slurm's hooks, which says what slurm.conf needs."""
    words = [sys.executable, "-P", str(shipped("slurm/install"))]
    words += ["--directory", str(directory)] if directory else []
    return _installer(words, dry_run, subjects=("slurm",))


def spank_setup(directory: Path | None, *, undo: bool) -> Setup:
    """Return the build of Slurm's SPANK plug-in, and how Slurm comes to load it."""
    where = directory or DIRECTORY
    return Setup(steps=spank_steps(where, undo=undo), left=spank_lines(where))


@contextmanager
def pbs_setup(config: Config, configuration: Path | None, dry_run: bool) -> Iterator[Setup]:
    """Yield the shipped installer of PBS's hook, for the schedhook that is installed here.

    It must be installed under the same path on the execution hosts.
    """
    with NamedTemporaryFile("w", suffix=".CF") as file:
        if configuration is None:
            told = json.loads(shipped("pbs/schedhook.CF").read_text())
            file.write(json.dumps(told | {"program": _hook_words(config)}, indent=4) + "\n")
            file.flush()
        name = str(configuration or file.name)
        words = [sys.executable, "-P", str(shipped("pbs/install")), "--config", name]
        yield _installer(words, dry_run, subjects=("pbs",))


def _hook_words(config: Config) -> list[str]:
    """Return the words that start the hooks' program, which reads no configuration."""
    words = [sys.executable, "-I", "-S", str(Path(delivery.__file__).with_name("run.py"))]
    if config.agent.socket != delivery.SOCKET:
        words.append(f"--socket={config.agent.socket}")
    if config.agent.spool != delivery.SPOOL:
        words.append(f"--spool={config.agent.spool}")
    return words


def _installer(words: Sequence[str], dry_run: bool, subjects: Sequence[str]) -> Setup:
    """Return the set-up of a shipped installer, which itself knows --dry-run."""
    more = ["--dry-run"] if dry_run else []
    run = Run(words=(*words, *more), undo_words=(*words, *more, "--uninstall"), tells=True)
    return Setup(steps=(run,), subjects=subjects)
