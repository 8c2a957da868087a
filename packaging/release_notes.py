"""Print the changelog's section of a release: python -P packaging/release_notes.py vX.Y.Z

Fails unless the sources have that version and the changelog names it with a date.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]


def read_version() -> str:
    """Return the version that the sources have, without importing them."""
    text = (PROJECT / "schedhook/__init__.py").read_text(encoding="utf-8")
    (version,) = re.findall(r'^__version__ = "(.*)"$', text, re.MULTILINE)
    return str(version)


def notes(tag: str) -> str:
    """Return what the changelog says of the version that `tag` names."""
    version = read_version()
    if tag != f"v{version}":
        sys.exit(f"the tag {tag} is not v{version}, the version in schedhook/__init__.py")
    changes = (PROJECT / "CHANGELOG.md").read_text(encoding="utf-8")
    heading = rf"^## \[{re.escape(version)}\] - \d{{4}}-\d\d-\d\d\n(.*?)(?=^## |\Z)"
    found = re.search(heading, changes, re.MULTILINE | re.DOTALL)
    if found is None:
        sys.exit(f"CHANGELOG.md has no heading `## [{version}] - YYYY-MM-DD`")
    return found[1].strip() + "\n"


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    print(notes(sys.argv[1]), end="")
