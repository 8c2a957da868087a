"""Options that say what is moved and how hard, for the commands that move memory."""

from __future__ import annotations

from typing import Any

import click

from schedhook.cli.completion import names_of
from schedhook.cli.options.common import grouped
from schedhook.cli.options.types import NAME, NumberType
from schedhook.plugins.descriptors import BackendPlugin
from schedhook.values.errors import UsageError
from schedhook.values.model import MemoryKind, Shared

_KINDS = ", ".join(MemoryKind)

moving_options = grouped(
    click.option(
        "--backend",
        type=NAME,
        metavar="NAME",
        shell_complete=names_of(BackendPlugin),
        help="What makes the system calls; default: native. See `schedhook plugins`.",
    ),
    click.option(
        "--kinds",
        metavar="KIND,…",
        help=f"Move only memory of these kinds, such as anon,shmem; there are {_KINDS}."
        " Default: all.",
    ),
    click.option(
        "--shared",
        type=click.Choice([each.value for each in Shared]),
        help="Which pages that several processes map are moved: none; job (default: all but the"
        " pages of files that processes outside the job map too); all.",
    ),
    click.option(
        "--threads",
        type=click.IntRange(1, 1024),
        help="Threads that move pages; default: by the host and the plan.",
    ),
    click.option(
        "--bandwidth",
        type=NumberType(min=0, min_open=True),
        metavar="MB/S",
        help="Move at most so many MB (1,000,000 bytes) per second, such as 500; default: no"
        " limit.",
    ),
    click.option(
        "--gentle/--no-gentle",
        default=None,
        help="Disturb the job less: system calls of at most 20 ms, on one thread. Default: no.",
    ),
    click.option(
        "--freeze/--no-freeze",
        default=None,
        help="Freeze the processes' cgroup (version 2) while their memory moves. Default: no.",
    ),
    click.option(
        "--reserve",
        type=click.IntRange(min=0),
        metavar="MIB",
        help="Leave so many MiB free on each destination node; default: 64.",
    ),
    click.option(
        "--force",
        is_flag=True,
        help="If not everything fits on the destination nodes, move what fits instead of refusing.",
    ),
)


def moving_arguments(
    kinds: str | None, shared: str | None, bandwidth: float | None, reserve: int | None
) -> dict[str, Any]:
    """Return the fields of a Request for those `moving_options` whose name or unit differs."""
    return {
        "kinds": parse_kinds(kinds),
        "shared": Shared(shared) if shared else None,
        "bandwidth_mb_s": bandwidth,
        "reserve": None if reserve is None else reserve << 20,
    }


def parse_kinds(text: str | None) -> frozenset[MemoryKind] | None:
    """Return the kinds that --kinds names; None if not given. Raise UsageError for others."""
    if text is None:
        return None
    try:
        kinds = frozenset(MemoryKind(part.strip()) for part in text.split(",") if part.strip())
    except ValueError as error:
        raise UsageError(f"--kinds: {error}; choose from {_KINDS}") from None
    if not kinds:
        raise UsageError(f"--kinds: it is empty; choose from {_KINDS}")
    return kinds
