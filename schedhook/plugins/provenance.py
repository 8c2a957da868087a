"""Check where a third party's plug-in comes from: root runs only what no other user can change."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import EntryPoint
from importlib.util import find_spec
from pathlib import Path

from schedhook.values.errors import PluginError
from schedhook.values.ownership import explain_untrusted_parents, explain_untrusted_tree


def check_provenance(entry: EntryPoint) -> None:
    """Raise PluginError if a user other than root can change the plug-in.

    The plug-in's package, its metadata and the directories above them are checked. The package is
    not imported, and what it imports itself is not checked.
    """
    for path in dict.fromkeys(_paths(entry)):
        try:
            untrusted = explain_untrusted_parents(path) or explain_untrusted_tree(path)
        except OSError as error:
            untrusted = f"{path}: {error.strerror}"
        if untrusted:
            raise PluginError(f"not loaded as root: {untrusted}; chown root and chmod go-w")


def _paths(entry: EntryPoint) -> Iterator[Path]:
    """Yield the files and directories that decide which code runs."""
    top = entry.module.partition(".")[0]
    # Imports nothing, but only because the name has no dot.
    spec = find_spec(top)
    if spec is not None:
        yield from map(Path, spec.submodule_search_locations or ())
        if spec.has_location and spec.origin:
            yield Path(spec.origin)
    for file in (entry.dist.files or ()) if entry.dist else ():
        if file.name == "entry_points.txt":
            yield Path(str(file.locate()))
