"""What is in a picture or a page."""

from __future__ import annotations

from html.parser import HTMLParser
from xml.etree import ElementTree

SVG = "{http://www.w3.org/2000/svg}"


def texts(svg: str) -> list[str]:
    """Return the lines of text in the picture."""
    return [each.text or "" for each in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def widths(svg: str, colour: str) -> list[float]:
    """Return the widths of the boxes of one colour; the first, in the legend, is left out."""
    boxes = ElementTree.fromstring(svg).iter(f"{SVG}rect")
    return [float(box.get("width", "")) for box in boxes if box.get("fill") == colour][1:]


class Page(HTMLParser):
    """Elements, links and text of a page, as a browser would see them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [
            f"{name}={value}"
            for name, value in attrs
            if name in ("src", "href", "xlink:href") or name.startswith("on")
        ]

    def handle_data(self, data: str) -> None:
        self.text += data
