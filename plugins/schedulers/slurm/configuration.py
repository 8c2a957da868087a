"""Where slurm.conf is on this host, and what it says; slurm.conf(5).

A host without a file of its own is *configless*: slurmd fetches the files from the controller and
keeps them in conf-cache below its spool directory; /run/slurm/conf is a link to that directory.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from schedhook.host.processes import all_pids, read_status
from schedhook.values.errors import SchedhookError

USUAL = (
    "etc/slurm/slurm.conf",
    "usr/local/etc/slurm.conf",
    "etc/slurm-llnl/slurm.conf",
    "opt/slurm/etc/slurm.conf",
    "usr/local/slurm/etc/slurm.conf",
    "run/slurm/conf/slurm.conf",
    "var/spool/slurmd/conf-cache/slurm.conf",
    "var/spool/slurm/conf-cache/slurm.conf",
    "var/spool/slurm/d/conf-cache/slurm.conf",
    "var/lib/slurm/slurmd/conf-cache/slurm.conf",
)
"""Below the root: where builds look for it, then where slurmd keeps what the controller sent."""

_YES = frozenset({"yes", "up", "true", "1"})
_LINES_OF_THEIR_OWN = frozenset(
    {"nodename", "nodeset", "partitionname", "downnodes", "frontendname"}
)
_PAIR = re.compile(r'(\w+)\s*=\s*("[^"]*"|\S*)')
_DEEPEST = 5

Settings = dict[str, list[str]]
"""The values of each parameter in the order of the file, by the name in lower case."""


def find_configuration(root: Path = Path("/")) -> Path | None:
    """Return the slurm.conf that Slurm's programs on this host use, None if there is none.

    SLURM_CONF of this process decides on a live host, then what the running slurmd was told, then
    the usual places.
    """
    named = os.environ.get("SLURM_CONF") if root == Path("/") else None
    candidates = (
        [Path(named)] if named else [*_told_to_slurmd(root), *(root / each for each in USUAL)]
    )
    return next((path for path in candidates if path.is_file()), None)


def read_settings(path: Path, depth: int = 0) -> Settings:
    """Read the parameters of a file like slurm.conf(5), and included files in their place.

    Raise OSError if the file cannot be read.
    """
    settings: Settings = {}
    text = path.read_text(encoding="utf-8", errors="replace").replace("\\\n", "")
    for line in text.splitlines():
        line = line.partition("#")[0].strip()  # noqa: PLW2901
        if included := re.fullmatch(r"(?i:include)\s+(\S+)", line):
            below = path.parent / included[1]
            if depth < _DEEPEST and below.is_file():
                for name, values in read_settings(below, depth + 1).items():
                    settings.setdefault(name, []).extend(values)
        for name, value in _pairs(line):
            settings.setdefault(name, []).append(value)
    return settings


def last(settings: Settings, name: str) -> str:
    """Return the last value of a parameter, which is the one that Slurm uses; empty if none."""
    return settings.get(name.lower(), [""])[-1]


def is_yes(value: str) -> bool:
    """Return whether Slurm takes the value for true; s_p_handle_boolean()."""
    return value.lower() in _YES


def plugin_names(value: str, kind: str) -> list[str]:
    """Return the plug-ins of a list such as `task/cgroup,affinity`, each without its `kind/`."""
    return [name.strip().removeprefix(f"{kind}/") for name in value.split(",") if name.strip()]


def _pairs(line: str) -> Iterator[tuple[str, str]]:
    """Yield (parameter in lower case, value) of a line, which may have several."""
    if re.match(r"\w+\s*=", line):
        pairs = [(pair[1].lower(), pair[2].strip('"')) for pair in _PAIR.finditer(line)]
        yield from pairs[:1] if pairs[0][0] in _LINES_OF_THEIR_OWN else pairs


def _told_to_slurmd(root: Path) -> Iterator[Path]:
    """Yield the file that root's slurmd has as `-f FILE` or in its environment as SLURM_CONF."""
    with suppress(SchedhookError, OSError):
        for pid in all_pids(root):
            with suppress(SchedhookError, OSError):  # it has ended
                status = read_status(pid, root)
                if (status.name, status.uid) == ("slurmd", 0):
                    yield from _files_of(root / "proc" / str(pid), root)


def _files_of(process: Path, root: Path) -> Iterator[Path]:
    words = _words(process / "cmdline")
    environment = dict(word.partition("=")[::2] for word in _words(process / "environ"))
    for name in (_option(words), environment.get("SLURM_CONF", "")):
        if name.startswith("/"):
            yield root / name.lstrip("/")


def _words(path: Path) -> Sequence[str]:
    return path.read_bytes().decode("utf-8", "surrogateescape").split("\0")


def _option(words: Sequence[str]) -> str:
    """Return the value of `-f` among the words of slurmd's command line, empty if there is none."""
    for word, following in zip(words, (*words[1:], ""), strict=True):
        if word == "-f":
            return following
        if word.startswith("-f"):
            return word.removeprefix("-f")
    return ""
