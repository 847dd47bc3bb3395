"""The documents say what is so."""

import re
import subprocess
import sys
from pathlib import Path

import documents
import make_reference
import pytest

from tenfold.recipe import shipped_recipes
from tenfold.results.measured import read_measured

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_the_commands_are_what_make_reference_writes():
    page = ROOT / "docs/commands.md"
    before = page.read_text()
    try:
        subprocess.run([sys.executable, str(ROOT / "docs/make_reference.py")], check=True)
        assert page.read_text() == before, "run `make reference` and commit docs/commands.md"
    finally:
        page.write_text(before)


def test_every_recipe_names_its_schema_its_command_and_what_was_published():
    for recipe in (ROOT / "src/tenfold/recipes").glob("*.toml"):
        header = recipe.read_text().split("\n\n")[0]
        assert header.startswith("#:schema ./recipe.schema.json\n"), recipe.name
        for word in ("command", "published"):
            assert f"#   {word}" in header, f"{recipe.name}: {word}"
        assert not re.search("#   (measured|time)", header), "measured.json has the figures"
        assert f"tenfold train {recipe.stem}" in header


def test_what_follows_from_the_code_and_from_measured_json_is_up_to_date():
    for path, text in make_reference.from_code(ROOT).items():
        assert path.read_text() == text, f"run `make reference` and commit {path.name}"
    quoted = "".join((ROOT / name).read_text() for name in documents.QUOTING)
    assert all(f"<!-- {part}:begin -->\n| " in quoted for part in ("speed", "demo", "transfer"))
    assert "<!-- recipes:begin -->\n### Start here" in quoted


def test_a_figure_that_changes_changes_what_quotes_it():
    measured = read_measured()
    one = measured.first("fast-75")
    reached = {"mean": 0.7777, "low": 0.7614, "high": 0.7846, "interval": "range"}
    better = one.model_copy(update={"accuracy": one.accuracy.model_copy(update=reached)})
    changed = documents.with_figures(measured, [("fast-75", better)])
    assert len(changed.recipes["fast-75"]) == len(measured.recipes["fast-75"])
    quoting = documents.quoting(ROOT, changed)
    assert "77.77 % (76.14 to 78.46), range" in quoting[ROOT / "docs/speed.md"]
    assert "77.8 % (76.1 to 78.5), range" in quoting[ROOT / "docs/recipes.md"]


def test_figures_of_changed_recipes_stay_beside_new_ones():
    measured = read_measured()
    old = measured.recipes["transfer-lite0"]
    new = old[0].model_copy(update={"command": "tenfold study transfer"})
    found = documents.with_figures(measured, [("transfer-lite0", new)]).recipes["transfer-lite0"]
    assert found == (new, *(one for one in old if "--set" in one.command))
    assert len(found) == 2
    changed = new.model_copy(update={"command": "tenfold bench --to 75 --set training.precision=x"})
    again = documents.with_figures(measured, [("fast-75", changed), ("fast-75", changed)])
    assert again.recipes["fast-75"] == (*measured.recipes["fast-75"], changed)


def test_measured_json_is_about_shipped_recipes_and_says_how_to_repeat_each_figure():
    measured = read_measured()
    assert set(measured.recipes) <= set(shipped_recipes())
    for name, found in measured.recipes.items():
        for one in found:
            assert one.command.startswith("tenfold "), name
            assert one.accuracy.low <= one.accuracy.center <= one.accuracy.high, name
            assert (one.accuracy.n == 1) == (one.accuracy.interval == "images"), name


def test_the_counted_flop_are_those_of_the_layers():
    # Forward, and backward for each weight and each layer's input but the image itself.
    products = 2 * 3072 * 512 + 3 * 512 * 256 + 3 * 256 * 10
    assert read_measured().first("ann").flop == pytest.approx(2 * products * 45_000 * 6, rel=1e-3)


def test_nothing_calls_matmul_equivalents_flop():
    places = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "docs").glob("*.py")]
    places += [*(ROOT / "src").rglob("*.py"), *(ROOT / "benchmarks").glob("*.py")]
    wrong = re.compile(r"product_flop|cost in FLOP|FLOP of (this machine's|a) matrix product", re.I)
    for path in places:
        if path.name != "CHANGELOG.md":
            assert not wrong.search(path.read_text()), path.name
