"""The page: whole, self-contained, small, readable everywhere, whatever a run lacks."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fabricated_runs import CIFAR10, Recipe, make_dataset, make_run, write_json
from pages import Page, in_all_sizes, opened
from tenfold.data.images import Dataset
from tenfold.errors import TenfoldError
from tenfold.evaluation.runs import Run
from tenfold.files import read_json
from tenfold.reporting.clusters import class_order, most_confused_block
from tenfold.reporting.page import write_figures, write_report


def load(run: Run) -> Dataset:
    return make_dataset(tuple(run.data.class_names))


def report(*folders: Path, out: Path | None = None) -> Page:
    return Page(write_report(folders, out, loader=load))


def make_pair(folder: Path) -> list[Path]:
    dense = Recipe(name="ann", skill=1.2, num_parameters=1_707_274, seconds=38.2)
    return [make_run(folder / "ann" / "1", dense), make_run(folder / "cnn" / "1")]


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Pages that several tests look at, each written once."""
    folder = tmp_path_factory.mktemp("pages")
    names = tuple(f"a rather long class name {n}" for n in range(100))
    runs = {
        "single": [make_run(folder / "runs" / "cnn" / "1")],
        "pair": make_pair(folder),
        "hundred": [make_run(folder / "hundred" / "1", Recipe(class_names=names))],
    }
    paths = {kind: folder / f"{kind}.html" for kind in runs}
    return {kind: write_report(runs[kind], paths[kind], loader=load) for kind in runs}


def test_one_run_is_told_in_plain_words(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "runs" / "cnn" / "1")
    page = report(folder)
    assert (folder / "report.html").exists()
    for said in (
        "cnn on cifar10",
        "A convolutional network was trained on 45,000 images of the data set cifar10",
        "A training run · 2026-11-21 04:28 UTC",
        "62.9 to 72.1 % over 400 images, one seed",
        "one seed",
        "1 min 18 s",
        "Majority-class baseline: 10.0 %.",
        "so it can be better than training",
        "looked at once",
        "2026-11-21 04:31 UTC",
        "after training: 78.0 % accuracy",
        "1.1 GB",
        "optimizer.lr",
        "commit 2119441abcde, with uncommitted changes",
        "torch 2.11.0",
        "resumed at step 90",
    ):
        assert said in page.text
    assert page.tags.count("img") == 36, "twelve right, twelve wrong, twelve unsure"
    assert page.tags.count("svg") == 5
    assert page.tags.count("figcaption") == 5, "each chart says how to read it"


def test_a_class_without_test_images_is_said_and_not_drawn_as_zero(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "runs" / "cnn" / "1")
    result = read_json(folder / "result.json")
    for score in result["splits"]["test"]["per_class"][:2]:
        score.update(recall=None, f1=None, num_images=0)
    write_json(folder / "result.json", result)
    page = report(folder)
    assert "There were no images of airplane and automobile to try it on." in page.text
    assert page.text.count("no images") == 3


def test_a_comparison_of_ann_and_cnn_explains_itself(pages: dict[str, Path]) -> None:
    page = Page(pages["pair"])
    for said in (
        "Why a convolutional network beats a dense one",
        "What each of them sees",
        "Only cnn is right",
        "Only ann is right",
        "Recall by class, ann to cnn",
        "model.kernel_size",
        "Confusion matrix",
    ):
        assert said in page.text
    assert page.tags.count("img") == 24


def test_the_page_asks_for_nothing_from_outside(pages: dict[str, Path]) -> None:
    page = Page(pages["pair"])
    for name, value in page.attributes:
        if name in ("src", "href", "srcset", "data", "action"):
            assert value.startswith(("data:", "#"))
        if name == "xlink:href":
            assert value.startswith(("#", "data:"))
    assert "@import" not in page.source
    assert not re.search(r"url\((?!#)", page.source)
    assert page.tags.count("script") == 2, "the explorer's, and what it shows"


def test_ids_are_unique_in_a_page_of_many_charts(pages: dict[str, Path]) -> None:
    page = Page(pages["pair"])
    ids = [value for name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("number", [2, pytest.param(10, marks=pytest.mark.long)])
def test_runs_of_a_hundred_classes_take_half_a_megabyte_each(tmp_path: Path, number: int) -> None:
    names = tuple(f"class number {index}" for index in range(100))
    dataset = make_dataset(names)
    folders = [
        make_run(
            tmp_path / f"model{n}" / "1",
            Recipe(name=f"model{n}", skill=3 + n / 10, class_names=names, epochs=100),
            dataset=dataset,
        )
        for n in range(number)
    ]
    path = write_report(folders, tmp_path / "all.html", loader=lambda _: dataset)
    assert path.stat().st_size < 500_000 * number


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        pytest.param(
            Recipe(has_test=False), "There are no test images for cnn.", marks=pytest.mark.long
        ),
        (Recipe(has_test=False, has_validation=False), "nothing here says how well it does"),
        pytest.param(
            Recipe(has_validation=False),
            "No images were held back for validation",
            marks=pytest.mark.long,
        ),
        pytest.param(Recipe(epochs=1), "There is one epoch", marks=pytest.mark.long),
        pytest.param(
            Recipe(skill=60.0), "It made no error on the test images.", marks=pytest.mark.long
        ),
        (Recipe(skill=-20.0), "It got none of the test images right."),
        (Recipe(finished=False), "The run cnn is not finished: 5 of 8 epochs are done"),
        pytest.param(
            Recipe(finished=False, epochs=2),
            "it has not completed an epoch yet",
            marks=pytest.mark.long,
        ),
        pytest.param(Recipe(class_names=("cat", "dog")), "cnn on cifar10", marks=pytest.mark.long),
        (Recipe(num_test=10), "cnn on cifar10"),
    ],
)
def test_what_a_run_lacks_is_said(tmp_path: Path, recipe: Recipe, said: str) -> None:
    dataset = make_dataset(recipe.class_names, num_test=recipe.num_test)
    folder = make_run(tmp_path / "1", recipe, dataset=dataset)
    assert said in report(folder).text
    write_figures(folder)


def test_finished_and_unfinished_runs_are_compared_as_far_as_they_go(tmp_path: Path) -> None:
    folders = [make_run(tmp_path / "a"), make_run(tmp_path / "b", Recipe("ann", finished=False))]
    page = report(*folders, out=tmp_path / "page.html")
    assert "is not finished: 5 of 8 epochs" in page.text
    assert "not run" in page.text
    unfinished = make_run(tmp_path / "c", Recipe("lenet", finished=False))
    page = report(folders[1], unfinished, out=tmp_path / "page.html")
    assert "not evaluated" in page.text


@pytest.mark.parametrize(
    "note",
    [
        "CIFAR-10 could not be reached, so this page is about scikit-learn's handwritten digits.",
        pytest.param("The digits data set is used instead of CIFAR-10.", marks=pytest.mark.long),
    ],
)
def test_a_fallback_data_set_is_announced_loudly(tmp_path: Path, note: str) -> None:
    pair = [
        make_run(tmp_path / name, Recipe(name=name, notes=(note, "3 files were skipped.")))
        for name in ("ann", "cnn")
    ]
    for page in (report(pair[0]), report(*pair, out=tmp_path / "page.html")):
        loud = [value for name, value in page.attributes if name == "class" and "loud" in value]
        assert len(loud) == 1, "once, not once a run, and not for every note"
        assert page.text.count(note) == 1
        assert page.text.index(note) < page.text.index(" accuracy")


def test_pictures_that_are_gone_leave_a_sentence(tmp_path: Path) -> None:
    def fail(run: Run) -> Dataset:
        raise TenfoldError(f"{run.data_name} is not where it was.")

    page = Page(write_report([make_run(tmp_path / "1")], loader=fail))
    assert "The data set could not be opened again: cifar10 is not where it was." in page.text
    assert "img" not in page.tags
    assert "Most confident errors" in page.text


def test_row_48_markup_in_names_is_shown_and_never_obeyed(tmp_path: Path) -> None:
    nasty = '<script>alert("1")</script>'
    names = (nasty, "</style><img src=x onerror=alert(2)>", "${7*7}{{ 7*7 }}", *CIFAR10[3:])
    dataset = make_dataset(names)
    recipe = Recipe(class_names=names, notes=(nasty,))
    folders = [make_run(tmp_path / f"{n} & <b>" / "1", recipe, dataset=dataset) for n in "ab"]
    ids = np.array([f'test/{n}"><script>alert(3)</script>.png' for n in range(400)])
    for folder in folders:
        path = folder / "predictions-test.npz"
        with np.load(path) as arrays:
            np.savez(path, **{**arrays, "ids": ids})
        write_json(folder / "recipe.json", {"name": nasty, "model": {"name": nasty}})
    for page in (report(folders[0]), report(*folders, out=tmp_path / "page.html")):
        assert "script" not in page.tags
        assert "onerror" not in {name for name, _ in page.attributes}
        assert nasty in page.text
        assert "49" not in re.findall(r"\$\{?(\d+)", page.text)


def test_wrong_use_is_named(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "1")
    with pytest.raises(TenfoldError, match="at least one run"):
        write_report([])
    with pytest.raises(TenfoldError, match="named twice"):
        write_report([folder, tmp_path / "." / "1"], tmp_path / "page.html")
    with pytest.raises(TenfoldError, match="needs a file"):
        write_report([folder, make_run(tmp_path / "2")])
    with pytest.raises(TenfoldError, match="not a run folder"):
        write_report([tmp_path])
    assert not (tmp_path / "report.html").exists()


def test_figures_are_written_as_files(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "1")
    paths = write_figures(folder)
    assert {path.name for path in paths} == {
        "accuracy.svg",
        "loss.svg",
        *(f"{kind}-{split}.svg" for kind in ("confusion", "classes", "confidence")
          for split in ("test", "validation")),
    }  # fmt: skip
    assert all(path.parent == folder / "figures" and path.stat().st_size for path in paths)


def test_the_same_run_gives_the_same_page(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "1")
    assert report(folder).source == report(folder).source


def test_the_contents_lead_to_every_section(pages: dict[str, Path]) -> None:
    for page in (Page(pages["single"]), Page(pages["pair"])):
        links = [link for link in page.values("href") if link.startswith("#")]
        assert len(links) == page.tags.count("section")
        assert {link[1:] for link in links} <= set(page.values("id"))
        assert len(set(links)) == len(links)


def test_one_epoch_is_shown_step_by_step(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "1", Recipe(epochs=1))
    lines = [json.dumps({"event": "step", "step": n, "loss": 2 - n / 50}) for n in range(1, 40)]
    (folder / "progress.jsonl").write_text("\n".join([*lines, '{"event": "st']))
    page = report(folder)
    assert "Loss by step" in page.text
    assert "a single dot" not in page.text
    write_json(folder / "recipe.json", {"model": {"name": "pretrained", "backbone": "lite0"}})
    (folder / "progress.jsonl").unlink()
    page = report(folder)
    assert "Loss by epoch" in page.text
    assert "The network “lite0” was trained on" in page.text


@pytest.mark.browser
def test_a_click_on_a_head_sorts_the_table(pages: dict[str, Path], browser: Any) -> None:
    with opened(browser, pages["single"]) as page:
        table = page.locator("table.sortable").filter(has_text="validation loss")
        page.get_by_text("The curves as figures").click()
        for head, column in (("training loss", 1), ("epoch", 0)):
            texts = table.locator(f"tbody td:nth-child({column + 1})").all_inner_texts()
            expected = sorted(map(float, texts), reverse=True)
            button = table.get_by_role("button", name=head, exact=True)
            button.click()
            texts = table.locator(f"tbody td:nth-child({column + 1})").all_inner_texts()
            assert list(map(float, texts)) == expected
            button.click()
            texts = table.locator(f"tbody td:nth-child({column + 1})").all_inner_texts()
            assert list(map(float, texts)) == expected[::-1]


def test_classes_that_are_confused_stand_side_by_side() -> None:
    # Of twenty classes, those of the same last digit are taken for each other.
    confusion = np.eye(20, dtype=np.int64) * 50
    for one in range(20):
        confusion[one, (one + 10) % 20] = 5
    confusion[4, 14] = confusion[14, 4] = 30
    order = class_order(confusion)
    assert sorted(order) == list(range(20))
    assert all(abs(order.index(n) - order.index(n + 10)) == 1 for n in range(10))
    assert set(most_confused_block(confusion, order, 2)) == {4, 14}


@pytest.mark.browser
@pytest.mark.parametrize(
    "kind", ["single", "pair", pytest.param("hundred", marks=pytest.mark.long)]
)
def test_a_browser_shows_the_page_without_complaint(
    pages: dict[str, Path], browser: Any, kind: str
) -> None:
    with opened(browser, pages[kind]) as page:
        for scheme in in_all_sizes(page):
            ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
            ink = page.evaluate("getComputedStyle(document.querySelector('svg.chart text')).fill")
            brightness = [sum(map(int, re.findall(r"\d+", c)[:3])) for c in (ground, ink)]
            assert (brightness[0] > brightness[1]) == (scheme == "light")
