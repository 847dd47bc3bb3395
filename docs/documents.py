"""What the scripts share that write documents from measurements."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from tenfold.errors import TenfoldError


def read(path: Path) -> str | None:
    """The text of a file, or None where there is none."""
    return path.read_text(encoding="utf-8") if path.exists() else None


def with_part(path: Path, part: str, text: str) -> str:
    """The document at `path` with `text` between the lines `<!-- part:begin -->` and `:end`.

    Raises TenfoldError where it has no such lines.
    """
    document = read(path) or ""
    first, last = f"<!-- {part}:begin -->", f"<!-- {part}:end -->"
    begin, end = document.find(first), document.find(last)
    if begin < 0 or end < begin:
        raise TenfoldError(
            f"{path.name} has no table to replace: put the lines {first} and {last} where it "
            "belongs."
        )
    return f"{document[:begin]}{first}\n{text}\n{document[end:]}"


def table(
    heads: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: Sequence[int] = ()
) -> str:
    """A Markdown table; columns of `numbers` are flush right."""
    rules = ["---:" if column in numbers else "---" for column in range(len(heads))]
    return "\n".join(f"| {' | '.join(row)} |" for row in (heads, rules, *rows))
