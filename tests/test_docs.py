"""The documents say what is so."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_the_reference_is_what_make_docs_writes():
    page = ROOT / "docs/reference.md"
    before = page.read_text()
    try:
        subprocess.run([sys.executable, str(ROOT / "docs/make_reference.py")], check=True)
        assert page.read_text() == before, "run `make docs` and commit docs/reference.md"
    finally:
        page.write_text(before)


def test_links_in_the_documents_lead_somewhere():
    for document in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
            if not target.startswith("http"):
                assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_every_recipe_says_its_command_machine_and_result():
    for recipe in (ROOT / "src/tenfold/recipes").glob("*.toml"):
        header = recipe.read_text().split("\n\n")[0]
        for word in ("command", "machine", "time", "published", "measured"):
            assert f"#   {word}" in header, f"{recipe.name}: {word}"
        assert f"tenfold train {recipe.stem}" in header
