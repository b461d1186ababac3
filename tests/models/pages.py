"""Pages as a browser would see them, and words that try to break out of them."""

from __future__ import annotations

import base64
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>&amp; $\\frac{1}{0}$ \u202e\x00"


class Page(HTMLParser):
    """What a browser would see of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data

    @property
    def plain(self) -> str:
        """The text, with one blank wherever there is white space."""
        return " ".join(self.text.split())


def read(html: str) -> Page:
    page = Page()
    page.feed(html)
    return page


def pictures_of(html: str) -> list[str]:
    """The SVG pictures that a page carries inside of it."""
    return [base64.b64decode(svg).decode() for svg in re.findall(r"data:image/svg\+xml;base64,([^\"]+)", html)]


def assert_words_stay_text(hostile: str, plain: str) -> None:
    """A page in which every word is HOSTILE is built as that of other words; its pictures are well-formed."""
    page = read(hostile)
    assert page.tags == read(plain).tags
    assert not {"script", "iframe", "object", "embed", "link"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert page.text.count("<script>alert(1)</script>") >= 6
    assert "\x00" not in hostile
    assert "\u202e" not in hostile
    assert "default-src 'none'" in hostile
    for picture in pictures_of(hostile):
        assert "<script" not in picture
        ET.fromstring(picture)  # noqa: S314 - made right here
