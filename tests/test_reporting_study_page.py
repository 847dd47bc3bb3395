"""The page of a study: the answer, every published number, what is missing, readable everywhere."""

import json
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import fabricated_studies
from fabricated_studies import ALL, make_comparison, make_variant, write_study
from pages import Page, in_all_sizes, opened
from tenfold.errors import TenfoldError
from tenfold.reporting.story import exact_percent, probability
from tenfold.reporting.study import write_study_page
from tenfold.reporting.study_figures import Mark


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The page of one of the fabricated studies, drawn once."""

    @cache
    def write(kind: str) -> Path:
        return write_study_page(write_study(tmp_path_factory.mktemp(kind), ALL[kind]()))

    return write


def show(folder: Path, summary: dict[str, Any]) -> Page:
    return Page(write_study_page(write_study(folder, summary)), joint="")


def section(page: Page, heading: str) -> str:
    """The HTML of the card under `heading`."""
    cards = page.source.split('<section class="card"')
    return next(card for card in cards if f"<h2>{heading}" in card)


def test_a_study_with_milestones_stands_beside_what_was_published(
    written: Callable[[str], Path],
) -> None:
    page = Page(written("activations"))
    for said in (
        "Which activation function does LeNet learn best with",
        "All but Sigmoid fall after 30 to 40 epochs",
        "test accuracy after 100 epochs",
        "published 66.12 % at 30 epochs",
        "PyTorch thesis on activation functions",
        "Swish is better than ReLU by",
        "Each variant was trained with 3 seeds: 0, 1 and 2.",
        "AMD EPYC 7B13, 2 cores, 1 thread a run",
        "Nothing was tuned for any of the activations.",
        "corrected by Holm's method for the 4 comparisons",
    ):
        assert said in page.text
    places = [page.source.index(text) for text in ("All but Sigmoid", "<h2>Results")]
    assert places == sorted(places), "the findings first"
    table = section(page, "After each number of epochs")
    assert table.count("<tr>") == 11
    assert table.count("<td>") == 50
    assert table.count("★</span>") == 10, "each row has its highest"


def test_numbers_come_out_as_the_summary_has_them(tmp_path: Path) -> None:
    summary = ALL["ann-vs-cnn"]()
    test = summary["variants"][1]["points"][0]["test"]
    test.update(mean=0.80912, low=0.80651, high=0.81249)
    summary["data"] = ["cifar10: 45,000 training, 5,000 validation and 10,000 test images"]
    page = show(tmp_path, summary)
    assert page.text.index(summary["data"][0]) < page.text.index("runs finished")
    assert "80.9 %" in page.text
    assert "(80.7 to 81.2)" in page.text
    assert "357,162" in page.text
    assert "1.6 core-minutes" in page.text, "92 s and 1 % more for each seed, times 1.02"


def test_a_verdict_is_a_sign_and_a_word(tmp_path: Path) -> None:
    verdicts = {
        "▲ beaten": (0.61, 0.605, 0.615),
        "✓ met": (0.601, 0.59, 0.612),
        "≈ within the interval": (0.598, 0.59, 0.606),
        "▼ not reproduced": (0.58, 0.57, 0.59),
        "▽ above ours, settings partly assumed": (0.58, 0.57, 0.59),
    }
    summary = ALL["ann-vs-cnn"]()
    variants = [
        make_variant(sign, top=0.6, epochs=6, published={6: (0.6, "a thesis")}) for sign in verdicts
    ]
    for (sign, test), variant in zip(verdicts.items(), variants, strict=True):
        (point,) = variant["points"]
        point["test"].update(zip(("mean", "low", "high"), test, strict=True))
        assumed = sign.startswith("▽")
        point["verdict"] = "lower" if assumed else fabricated_studies.verdict(point["test"], 0.6)
    page = show(tmp_path, {**summary, "variants": variants, "comparisons": []})
    for sign in verdicts:
        assert f"{sign} published 60 %" in page.text
    missed = "1 of 5 published results did not reproduce: ▼ not reproduced, published 60 %, here 58"
    assert missed in page.text


def test_both_modes_are_shown_where_a_number_was_published_in_training_mode(
    tmp_path: Path,
) -> None:
    summary = ALL["ann-vs-cnn"]()
    point = summary["variants"][0]["points"][0]
    point["test"].update(mean=0.62, low=0.61, high=0.63)
    point["training_mode"] = {**point["test"], "mean": 0.58, "low": 0.57, "high": 0.59}
    point["published"] = {
        "accuracy": 0.6, "source": "a thesis", "settings": "source", "training_mode": True
    }  # fmt: skip
    point["verdict"] = "below"
    page = show(tmp_path, summary)
    both = "here 62.0 % (61.0 to 63.0); in training mode 58.0 % (57.0 to 59.0)"
    assert f"▼ not reproduced published 60 %, {both}" in page.text
    assert "ANN, published 60 %, here 58.0 % (57.0 to 59.0) in training mode." in page.text
    assert "published in training mode, with dropout" in page.text


def test_a_study_that_was_cut_short_says_what_is_missing(written: Callable[[str], Path]) -> None:
    page = Page(written("cut-short"))
    for said in (
        "cut short: 4 of 6 planned runs are finished, 2 failed.",
        "dropout 0.5: 1 of 2 seeds",
        "dropout 0.9: no run",
        "The loss is not finite at step 1,204; lower optimizer.lr.",
        "– not measured published 60 %",
        "One seed was run of dropout 0.5",
    ):
        assert said in page.text
    assert page.text.index("cut short") < page.text.index("Summary")
    assert "cut short" not in Page(written("ann-vs-cnn")).text


def test_without_a_test_split_the_validation_pictures_count(tmp_path: Path) -> None:
    summary = ALL["ann-vs-cnn"]()
    for variant in summary["variants"]:
        variant["points"][0]["test"] = None
    page = show(tmp_path, summary)
    assert "validation accuracy after 6 epochs" in page.text
    assert "test pictures" not in section(page, "Results")
    assert "not run" not in page.text


def test_the_command_that_repeats_it_is_shown(tmp_path: Path) -> None:
    summary = ALL["ann-vs-cnn"]()
    assert "tenfold study ann-vs-cnn" in show(tmp_path, summary).text
    assert "tenfold study" not in show(tmp_path, {**summary, "command": None}).text


def test_runs_that_never_started_are_counted_too(tmp_path: Path) -> None:
    page = show(tmp_path, fabricated_studies.make_published())
    assert "6 of 9 planned runs are finished, 3 were not run to the end." in page.text


def test_one_seed_has_an_interval_over_pictures(tmp_path: Path) -> None:
    page = show(tmp_path, ALL["one-seed"]())
    assert "the interval is over images" in page.text
    assert "over seeds" not in section(page, "What this shows")
    assert "The runs don't say on which machine" in page.text
    assert "trained once, with seed 0" in page.text


def test_a_study_of_which_nothing_was_run_has_a_page(tmp_path: Path) -> None:
    variants = [make_variant(label, top=0.5, seeds=()) for label in ("a", "b")]
    summary = fabricated_studies.make_summary("empty", variants, planned=6, machine=None)
    page = show(tmp_path, summary)
    assert "cut short: 0 of 6" in page.text


def test_overfitting_is_measured_and_dated(tmp_path: Path) -> None:
    summary = ALL["ann-vs-cnn"]()
    curves = summary["variants"][0]["curves"]
    for side in ("mean", "low", "high"):
        curves["train_accuracy"][side] = [0.3, 0.5, 0.7, 0.8, 0.9, 0.95]
        curves["validation_accuracy"][side] = [0.3, 0.5, 0.62, 0.6, 0.58, 0.55]
    page = show(tmp_path, summary)
    assert "Ends at 95.00 % in training and 55.00 % in validation." in page.text
    assert "Validation was best after 3 epochs, with 62.0 %, and fell by 7.0 points." in page.text
    assert "40.0 points" in page.text, "beside the bracket in the figure"


def test_missing_values_in_curves_leave_gaps(tmp_path: Path) -> None:
    summary = ALL["ann-vs-cnn"]()
    for variant in summary["variants"]:
        for name, band in variant["curves"].items():
            if name != "epoch":
                for side in band.values():
                    side[2] = None
    first = summary["variants"][0]["curves"]
    first["validation_accuracy"] = {side: [None] * 6 for side in ("mean", "low", "high")}
    first["validation_loss"] = None
    page = show(tmp_path, summary)
    assert "nan" not in page.source
    assert "nothing was held back for validation" in page.text
    summary["variants"][1]["curves"] = None
    assert "CNN" in show(tmp_path, summary).text


def test_variants_that_end_at_other_epochs_are_compared_too(tmp_path: Path) -> None:
    summary = ALL["ann-vs-cnn"]()
    first, second = summary["variants"][:2]
    summary["comparisons"] = [
        {**make_comparison(second, first, 0.5), "epoch": epoch, "sentence": f"After {epoch}."}
        for epoch in (5, 20)
    ]
    page = section(show(tmp_path, summary), "Against the baseline")
    assert "After 5." in page
    assert "After 20." in page


def test_every_table_and_figure_is_named_for_those_who_do_not_see_it(
    written: Callable[[str], Path],
) -> None:
    page = Page(written("activations"))
    assert page.source.count('<th scope="row"') == 5 + 10 + 4
    charts = re.findall(r'<svg class="chart" role="img" aria-label="([^"]+)"', page.source)
    assert len(charts) == 2 + 5 + 5
    end = re.search('<ul class="intervals">.*?</ul>', page.source, flags=re.DOTALL)
    assert end is not None
    words = re.sub("<[^>]*>", "", end[0]).replace("\N{NO-BREAK SPACE}", " ")
    assert "Sigmoid49.4 % (48.5 to 50.4), published 55 %" in words


def test_twelve_variants_are_told_apart_without_colour() -> None:
    marks = [Mark(number) for number in range(12)]
    assert len({mark.marker for mark in marks}) == 12
    assert len({(mark.colour, mark.dashes) for mark in marks}) == 12
    for mark in marks:
        ElementTree.fromstring(str(mark.key))


def test_the_page_asks_for_nothing_and_its_ids_are_unique(written: Callable[[str], Path]) -> None:
    page = Page(written("twelve"))
    for name in ("src", "href", "srcset"):
        assert all(value.startswith(("data:", "#")) for value in page.values(name))
    assert all(value.startswith("#") for value in page.values("xlink:href"))
    assert not re.search(r"@import|url\((?!#)|<script", page.source)
    ids = page.values("id")
    assert len(ids) == len(set(ids))


def test_the_same_summary_gives_the_same_page(tmp_path: Path) -> None:
    summary = ALL["ann-vs-cnn"]()
    assert show(tmp_path, summary).source == show(tmp_path, summary).source


def test_row_48_markup_in_labels_is_shown_and_never_obeyed(tmp_path: Path) -> None:
    nasty = '<script>alert("1")</script>'
    text = json.dumps(ALL["ann-vs-cnn"]()).replace("ANN", "<script>alert(1)</script>{{ 7*7 }}")
    summary = json.loads(text)
    summary["findings"] = summary["limits"] = [nasty]
    summary["title"] = summary["question"] = nasty
    page = show(tmp_path, summary)
    assert "script" not in page.tags
    assert nasty in page.text
    assert "{{ 7*7 }}" in page.text


def test_what_is_no_summary_is_named(tmp_path: Path) -> None:
    with pytest.raises(TenfoldError, match=r"summary\.json is missing"):
        write_study_page(tmp_path)
    (tmp_path / "summary.json").write_text("{")
    with pytest.raises(TenfoldError, match="can't be read as JSON"):
        write_study_page(tmp_path)
    for broken in ("[]", "{}", json.dumps({**ALL["one-seed"](), "variants": [{"label": 1}]})):
        (tmp_path / "summary.json").write_text(broken)
        with pytest.raises(TenfoldError, match="is not the summary of a study"):
            write_study_page(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_the_page_goes_where_it_is_asked_to(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "study", ALL["one-seed"]())
    assert write_study_page(folder) == folder / "report.html"
    assert write_study_page(folder, tmp_path / "page.html").exists()


def test_numbers_as_people_read_them() -> None:
    shown = [exact_percent(share).replace("\N{NO-BREAK SPACE}", " ") for share in (0.5797, 0.61)]
    assert shown == ["57.97 %", "61 %"]
    assert probability(0.0341) == "0.034"
    assert probability(1e-9).endswith("0.001")
    assert probability(None) == "–"


# How much of the text of the chart of intervals lies over other text, in square pixels.
_OVERLAP = """() => {
  const figure = document.querySelector('.intervals');
  const words = [...figure.querySelectorAll('.words > span, .axis span')];
  const boxes = words.map(each => each.getBoundingClientRect());
  let worst = 0;
  for (let i = 0; i < boxes.length; i++) for (let j = i + 1; j < boxes.length; j++) {
    const [a, b] = [boxes[i], boxes[j]];
    const width = Math.min(a.right, b.right) - Math.max(a.left, b.left);
    const height = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
    if (width > 1 && height > 3) worst = Math.max(worst, width * height);
  }
  return worst;
}"""


@pytest.mark.browser
@pytest.mark.parametrize("kind", ["activations", "twelve", "cut-short"])
def test_a_browser_shows_the_page_without_complaint(
    written: Callable[[str], Path], browser: Any, kind: str
) -> None:
    with opened(browser, written(kind)) as page:
        for _ in in_all_sizes(page):
            assert page.evaluate(_OVERLAP) == 0, "labels lie on top of each other"
