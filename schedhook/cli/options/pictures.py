"""Options that name files for pictures: --svg and --html."""

from __future__ import annotations

import click

from schedhook.cli.options.common import grouped
from schedhook.cli.options.types import PathType

picture_options = grouped(
    click.option(
        "--svg",
        type=PathType(),
        metavar="FILE",
        help="Also write a picture to this file; of a relocation: before and after.",
    ),
    click.option(
        "--html",
        type=PathType(),
        metavar="FILE",
        help="Also write a page with the picture and its numbers to this file.",
    ),
)
"""The values that output.files.Pictures takes."""
