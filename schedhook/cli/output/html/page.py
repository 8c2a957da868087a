"""The frame of a page: its head, its policy, its title."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from xml.etree.ElementTree import Element

from schedhook.cli.output.html.elements import make, write
from schedhook.cli.output.html.style import STYLE

_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
"""Nothing is loaded and no script runs, whatever a job is called."""


def write_page(title: str, facts: Sequence[str], content: Iterable[Element]) -> str:
    """Return a page: its title, facts below it, and its content."""
    policy = make("meta", content=_POLICY)
    policy.set("http-equiv", "Content-Security-Policy")
    head = make(
        "head",
        make("meta", charset="utf-8"),
        policy,
        make("meta", name="viewport", content="width=device-width, initial-scale=1"),
        make("meta", name="color-scheme", content="light dark"),
        make("title", title),
        make("style", STYLE),
    )
    said = [make("p", fact, class_="fact") for fact in facts]
    body = make("body", make("h1", title), *said, *content)
    return write(make("html", head, body, lang="en"))
