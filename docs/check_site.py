"""Check a built site: nothing is loaded from elsewhere, and links within it lead somewhere.

python docs/check_site.py build/site
"""

import re
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

LOADING = {
    "audio": ("src",),
    "embed": ("src",),
    "iframe": ("src",),
    "image": ("href", "xlink:href"),
    "img": ("src", "srcset"),
    "input": ("src",),
    "link": ("href",),
    "object": ("data",),
    "script": ("src",),
    "source": ("src", "srcset"),
    "track": ("src",),
    "use": ("href", "xlink:href"),
    "video": ("poster", "src"),
}
"""Attributes that a browser follows by itself, by the element."""

AWAY = re.compile(r"(?:https?:)?//\w", re.IGNORECASE)
CSS = re.compile(r"""(?:url\(\s*|@import\s+)["']?((?:https?:)?//[^"')\s]+)""", re.IGNORECASE)
SCRIPT = re.compile(
    r"""(?:\b(?:fetch|import|importScripts|Worker|open)\s*\(|\bfrom\b|\bsrc\s*=|\bhref\s*=)\s*"""
    r"""["'`]((?:https?:)?//[^"'`\s]+)"""
)
"""Loads that a script spells out; addresses in comments and links for a reader are none."""


class Found(NamedTuple):
    """An address in a page."""

    address: str
    line: int


class Page(HTMLParser):
    """The ids, links and loads of an HTML file."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[Found] = []
        self.loads: list[Found] = []
        self.code: list[Found] = []
        self.inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        line = self.getpos()[0]
        self.inside = tag
        is_a_mention = tag == "link" and dict(attrs).get("rel") in ("canonical", "license")
        for name, value in attrs:
            if value is None:
                continue
            if name in ("id", "name"):
                self.ids.add(value)
            elif name == "href" and tag == "a":
                self.links.append(Found(value, line))
            elif name in LOADING.get(tag, ()) and not is_a_mention:
                self.loads.append(Found(value, line))
            elif name == "style":
                self.code.append(Found(value, line))

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    def handle_data(self, data: str) -> None:
        if self.inside in ("style", "script"):
            self.code.append(Found(data, self.getpos()[0]))


def problems(site: Path) -> list[str]:
    """What is wrong, a sentence each; of pages that Sphinx didn't write, loads alone."""
    found = []
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}
    for path, page in pages.items():
        name = path.relative_to(site).as_posix()
        for address, line in page.loads:
            if AWAY.match(address):
                found.append(f"{name}:{line} loads {address}")
            elif (wrong := broken(address, path, pages)) is not None:
                found.append(f"{name}:{line} loads {address}, {wrong}")
        for code, line in page.code:
            found += [f"{name}:{line} loads {address}" for address in loaded_by(code)]
        for address, line in page.links:
            if (wrong := broken(address, path, pages)) is not None:
                found.append(f"{name}:{line} links to {address}, {wrong}")
    for path in sorted([*site.rglob("*.css"), *site.rglob("*.js")]):
        text = path.read_text(encoding="utf-8", errors="replace")
        name = path.relative_to(site).as_posix()
        found += [f"{name} loads {address}" for address in loaded_by(text)]
    return found


def loaded_by(code: str) -> Iterator[str]:
    """Addresses elsewhere that styles or a script load."""
    for pattern in (CSS, SCRIPT):
        yield from pattern.findall(code)


def broken(address: str, path: Path, pages: dict[Path, Page]) -> str | None:
    """What is wrong with a relative address in the page at `path`, or None."""
    parts = urlsplit(address)
    if parts.scheme or parts.netloc or not address:
        return None
    target = path if not parts.path else (path.parent / unquote(parts.path)).resolve()
    if not target.is_file():
        return "which isn't there"
    fragment = unquote(parts.fragment)
    if fragment and target in pages and fragment not in pages[target].ids | {"top"}:
        return "whose place isn't there"
    return None


def main() -> int:
    """The exit status: 1 where something is wrong, which is said."""
    found = problems(Path(sys.argv[1]).resolve())
    sys.stderr.writelines(f"{each}\n" for each in found)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
