"""Pages as the tests read them."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from tenfold.reporting.templating import TEMPLATES

_SORTS = re.compile(
    rf"<script>\s*{re.escape((TEMPLATES / 'sort.js').read_text().strip())}\s*</script>"
)

VOID = {"meta", "link", "img", "br", "input", "hr"}


@contextmanager
def opened(browser: Any, path: Path) -> Iterator[Any]:
    """The page in a browser, where it must complain of nothing and ask for nothing."""
    page = browser.new_page()
    complaints: list[str] = []
    requests: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(path.as_uri())
    yield page
    assert complaints == []
    assert [url for url in requests if not url.startswith("data:")] == [path.as_uri()]
    page.close()


def in_all_sizes(page: Any) -> Iterator[str]:
    """`light` and `dark`, each on a phone and on a laptop, where nothing may stick out."""
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        for width in (390, 1280):
            page.set_viewport_size({"width": width, "height": 800})
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            yield scheme


def without_sorting(page: str) -> str:
    """The text of a page less the script that sorts tables, which asks for nothing and is no
    one else's."""
    return _SORTS.sub("", page)


class Page(HTMLParser):
    """Text and attributes of a page, without the script that sorts tables; fails where its elements
    are not nested.

    joint: what comes between the texts of two elements.
    """

    def __init__(self, path: Path, *, joint: str = " ") -> None:
        super().__init__()
        self.source = without_sorting(path.read_text(encoding="utf-8"))
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
