"""`schedhook metrics`: metrics for Prometheus."""

from __future__ import annotations

from pathlib import Path

import click

from schedhook.cli.loading import load
from schedhook.cli.options.common import common_options
from schedhook.cli.options.types import FILE
from schedhook.values.errors import UsageError


@click.command("metrics")
@click.option(
    "--textfile",
    type=FILE,
    metavar="FILE",
    help="Write to this file, for node_exporter's textfile collector, instead of printing; it is"
    " replaced atomically.",
)
@common_options
def command(textfile: Path | None, config_path: Path | None, root: Path) -> int:
    """Print the journal's counters and where jobs' memory is now, in Prometheus' text format.

    If no agent runs on the host, run this with --textfile from a timer. Needs schedhook[metrics].
    """
    from schedhook.jobs.metrics import Metrics, write_textfile
    from schedhook.jobs.notes import journal_notes
    from schedhook.journal.file import has_journal, journal_path
    from schedhook.journal.journal import Journal

    if textfile is not None and textfile.suffix != ".prom":
        raise UsageError(f"--textfile {textfile}: node_exporter reads only files named *.prom")
    config, plugins = load(config_path)
    path = journal_path(config)
    with Journal.open(path, create=False) if has_journal(path) else Journal.in_memory() as journal:
        plugins.notes = journal_notes(journal)
        text = Metrics(config=config, plugins=plugins, journal=journal, root=root).render()
    if textfile is None:
        click.echo(text, nl=False)
    else:
        write_textfile(textfile, text)
    return 0
