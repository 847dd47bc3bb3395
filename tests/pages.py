"""Pages as the tests read them."""

import re
from html.parser import HTMLParser
from pathlib import Path

VOID = {"meta", "link", "img", "br", "input", "hr"}


class Page(HTMLParser):
    """Text and attributes of a page; fails where its elements are not nested.

    joint: what comes between the texts of two elements.
    """

    def __init__(self, path: Path, *, joint: str = " ") -> None:
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.joint = joint
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.pieces: list[str] = []
        self.feed(self.source)
        assert not self.open, f"{self.open} left open"

    @property
    def text(self) -> str:
        """What a reader sees, in one line."""
        return re.sub(r"\s+", " ", self.joint.join(self.pieces))

    def values(self, name: str) -> list[str]:
        """Every value that an attribute has."""
        return [value for key, value in self.attributes if key == name]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """See HTMLParser."""
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """See HTMLParser."""
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        """See HTMLParser."""
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        """See HTMLParser."""
        if self.open[-1:] not in (["style"], ["script"]):
            self.pieces.append(data)
