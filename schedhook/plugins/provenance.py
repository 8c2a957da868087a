"""Where a third party's plug-in comes from: root runs only what nobody else can change."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import EntryPoint
from importlib.util import find_spec
from pathlib import Path

from schedhook.values.errors import PluginError
from schedhook.values.ownership import explain_untrusted_parents, explain_untrusted_tree


def check_provenance(entry: EntryPoint) -> None:
    """PluginError where others than root may write the plug-in's package, its metadata, or a
    directory on the way there. Nothing of it is imported; what it imports is not followed."""
    for path in dict.fromkeys(_places(entry)):
        try:
            found = explain_untrusted_parents(path) or explain_untrusted_tree(path)
        except OSError as error:
            found = f"{path}: {error.strerror}"
        if found:
            raise PluginError(f"not loaded as root: {found}; chown root and chmod go-w")


def _places(entry: EntryPoint) -> Iterator[Path]:
    """Files and directories that decide what is run."""
    top = entry.module.partition(".")[0]
    # Only for a name without a dot does this import nothing.
    spec = find_spec(top)
    if spec is not None:
        yield from map(Path, spec.submodule_search_locations or ())
        if spec.has_location and spec.origin:
            yield Path(spec.origin)
    for file in (entry.dist.files or ()) if entry.dist else ():
        if file.name == "entry_points.txt":
            yield Path(str(file.locate()))
