"""Options that several commands share, and the values that they become."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from schedhook.cli.commands.completion import complete_jobs, complete_set, names_of
from schedhook.host.topology import read_online_cpus, read_online_nodes
from schedhook.plugins.descriptors import BackendPlugin, SchedulerPlugin
from schedhook.plugins.loading import load_plugins
from schedhook.plugins.manager import Plugins
from schedhook.values.config import Config, load_config
from schedhook.values.errors import SchedhookError, UsageError
from schedhook.values.log import configure
from schedhook.values.model import MemoryKind, Shared
from schedhook.values.sets import CpuSet, IdSet, NodeSet

_Command = TypeVar("_Command", bound=Callable[..., Any])
_Option = Callable[[Callable[..., Any]], Callable[..., Any]]


class IdSetType(click.ParamType[Any]):
    """A set in the kernel's list format."""

    def __init__(
        self, kind: type[IdSet], name: str, existing: Callable[[Path], Iterable[int]]
    ) -> None:
        self._kind = kind
        self._existing = existing
        self.name = name

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> IdSet:
        if isinstance(value, IdSet):
            return value
        try:
            ids = self._kind.parse(value)
        except ValueError as error:
            self.fail(f"bad list {value!r}: {error}", param, ctx)
        if not ids:
            self.fail("the list is empty; write it like 0-3,8", param, ctx)
        return ids

    def shell_complete(
        self, ctx: click.Context, _: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        root = Path(ctx.params.get("root") or "/")
        try:
            return complete_set(self._existing(root), incomplete)
        except (SchedhookError, OSError, ValueError):
            return []


class NameType(click.ParamType[Any]):
    """A name, which may be of a plug-in's and so is looked up later."""

    name = "name"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not str(value).strip():
            self.fail("it is empty", param, ctx)
        return str(value)


class NumberType(click.FloatRange):
    """A number within bounds; `nan` is within none, and `inf` no number to work with."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number", param, ctx)
        return number


class PathType(click.Path):
    """A path; not the empty one, which would be the directory where the command happens to run."""

    def __init__(self, *, exists: bool = False, files: bool = True, directories: bool = True):
        super().__init__(path_type=Path, exists=exists, file_okay=files, dir_okay=directories)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not str(value):
            self.fail("it is empty", param, ctx)
        return super().convert(value, param, ctx)


NAME = NameType()
FILE = PathType(directories=False)
NODES = IdSetType(NodeSet, "nodes", read_online_nodes)
CPUS = IdSetType(CpuSet, "cpus", read_online_cpus)


def json_option(command: _Command) -> _Command:
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")(command)


def common_options(command: _Command) -> _Command:
    """--config and --root, which every command understands."""
    command = click.option(
        "--root",
        type=PathType(files=False, exists=True),
        default=Path("/"),
        help="Read /proc and /sys below this directory (with --backend simulated: a snapshot).",
    )(command)
    return click.option(
        "--config",
        "config_path",
        type=FILE,
        help="Configuration file, /etc/schedhook/config.toml by default.",
    )(command)


def grouped(*options: _Option) -> _Option:
    """Several options as one decorator; help shows them in this order."""

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return add


process_options = grouped(
    click.option(
        "--pid",
        "pids",
        type=click.IntRange(min=1),
        multiple=True,
        metavar="PID",
        help="A process; may be given again.",
    ),
    click.option(
        "--cgroup", metavar="PATH", help="All processes of this cgroup and those below it."
    ),
    click.option(
        "--job",
        type=NAME,
        metavar="ID",
        shell_complete=complete_jobs,
        help="All processes of this job on this host.",
    ),
    click.option(
        "--scheduler",
        type=NAME,
        metavar="NAME",
        shell_complete=names_of(SchedulerPlugin),
        help="Whose job it is: slurm, pbs, or a plug-in's.",
    ),
)
"""--pid, --cgroup, --job: whose memory."""

moving_options = grouped(
    click.option(
        "--backend",
        type=NAME,
        metavar="NAME",
        shell_complete=names_of(BackendPlugin),
        help="What performs the calls.",
    ),
    click.option(
        "--kinds",
        metavar="KIND,…",
        help=f"Only memory of these kinds: {', '.join(MemoryKind)}.",
    ),
    click.option(
        "--shared",
        type=click.Choice([each.value for each in Shared]),
        help="Pages that several processes map: none; job (default: files only where the"
        " job alone maps them); all.",
    ),
    click.option("--threads", type=click.IntRange(1, 1024), help="Threads that move pages."),
    click.option(
        "--bandwidth",
        type=NumberType(min=0, min_open=True),
        metavar="MB/S",
        help="Most that is moved in a second, in MB (1,000,000 bytes).",
    ),
    click.option(
        "--gentle/--no-gentle",
        default=None,
        help="Short system calls (20 ms) on one thread: the job hardly notices.",
    ),
    click.option(
        "--freeze/--no-freeze",
        default=None,
        help="Freeze the processes' cgroup (version 2) while the memory moves.",
    ),
    click.option(
        "--reserve",
        type=click.IntRange(min=0),
        metavar="MIB",
        help="What has to stay free on each destination.",
    ),
    click.option("--force", is_flag=True, help="Move what fits where not all does."),
)
"""What is moved, and how hard."""


def moving_arguments(
    kinds: str | None, shared: str | None, bandwidth: float | None, reserve: int | None
) -> dict[str, Any]:
    """What a Request has of those `moving_options` that it names or counts otherwise."""
    return {
        "kinds": parse_kinds(kinds),
        "shared": Shared(shared) if shared else None,
        "bandwidth_mb_s": bandwidth,
        "reserve": None if reserve is None else reserve << 20,
    }


def parse_kinds(text: str | None) -> frozenset[MemoryKind] | None:
    """The value of --kinds; None where it was not given."""
    if text is None:
        return None
    try:
        kinds = frozenset(MemoryKind(part.strip()) for part in text.split(",") if part.strip())
    except ValueError as error:
        raise UsageError(f"--kinds: {error}; there are {', '.join(MemoryKind)}") from None
    if not kinds:
        raise UsageError(f"--kinds names none; there are {', '.join(MemoryKind)}")
    return kinds


def check_processes(pids: tuple[int, ...], cgroup: str | None, job: str | None) -> None:
    """UsageError unless exactly one of the ways to name processes was used."""
    named = sum((bool(pids), cgroup is not None, job is not None))
    if named != 1:
        raise UsageError("say which processes: one of --pid PID (again for more), --cgroup, --job")


def load(config_path: Path | None) -> tuple[Config, Plugins]:
    """Read the configuration, set up the log, load the plug-ins."""
    config = load_config(config_path)
    configure(config.log.format, config.log.level)
    return config, load_plugins(config)
