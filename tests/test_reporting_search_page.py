"""The page of a search: what it found, what it is worth, whatever the search lacks."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from pages import Page, in_all_sizes, opened
from tenfold.errors import TenfoldError
from tenfold.reporting.search import write_search_page
from tenfold.results.searches import read_search

SPACE = [
    {"key": "optimizer.lr", "kind": "float", "low": 0.001, "high": 0.1, "log": True, "step": None},
    {
        "key": "optimizer.weight_decay",
        "kind": "float",
        "low": 1e-6,
        "high": 1e-2,
        "log": True,
        "step": None,
    },
    {"key": "model.dropout", "kind": "float", "low": 0.0, "high": 0.5, "log": False, "step": None},
    {"key": "augmentation.cutout", "kind": "int", "low": 0, "high": 16, "log": False, "step": 4},
    {"key": "augmentation.flip", "kind": "choice", "choices": [False, True]},
    {"key": "training.batch_size", "kind": "choice", "choices": [32, 64, 128]},
]
OWN = {
    "optimizer.lr": 0.01,
    "optimizer.weight_decay": 0.0,
    "model.dropout": 0.2,
    "augmentation.cutout": 0,
    "augmentation.flip": False,
    "training.batch_size": 64,
}


def make_trial(number: int, reached: float, **changes: Any) -> dict[str, Any]:
    """A complete trial of four epochs, which `reached` an accuracy."""
    drawn = {
        "optimizer.lr": 0.001 * (1 + number),
        "optimizer.weight_decay": 1e-6 * 2**number,
        "model.dropout": 0.03 * number,
        "augmentation.cutout": 4 * (number % 5),
        "augmentation.flip": number % 2 == 0,
        "training.batch_size": (32, 64, 128)[number % 3],
    }
    return {
        "number": number,
        "state": "complete",
        "is_baseline": False,
        "params": drawn,
        "accuracy": reached,
        "values": [reached - 0.2, reached - 0.1, reached - 0.05, reached],
        "seconds": 30.0,
        "error": None,
        "run": f"runs/trial-{number}",
        "resumes": None,
        "resumed_as": None,
        **changes,
    }


def make_summary() -> dict[str, Any]:
    """A search of fourteen trials: twelve complete, one pruned, one diverged."""
    trials = [make_trial(0, 0.7, is_baseline=True, params=dict(OWN))]
    trials += [make_trial(n, round(0.65 + 0.01 * n, 2)) for n in range(1, 12)]
    trials.append(make_trial(12, 0.4, state="pruned", accuracy=None, values=[0.3, 0.4]))
    failed = {"state": "failed", "accuracy": None, "values": [], "error": "The loss is nan"}
    trials.append(make_trial(13, 0.0, **failed))
    recipe: dict[str, Any] = {"name": "cnn", "seed": 4}
    for key, value in OWN.items():
        table, field = key.split(".")
        recipe.setdefault(table, {})[field] = value
    return {
        "name": "cnn",
        "source": "cnn",
        "objective": "validation accuracy after the last epoch",
        "recipe": recipe,
        "space": [dict(entry) for entry in SPACE],
        "epochs": 4,
        "num_validation": 5000,
        "counts": {"complete": 12, "pruned": 1, "failed": 1},
        "best": 11,
        "baseline": 0,
        "importances": {"model.dropout": 0.1, "optimizer.lr": 0.7, "augmentation.flip": 0.2},
        "trials": trials,
    }


def show(folder: Path, summary: dict[str, Any]) -> Page:
    (folder / "trials.json").write_text(json.dumps(summary))
    return Page(write_search_page(folder))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of the trials as they are made up, written once."""
    folder = tmp_path_factory.mktemp("search")
    show(folder, make_summary())
    return folder / "report.html"


def test_a_search_says_what_it_found_and_what_that_is_worth(written: Path) -> None:
    page = Page(written)
    for said in (
        "Trial 11 has a validation accuracy of 76.00 %, 6.00 points more than the "
        "recipe as it is, which has 70.00 %.",
        "12 complete, 1 pruned, 1 failed",
        "tenfold train best.toml --seed 5",
        "No trial has looked at the test images.",
        "optimistic",
        "The loss is nan",
        "0.001 to 0.1, logarithmic",
        "32, 64 or 128",
        "fANOVA",
        "the recipe’s 0 is drawn at the left edge",
    ):
        assert said in page.text.replace("\N{NO-BREAK SPACE}", " "), said
    # One standard error of a difference of two shares of 5,000 is 0.85 points.
    assert "up to 1.7 points" in page.text.replace("\N{NO-BREAK SPACE}", " ")


def test_settings_stand_in_the_order_of_what_they_matter(written: Path) -> None:
    page = Page(written)
    described = [v for v in page.values("aria-label") if v.startswith("validation accuracy over")]
    assert described[:3] == [
        f"validation accuracy over {key}"
        for key in ("optimizer.lr", "augmentation.flip", "model.dropout")
    ]
    assert len(described) == len(SPACE)


def test_the_best_ten_stand_side_by_side_with_the_best_first(written: Path) -> None:
    page = Page(written)
    table = page.source[page.source.index('<table class="side">') :]
    headings = re.findall(r'<th scope="col">([^<]+)</th>', table[: table.index("</thead>")])
    ranked = [*range(11, 5, -1), "the recipe", 5, 4, 3]
    assert headings == [n if isinstance(n, str) else f"trial {n}" for n in ranked]
    rows = re.findall(r'<th scope="row">(\w+)</th><td>([^<]+)', table)
    best = make_trial(11, 0.76)["params"]
    assert ("lr", f"{best['optimizer.lr']:g}") in rows
    assert ("flip", "false") in rows
    places = [float(value) for value in re.findall(r"--place: ([\d.]+)", table)]
    assert len(places) == 10 * len(SPACE)
    assert all(0 <= place <= 1 for place in places)


def test_a_gain_within_chance_is_called_so(tmp_path: Path, written: Path) -> None:
    summary = make_summary()
    summary["trials"][0]["accuracy"] = 0.755
    page = show(tmp_path, summary)
    assert "this gain may be none" in page.text
    assert "this gain may be none" not in Page(written).text


def test_a_search_that_found_nothing_better_says_so(tmp_path: Path) -> None:
    summary = make_summary()
    summary["trials"][0]["accuracy"] = 0.9
    summary["best"] = 0
    page = show(tmp_path, summary)
    assert (
        "No trial was better than the recipe as it is, with a validation accuracy of 90.00"
        in page.text
    )


def test_a_search_that_is_not_over_has_a_page(tmp_path: Path) -> None:
    summary = make_summary()
    summary |= {"best": None, "baseline": None, "importances": None, "num_validation": None}
    waiting = {"accuracy": None, "values": [], "seconds": None}
    summary["trials"] = [
        make_trial(0, 0.0, state="interrupted", is_baseline=True, resumed_as=2, **waiting),
        make_trial(1, 0.0, state="running", **waiting),
        make_trial(2, 0.0, state="waiting", params={}, run=None, resumes=0, **waiting),
    ]
    page = show(tmp_path, summary)
    assert "No trial has come to its end yet." in page.text
    assert "done again as trial 2" in page.text
    assert "The search was not over" in page.text
    summary["trials"][1] = make_trial(1, 0.5)
    summary["best"] = 1
    page = show(tmp_path, summary)
    assert "the recipe itself has no result yet" in page.text
    assert "here are 1" in page.text


def test_values_outside_the_ranges_and_equal_accuracies_are_drawn(tmp_path: Path) -> None:
    summary = make_summary()
    own = {"optimizer.lr": 9.0, "training.batch_size": 256, "model.dropout": 0.9}
    summary["trials"][0]["params"] |= own
    for trial in summary["trials"][1:12]:
        trial["accuracy"] = 0.1
        trial["values"] = [0.1] * 4
    summary["best"] = 0
    assert "256" in show(tmp_path, summary).text


def test_tick_labels_have_all_their_decimals(written: Path) -> None:
    page = Page(written)
    assert "0.002" in page.pieces or "0.003" in page.pieces


def test_the_page_asks_for_nothing_and_its_ids_are_unique(written: Path) -> None:
    page = Page(written)
    for name in ("src", "href", "srcset"):
        assert all(value.startswith("data:") for value in page.values(name))
    assert all(value.startswith("#") for value in page.values("xlink:href"))
    assert not re.search(r"@import|url\((?!#)|<script", page.source)
    ids = page.values("id")
    assert len(ids) == len(set(ids))


def test_the_same_trials_give_the_same_page(tmp_path: Path, written: Path) -> None:
    assert show(tmp_path, make_summary()).source == written.read_text()


def test_row_48_markup_is_shown_and_never_obeyed(tmp_path: Path) -> None:
    nasty = "<script>alert(1)</script>{{ 7*7 }}"
    summary = make_summary()
    summary["name"] = summary["source"] = nasty
    summary["trials"][13]["error"] = nasty
    summary["space"][4] = {"key": "data.normalisation", "kind": "choice", "choices": ["a", nasty]}
    summary["recipe"]["data"] = {"normalisation": nasty}
    for trial in summary["trials"]:
        trial["params"]["data.normalisation"] = nasty
    page = show(tmp_path, summary)
    assert "script" not in page.tags
    assert "{{ 7*7 }}" in page.text


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "There is no search in"),
        ("{", "can't be read as JSON"),
        ("[]", "does not hold the trials of a search"),
        ('{"trials": [{"number": 1}]}', "does not hold the trials of a search"),
    ],
)
def test_row_e_what_is_no_search_is_named(
    tmp_path: Path, content: str | None, sentence: str
) -> None:
    if content is not None:
        (tmp_path / "trials.json").write_text(content)
    with pytest.raises(TenfoldError, match=sentence):
        write_search_page(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_the_page_goes_where_it_is_asked_to(tmp_path: Path) -> None:
    (tmp_path / "trials.json").write_text(json.dumps(make_summary()))
    assert write_search_page(tmp_path, tmp_path / "else.html") == tmp_path / "else.html"
    assert not (tmp_path / "report.html").exists()


def test_a_place_in_a_logarithmic_range_is_logarithmic(tmp_path: Path) -> None:
    (tmp_path / "trials.json").write_text(json.dumps(make_summary()))
    rate, decay, dropout, _, flip, size = read_search(tmp_path).space
    assert rate.place(0.01) == pytest.approx(0.5)
    assert decay.place(0.0) == 0.0
    assert dropout.place(0.125) == 0.25
    assert (flip.place(False), flip.place(True)) == (0.0, 1.0)
    assert size.place(64) == 0.5


def test_the_page_needs_neither_torch_nor_optuna(tmp_path: Path, run_python: Any) -> None:
    (tmp_path / "trials.json").write_text(json.dumps(make_summary()))
    code = (
        "import sys; from pathlib import Path;"
        "from tenfold.reporting.search import write_search_page;"
        "write_search_page(Path(sys.argv[1]));"
        "assert not {'torch', 'optuna'} & set(sys.modules)"
    )
    done = run_python(code, tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.browser
def test_a_browser_shows_the_page_without_complaint(written: Path, browser: Any) -> None:
    with opened(browser, written) as page:
        assert list(in_all_sizes(page))
