"""Build the site: gather its sources, have Sphinx build them, check what was built.

    python docs/make_site.py [--links] [build]

The sources are docs/*.md, CONTRIBUTING.md and CHANGELOG.md, the chapters of the course (as
`make course` executed them into build/course, else without what they print), their widgets, and the
pages that make_gallery.py left in build/gallery. Links that suit a reader of the repository become
those of the site. --links checks the links to other sites instead, which takes a network.
"""

import argparse
import html
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import check_site

from tenfold.course.notebooks import Chapter, chapters, course_folder, write_notebook

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"

OUTSIDE = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
"""Documents of the repository's root that are pages of the site."""

COPIED = (".png", ".svg", ".webp")
AS_THEY_ARE = ("course/widgets", "gallery")
"""Folders of whole pages, which Sphinx doesn't see; it doesn't write there either."""

WIDGET = re.compile(r"\[([^]]*)\]\((?:\.\./)?((?:course/)?widgets/[\w-]+\.html)\)")
AS_HTML = r'<a href="\2">\1</a>'
"""Sphinx knows nothing of the widgets, so that links to them are none of Markdown's."""

NOT_EXECUTED = " Its cells are shown without what they print, which `make course` adds."
REDUCED = " What its cells print here is of the reduced form, whose figures mean nothing."

Files = dict[str, bytes]
"""Contents by path within a folder."""


def main(arguments: Sequence[str]) -> int:
    """Build and check; the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", default=ROOT / "build")
    parser.add_argument("--links", action="store_true", help="check links to other sites instead")
    options = parser.parse_args(arguments)
    sources, site = options.folder / "site-source", options.folder / "site"
    files = gather(executed=options.folder / "course", gallery=options.folder / "gallery")
    write(sources, files)
    builder, out = ("linkcheck", options.folder / "links") if options.links else ("html", site)
    shutil.rmtree(out, ignore_errors=True)
    build = [sys.executable, "-m", "sphinx", "--builder", builder, "--conf-dir", str(DOCS)]
    build += ["--fail-on-warning", "--quiet", str(sources), str(out)]
    if status := subprocess.run(build, check=False).returncode:
        return status
    if options.links:
        return 0
    for folder in AS_THEY_ARE:
        pages = {name: text for name, text in files.items() if name.startswith(f"{folder}/")}
        write(site / folder, {name[len(folder) + 1 :]: pages[name] for name in pages})
    problems = check_site.problems(site.resolve())
    sys.stderr.writelines(f"{problem}\n" for problem in problems)
    if not problems:
        sys.stdout.write(f"The site is {site / 'index.html'}\n")
    return 1 if problems else 0


def gather(*, executed: Path, gallery: Path) -> Files:
    """The site's sources: documents, what they link to, chapters, widgets, pages of the gallery."""
    files: Files = {}
    pages = {path.name: path.read_text(encoding="utf-8") for path in DOCS.glob("*.md")}
    for name, page in OUTSIDE.items():
        pages[page] = (ROOT / name).read_text(encoding="utf-8").replace("](docs/", "](")
    for path in (path for path in DOCS.rglob("*") if path.suffix in COPIED):
        files[path.relative_to(DOCS).as_posix()] = path.read_bytes()
    for path in gallery.glob("*.html"):
        files[f"gallery/{path.name}"] = path.read_bytes()
    for name, text in pages.items():
        files[name] = for_site(text, files).encode()
    for path in (course_folder() / "widgets").glob("*.html"):
        files[f"course/widgets/{path.name}"] = path.read_bytes()
    for chapter in chapters():
        name = f"{chapter.path.stem}.ipynb"
        files[f"course/{name}"] = json.dumps(notebook(chapter, executed / name)).encode()
    return files


def for_site(text: str, files: Files) -> str:
    """A document whose links lead to pages of the site, or to copies that are added to `files`."""

    def link(found: re.Match[str]) -> str:
        target, anchor = found[1], found[2] or ""
        if target.startswith("course/") and target.endswith(".py"):
            return f"]({target.removesuffix('.py')}.ipynb{anchor})"
        if target in OUTSIDE:
            return f"]({OUTSIDE[target]}{anchor})"
        assert not target.endswith(".md"), f"{target} is no page of the site"
        name = f"files/{Path(target).name}"
        files[name] = (ROOT / target).read_bytes()
        return f"]({name})"

    def opens(found: re.Match[str]) -> str:
        """A small image of a page of the gallery leads to the page, where it was made."""
        page = f"gallery/{found[2]}.html"
        if page not in files:
            return found[0]
        image = f'<img src="gallery/{found[2]}.webp" alt="{html.escape(found[1])}">'
        return f'<a class="page" href="{page}">{image}</a>'

    text = WIDGET.sub(AS_HTML, text)
    text = re.sub(r"\]\(\.\./([^)#]+)(#[^)]*)?\)", link, text)
    return re.sub(r"^!\[([^]]*)\]\(gallery/([a-z]+)\.webp\)$", opens, text, flags=re.MULTILINE)


def notebook(chapter: Chapter, executed: Path) -> dict[str, Any]:
    """A chapter's notebook with what its cells print, if `executed` is of this very code."""
    with tempfile.TemporaryDirectory() as folder:
        made = json.loads(write_notebook(chapter, Path(folder)).read_text(encoding="utf-8"))
    printed, form = [], "full"
    if executed.exists():
        ran_as = json.loads(executed.read_text(encoding="utf-8"))
        printed, form = code_cells(ran_as), ran_as["metadata"].get("tenfold", {}).get("form", form)
    cells = code_cells(made)
    if is_executed := [source_of(cell) for cell in printed] == [source_of(cell) for cell in cells]:
        for cell, ran in zip(cells, printed, strict=True):
            # What the test says of an exercise that nobody has solved is for nobody.
            if not {"exercise", "check"}.intersection(cell["metadata"].get("tags", [])):
                cell["outputs"] = ran["outputs"]
    for cell in made["cells"]:
        if cell["cell_type"] == "markdown":
            cell["source"] = in_site(source_of(cell))
    note = ("" if form == "full" else REDUCED) if is_executed else NOT_EXECUTED
    made["cells"][0]["source"] += (
        "\n\n```{admonition} A notebook\n:class: tip\n\n"
        f"`tenfold course {chapter.number}` makes it in the current folder and opens it, with the "
        f"tests of its exercises.{note}\n```"
    )
    return dict(made)


def code_cells(notebook: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The cells of a notebook that are run."""
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def source_of(cell: Mapping[str, Any]) -> str:
    """The text of a notebook's cell, which may be stored by lines."""
    return "".join(cell["source"])


def in_site(text: str) -> str:
    """A cell's text with its widget beneath, and folded text as Markdown rather than HTML."""
    names = dict.fromkeys(re.findall(r"\(widgets/([\w-]+)\.html\)", text))
    text = WIDGET.sub(AS_HTML, text)
    text = re.sub(r"(<summary>[^<]*</summary>)(?=\S)", r"\1\n\n", text)
    text = re.sub(r"(?<=\S)</details>", "\n\n</details>", text)
    for name in names:
        title = name.replace("-", " ")
        text += (
            f'\n\n<iframe class="widget {name}" src="widgets/{name}.html" title="Widget: {title}" '
            'loading="lazy"></iframe>'
        )
    return text


def write(folder: Path, files: Files) -> None:
    """Have `folder` hold `files` and nothing else."""
    shutil.rmtree(folder, ignore_errors=True)
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
