"""Elements of a page, made from text that the writer escapes."""

from __future__ import annotations

from xml.etree.ElementTree import Element, tostring


def make(tag: str, *content: Element | str, **attributes: str) -> Element:
    """Return an element with this content; `class_` stands for the attribute `class`."""
    names = ((name.rstrip("_").replace("_", "-"), value) for name, value in attributes.items())
    made = Element(tag, dict(names))
    last: Element | None = None
    for each in content:
        if isinstance(each, Element):
            made.append(each)
            last = each
        elif last is None:
            made.text = (made.text or "") + each
        else:
            last.tail = (last.tail or "") + each
    return made


def write(page: Element) -> str:
    """Return the page as a document of HTML."""
    return f"<!DOCTYPE html>\n{tostring(page, 'unicode', method='html')}\n"
