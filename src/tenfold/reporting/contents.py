"""The table of contents of a page: a link to each of its sections."""

import re

from markupsafe import Markup

FEWEST = 4
"""Sections of a page that has one."""

_SECTION = re.compile(r'<section class="(card[^"]*)"(?: id="([^"]*)")?>\s*<h2>(.*?)</h2>', re.S)
_MAIN = "\n<main>\n"


def with_contents(page: Markup) -> Markup:
    """`page` with a table of contents before its main part, where it has sections enough for one;
    a section without an id gets one."""
    headings: list[tuple[str, str]] = []

    def named(found: re.Match[str]) -> str:
        kind, own, heading = found.groups()
        name = own or f"section-{len(headings) + 1}"
        headings.append((name, str(Markup(heading).striptags())))
        return f'<section class="{kind}" id="{name}">\n<h2>{heading}</h2>'

    numbered = _SECTION.sub(named, page)
    if len(headings) < FEWEST or _MAIN not in page:
        return page
    items = "".join(
        Markup('<li><a href="#{}">{}</a></li>\n').format(name, heading.partition(":")[0])
        for name, heading in headings
    )
    nav = (
        '<nav class="contents" aria-label="Contents">\n<details>\n<summary>Contents</summary>\n'
        f"<ol>\n{items}</ol>\n</details>\n</nav>"
    )
    return Markup(numbered.replace(_MAIN, f"\n{nav}{_MAIN}", 1))
