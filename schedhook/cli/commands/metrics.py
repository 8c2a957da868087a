"""`schedhook metrics`: what Prometheus gets to see."""

from __future__ import annotations

from pathlib import Path

import click

from schedhook.cli.options import FILE, common_options, load


@click.command("metrics")
@click.option(
    "--textfile",
    type=FILE,
    help="Replace this file, for node_exporter, instead of printing.",
)
@common_options
def command(textfile: Path | None, config_path: Path | None, root: Path) -> int:
    """Counters of the journal and where jobs' memory lies now, in Prometheus' text format.

    Without an agent, a timer that runs this with --textfile does. Needs schedhook[metrics].
    """
    from schedhook.jobs.metrics import exposition, write_textfile
    from schedhook.journal.file import journal_path
    from schedhook.journal.journal import Journal

    config, plugins = load(config_path)
    path = journal_path(config)
    with Journal.open(path, create=False) if path.exists() else Journal.in_memory() as journal:
        text = exposition(config, plugins, journal, root)
    if textfile is None:
        click.echo(text, nl=False)
    else:
        write_textfile(textfile, text)
    return 0
