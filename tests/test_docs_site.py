"""The site: its sources hang together, what is built loads nothing from elsewhere, and it works."""

import importlib.util
import json
import re
from collections import Counter
from pathlib import Path

import check_site
import make_gallery
import make_site
import pytest

from tenfold.course.notebooks import chapters, course_folder, write_notebook

ROOT = Path(__file__).parent.parent
DOCUMENTS = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]


def without_code(text: str) -> str:
    """A document's text outside its fences."""
    return re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)


def slugs(document: Path) -> set[str]:
    """The anchors that GitHub and MyST give to the headings of a document."""
    heads = re.findall(r"^#+ (.*)$", without_code(document.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_in_the_documents_lead_somewhere(document):
    for link in re.findall(r"\]\(([^)\s]+)\)", without_code(document.read_text())):
        target, _, anchor = link.partition("#")
        if target.startswith(("http", "mailto")):
            continue
        path = document.parent / target if target else document
        assert path.exists(), link
        assert not anchor or anchor in slugs(path), link


def test_every_page_is_in_one_table_of_contents():
    listed = Counter()
    for page in ("index.md", "course.md"):
        text = (ROOT / "docs" / page).read_text()
        for block in re.findall(r"^```\{toctree\}\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
            listed.update(line for line in block.splitlines() if line and line[0] != ":")
    pages = {path.stem for path in (ROOT / "docs").glob("*.md")} - {"index"}
    pages |= {Path(name).stem for name in make_site.OUTSIDE.values()}
    assert listed == Counter(dict.fromkeys([*pages, "course/*"], 1))


def test_the_page_of_the_course_names_each_chapter_and_widget():
    text = (ROOT / "docs/course.md").read_text()
    found = re.findall(r"^(\d+)\. \[(.*)\]\(\.\./course/(.*)\)$", text, re.MULTILINE)
    assert found == [(str(c.number), c.title, c.path.name) for c in chapters()]
    widgets = {path.name for path in (ROOT / "course/widgets").glob("*.html")}
    assert set(re.findall(r"course/widgets/([\w-]+\.html)", text)) == widgets


def test_the_gallery_says_how_each_page_is_made_and_shows_it_small():
    commands = make_gallery.read_commands()
    assert set(commands) == set(make_gallery.PAGES)
    for name, lines in commands.items():
        assert all(line.startswith("tenfold ") for line in lines)
        assert 1000 < (ROOT / f"docs/gallery/{name}.webp").stat().st_size < 60_000


def test_pages_of_the_gallery_are_made_once_in_order_and_what_fails_is_told(
    tmp_path, monkeypatch, capsys
):
    ran = []

    def run(command, folder):
        ran.append(command)
        for page in make_gallery.PAGES.values():
            (folder / page).parent.mkdir(parents=True, exist_ok=True)
            (folder / page).write_text(command)
        return 3 if "study" in command else 0

    monkeypatch.setattr(make_gallery, "run", run)
    assert make_gallery.main([str(tmp_path)]) == 3
    assert "'study' can't be made" in capsys.readouterr().err
    assert ran[0].startswith("tenfold train ann")
    assert (tmp_path / "comparison.html").read_text() == ran[2]
    assert not (tmp_path / "study.html").exists()
    ran.clear()
    assert make_gallery.main([str(tmp_path)]) == 3
    assert [command.split()[1] for command in ran] == ["study"]


def executed(folder: Path) -> Path:
    """A chapter as `make course` leaves it: every cell prints something."""
    path = write_notebook(chapters()[5], folder)
    notebook = json.loads(path.read_text())
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            cell["outputs"] = [{"output_type": "stream", "name": "stdout", "text": "printed"}]
    path.write_text(json.dumps(notebook))
    return path


def test_a_chapter_has_what_its_cells_printed_but_not_what_tests_say_of_stubs(tmp_path):
    cells = make_site.notebook(chapters()[5], executed(tmp_path))["cells"]
    for note in ("without what they print", "reduced form"):
        assert note not in cells[0]["source"]
    printing = [cell for cell in cells if cell.get("outputs")]
    assert len(printing) > 5
    tags = {tag for cell in printing for tag in cell["metadata"].get("tags", [])}
    assert not tags & {"exercise", "check"}


def test_a_chapter_executed_in_reduced_form_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("TENFOLD_COURSE", "reduced")
    path = executed(tmp_path)
    monkeypatch.delenv("TENFOLD_COURSE")
    cells = make_site.notebook(chapters()[5], path)["cells"]
    assert "reduced form" in cells[0]["source"]
    assert any(cell.get("outputs") for cell in cells)


def test_a_chapter_that_changed_since_is_shown_without(tmp_path):
    path = executed(tmp_path)
    path.write_text(path.read_text().replace("import time", "import timeit"))
    for old in (path, tmp_path / "none.ipynb"):
        cells = make_site.notebook(chapters()[5], old)["cells"]
        assert "without what they print" in cells[0]["source"]
        assert not any(cell.get("outputs") for cell in cells)


def test_links_of_the_repository_become_those_of_the_site():
    files = {"gallery/run.html": b""}
    text = (
        "[five](../course/05-convolution-and-pooling.py) [how](../CONTRIBUTING.md#the-rules)\n"
        "[figures](../src/tenfold/measured.json) [it](../course/widgets/logits.html)\n"
        "![A run](gallery/run.webp)\n![A study](gallery/study.webp)\n"
    )
    assert make_site.for_site(text, files) == (
        "[five](course/05-convolution-and-pooling.ipynb) [how](contributing.md#the-rules)\n"
        '[figures](files/measured.json) <a href="course/widgets/logits.html">it</a>\n'
        '<a class="page" href="gallery/run.html"><img src="gallery/run.webp" alt="A run"></a>\n'
        "![A study](gallery/study.webp)\n"
    )
    assert files["files/measured.json"] == (ROOT / "src/tenfold/measured.json").read_bytes()


def test_a_cell_has_its_widget_beneath_and_folded_text_as_markdown():
    text = "Try [it](widgets/logits.html).\n\n<details><summary>Answer</summary>$x$.</details>"
    found = make_site.in_site(text)
    assert "<summary>Answer</summary>\n\n$x$.\n\n</details>" in found
    assert found.startswith('Try <a href="widgets/logits.html">it</a>')
    assert re.search(r'<iframe .*src="widgets/logits.html" title="Widget: logits"', found)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("index.html", '<script src="https://cdn.example/x.js"></script>'),
        ("index.html", '<link rel="stylesheet" href="//fonts.example/x.css">'),
        ("index.html", '<link rel="preconnect" href="https://fonts.example">'),
        ("index.html", '<img srcset="http://example.org/x.png 2x">'),
        ("index.html", '<p style="background: url(http://example.org/x.png)">'),
        ("index.html", "<style>@import 'https://example.org/x.css';</style>"),
        ("index.html", "<script>fetch('https://example.org/x')</script>"),
        ("index.html", '<a href="gone.html">a page that is not there</a>'),
        ("index.html", '<a href="#gone">a place that is not there</a>'),
        ("index.html", '<img src="gone.png">'),
        ("site.css", "@font-face { src: url('https://fonts.example/x.woff2') }"),
        ("site.js", "import x from 'https://esm.example/x'"),
    ],
)
def test_what_a_page_loads_from_elsewhere_or_misses_is_found(tmp_path, name, text):
    (tmp_path / "index.html").write_text("<p id='here'>")
    (tmp_path / name).write_text(text)
    [problem] = check_site.problems(tmp_path)
    assert problem.startswith(name)
    assert "example" in problem or "gone" in problem


def test_links_for_a_reader_are_no_problem(tmp_path):
    (tmp_path / "site.js").write_text(
        "// see https://example.org/x\nconst NS = 'http://www.w3.org/'"
    )
    (tmp_path / "index.html").write_text(
        '<link rel="canonical" href="https://example.org/"><script src="site.js"></script>'
        '<a href="https://example.org/">away</a> <a href="?q=1#here">here</a> <p id="here">'
        '<img src="data:image/png;base64,AA=="><svg><use href="#here"/></svg>'
    )
    assert check_site.problems(tmp_path) == []


NEEDED = ("furo", "latex2mathml", "myst_nb", "sphinx", "sphinx_copybutton")


@pytest.mark.long
@pytest.mark.browser
@pytest.mark.skipif(
    not all(map(importlib.util.find_spec, NEEDED)), reason="the extra docs isn't installed"
)
def test_the_site_is_built_without_a_warning_and_works_from_the_disk(tmp_path, browser):
    executed_folder = tmp_path / "course"
    executed_folder.mkdir()
    executed(executed_folder)
    assert make_site.main([str(tmp_path)]) == 0
    site = tmp_path / "site"
    names = [f"course/{chapter.path.stem}.html" for chapter in chapters()]
    assert all((site / name).exists() for name in names)
    assert "<math" in (site / names[2]).read_text()
    widgets = sorted(path.name for path in (course_folder() / "widgets").iterdir())
    assert sorted(path.name for path in (site / "course/widgets").iterdir()) == widgets

    said, asked = [], []
    page = browser.new_page(viewport={"width": 390, "height": 844})
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    for name in ("index.html", names[5], "commands.html", "recipes.html", "gallery.html"):
        page.goto((site / name).as_uri())
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= 390, f"{name} is {width} pixels wide"
    page.goto((site / "search.html").as_uri() + "?q=dropout")
    page.get_by_text("Search finished").wait_for()
    assert page.get_by_role("link", name="Overfitting and what helps").count()
    page.goto((site / "tour.html").as_uri())
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to content"
    page.get_by_role("button", name="Copy").first.focus()
    assert said == []
    assert all(url.startswith(("file:", "data:", "blob:")) for url in asked), asked
