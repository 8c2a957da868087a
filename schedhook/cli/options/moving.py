"""Options that say what is moved and how hard, for the commands that move memory."""

from __future__ import annotations

from typing import Any

import click

from schedhook.cli.completion import names_of
from schedhook.cli.options.common import configured, grouped
from schedhook.cli.options.sizes import RateType, SizeType
from schedhook.cli.options.types import NAME, WholeType
from schedhook.plugins.descriptors import BackendPlugin
from schedhook.values.config import RelocationSection
from schedhook.values.errors import UsageError
from schedhook.values.model import MemoryKind, Shared

_KINDS = ", ".join(MemoryKind)
_DEFAULTS = RelocationSection()

pace_options = grouped(
    click.option(
        "--backend",
        type=NAME,
        metavar="NAME",
        shell_complete=names_of(BackendPlugin),
        help="What moves the pages: native, the kernel; simulated, which only pretends to, on the"
        f" snapshot below --root; or one that a plug-in adds. {configured(_DEFAULTS.backend)}",
    ),
    click.option(
        "--kinds",
        metavar="KIND,…",
        help=f"Move only memory of these kinds, such as anon,shmem; there are {_KINDS}."
        f" {configured('all')}",
    ),
    click.option(
        "--shared",
        type=click.Choice([each.value for each in Shared]),
        help="Which pages that several processes map are moved: none; job: all but the pages of"
        f" files that processes outside the job map too; all. {configured(_DEFAULTS.shared.value)}",
    ),
    click.option(
        "--threads",
        type=WholeType(1, 1024),
        metavar="N",
        help=f"Move pages with so many threads. {configured('chosen by the host and the plan')}",
    ),
    click.option(
        "--bandwidth",
        type=RateType(min=0, min_open=True, max=1_000_000),
        metavar="RATE",
        help="Move at most so many MB (1,000,000 bytes) per second, such as 500, or 1.5GB/s."
        f" {configured('no limit')}",
    ),
    click.option(
        "--gentle/--no-gentle",
        default=None,
        help="Disturb the job less: system calls of at most 20 ms, on one thread."
        f" {configured('no')}",
    ),
)
"""What is moved, by what, and how fast."""

reserve_option = click.option(
    "--reserve",
    type=SizeType(),
    metavar="SIZE",
    help="Leave so many MiB (1,048,576 bytes) free on each destination node, such as 512, or 2G."
    f" {configured(_DEFAULTS.reserve_mb)}",
)

moving_options = grouped(
    pace_options,
    click.option(
        "--freeze/--no-freeze",
        default=None,
        help="Freeze the processes' cgroup (version 2) while their memory moves."
        f" {configured('no')}",
    ),
    reserve_option,
    click.option(
        "--force",
        is_flag=True,
        help="If not everything fits on the destination nodes, move what fits instead of refusing."
        " With --cpus, take processors that the job's scheduler did not grant it.",
    ),
)


def moving_arguments(
    kinds: str | None, shared: str | None, bandwidth: float | None, reserve: int | None
) -> dict[str, Any]:
    """Return the fields of a Request for those options above whose name or unit differs."""
    return {
        "kinds": parse_kinds(kinds),
        "shared": Shared(shared) if shared else None,
        "bandwidth_mb_s": bandwidth,
        "reserve": reserve,
    }


def parse_kinds(text: str | None) -> frozenset[MemoryKind] | None:
    """Return the kinds that --kinds names; None if not given. Raise UsageError for others."""
    if text is None:
        return None
    words = [part.strip() for part in text.split(",") if part.strip()]
    if not words:
        raise UsageError(f"--kinds: it is empty; choose from {_KINDS}")
    for word in words:
        if word not in list(MemoryKind):
            raise UsageError(f"--kinds: {word[:40]!r} is no kind of memory; choose from {_KINDS}")
    return frozenset(map(MemoryKind, words))
