"""Pages as a browser would see them, and words that try to break out of them."""

from __future__ import annotations

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
