"""MkDocs hook: pages that the site takes from elsewhere in the tree, and the API reference.

A page outside docs/ keeps its path in the site. The API reference has the names that
reference/stability.md calls public, and no others.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

PROJECT = Path(__file__).parents[1]
OUTSIDE = (
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "contrib/pbs/README.md",
    "contrib/slurm/README.md",
    "contrib/systemd/README.md",
    "plugins/example/README.md",
    "tests/README.md",
)
STABILITY = PROJECT / "docs/reference/stability.md"


def on_files(files: Files, config: Any) -> Files:
    """Add the pages from outside docs/ and the API reference."""
    for name in OUTSIDE:
        text = _as_in_docs((PROJECT / name).read_text(), name)
        files.append(File.generated(config, name, content=text))
    files.append(File.generated(config, "reference/api.md", content=_api()))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Point links that leave docs/ at the page's place in the site, or drop them."""
    depth = page.file.src_uri.count("/") + 1  # directories from the page up to the project
    up = "../" * depth

    def rewrite(link: re.Match[str]) -> str:
        text, target = link.groups()
        path = target.removeprefix(up)
        if path.partition("#")[0] in OUTSIDE:
            return f"[{text}]({'../' * (depth - 1)}{path})"
        return text

    return re.sub(rf"\[([^\]]+)\]\(({re.escape(up)}[^)]+)\)", rewrite, markdown)


def _as_in_docs(text: str, name: str) -> str:
    """Write a page's links as the same page in docs/ would."""
    up = "../" * name.count("/")

    def rewrite(link: re.Match[str]) -> str:
        text, target = link.groups()
        if target.startswith(("http:", "https:", "#")):
            return link.group()
        path = target.removeprefix(up)
        if path.startswith("docs/"):
            return f"[{text}]({up}{path.removeprefix('docs/')})"
        if target.startswith(up) and path.partition("#")[0] in OUTSIDE:
            return f"[{text}]({target})"
        return text

    return re.sub(r"\[([^\]]+)\]\(([^)]+)\)", rewrite, text)


def _api() -> str:
    """Write the API reference: each public module with its public names."""
    rows = re.findall(r"^\| `([\w.]+)` \| (.*) \|$", STABILITY.read_text(), re.MULTILINE)
    parts = [
        "# Python API\n\nThe names that [a plug-in or a program may rely on](stability.md),"
        " from their docstrings.\n"
    ]
    for module, names in rows:
        parts.append(f"\n## `{module}`\n")
        parts += [f"\n::: {module}.{name}\n" for name in re.findall(r"`(\w+)`", names)]
    return "\n".join(parts)
