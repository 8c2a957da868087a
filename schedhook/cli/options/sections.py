"""Help that lists a command's many options in sections."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import click


class SectionedCommand(click.Command):
    """A command whose help has a heading before some of its options.

    `sections` has the heading by the name of the parameter that it stands before; what comes before
    all of them is under `Options`.
    """

    sections: ClassVar[Mapping[str, str]] = {}

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options to the formatter, section by section."""
        heading, found = "Options", dict[str, list[tuple[str, str]]]()
        for param in self.get_params(ctx):
            heading = self.sections.get(param.name or "", heading)
            if record := param.get_help_record(ctx):
                found.setdefault(heading, []).append(record)
        for title, records in found.items():
            with formatter.section(title):
                formatter.write_dl(records)
