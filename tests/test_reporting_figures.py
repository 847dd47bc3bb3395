"""Figures follow the page's colours, don't clash in it, and cope with what data sets hold."""

import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from matplotlib.figure import Figure

from tenfold.reporting import figures, study_figures
from tenfold.reporting.study_figures import Mark
from tenfold.reporting.svg import inline_svg, light_palette, standalone_svg
from tenfold.results.runs import ClassScore, Epoch
from tenfold.studies.statistics import summarise


def make_epochs(number: int, *, validation: bool = True) -> list[Epoch]:
    return [
        Epoch(
            number=n,
            learning_rate=0.1,
            train_loss=2 / n,
            train_accuracy=1 - 1 / (n + 1),
            validation_loss=2.1 / n if validation else None,
            validation_accuracy=0.5 if validation else None,
            training_seconds=n,
        )
        for n in range(1, number + 1)
    ]


def make_names(number: int) -> list[str]:
    return [f"class {index}" for index in range(number)]


def make_confusion(number: int) -> np.ndarray:
    confusion = np.random.default_rng(0).integers(0, 5, (number, number))
    return confusion + np.diag(np.full(number, 80))


def texts_of(svg: str) -> list[str]:
    root = ElementTree.fromstring(svg)
    return ["".join(node.itertext()).strip() for node in root.iter() if node.tag.endswith("}text")]


@pytest.mark.parametrize("number", [0, 1, 2, 40])
@pytest.mark.parametrize("validation", [True, False])
def test_learning_curves_of_any_length(number: int, validation: bool) -> None:
    figure = figures.learning_curves(make_epochs(number, validation=validation), quantity="loss")
    svg = inline_svg(figure, prefix="a-", description="curves")
    assert ("validation" in texts_of(svg)) == (validation and number > 0)


def test_a_loss_that_was_not_finite_leaves_a_gap() -> None:
    epochs = make_epochs(5)
    gap = {"train_loss": float("nan"), "validation_loss": float("inf")}
    epochs[2] = epochs[2].model_copy(update=gap)
    assert (
        inline_svg(
            figures.learning_curves(epochs, quantity="loss"), prefix="", description=""
        ).count("nan")
        == 0
    )


@pytest.mark.parametrize("number", [2, 10, 12, 13, 100])
def test_confusion_matrices_name_every_class_twice(number: int) -> None:
    svg = inline_svg(
        figures.confusion_matrix(make_confusion(number), make_names(number)),
        prefix="m-",
        description="confusion",
    )
    texts = texts_of(svg)
    for name in make_names(number):
        assert texts.count(name) == 2
    has_figures = any(text.isdigit() for text in texts)
    assert has_figures == (number <= figures.MAX_CLASSES_WITH_FIGURES)
    assert len(svg) < 150_000


def test_confusion_figures_are_shares_of_the_row() -> None:
    confusion = np.array([[171, 29], [0, 8]])
    svg = inline_svg(
        figures.confusion_matrix(confusion, ["a", "b"]), prefix="", description="confusion"
    )
    numbers = [text for text in texts_of(svg) if text.isdigit()]
    assert numbers == ["86", "15", "100"], "a half is rounded up, as it is elsewhere"


def test_a_class_without_pictures_or_answers_is_drawn() -> None:
    seen = ClassScore(name="seen", precision=0.9, recall=0.8, f1=0.85, num_images=20)
    unseen = ClassScore(name="unseen", precision=None, recall=None, f1=None, num_images=0)
    scores = [seen, unseen]
    texts = texts_of(inline_svg(figures.per_class_bars(scores), prefix="", description=""))
    assert {"seen", "unseen", "no images"} <= set(texts)
    earlier = [seen, unseen.model_copy(update={"precision": 0.0, "recall": 0.0, "f1": 0.0})]
    assert texts == texts_of(inline_svg(figures.per_class_bars(earlier), prefix="", description=""))
    confusion = figures.confusion_matrix(np.array([[20, 0], [0, 0]]), ["seen", "unseen"])
    assert "nan" not in inline_svg(confusion, prefix="", description="")


def test_names_are_text_and_never_markup_or_formulas() -> None:
    names = ["$\\frac{1}{2}$", "<script>alert(1)</script>", "猫 \x07", "very " * 20, "a & b"]
    svg = inline_svg(
        figures.confusion_matrix(make_confusion(5), names),
        prefix="",
        description='"><script>alert(2)</script>',
    )
    assert "<script" not in svg
    texts = texts_of(svg)
    assert "$\\frac{1}{2}$" in texts
    assert "猫 ?" in texts
    assert any(text.endswith("…") for text in texts)


def all_figures() -> list[Figure]:
    points = [(Mark(i), 10.0**i, summarise([0.5 + i / 10], num_images=100)) for i in range(4)]
    return [
        figures.learning_curves(make_epochs(3), quantity="accuracy"),
        figures.confusion_matrix(make_confusion(10), make_names(10)),
        figures.confusion_matrix(make_confusion(30), make_names(30)),
        study_figures.accuracy_against(points, cost="training time"),
        study_figures.accuracy_against(points, cost="parameters"),
    ]


def test_ids_differ_between_figures_and_every_reference_is_met() -> None:
    page = "".join(
        inline_svg(figure, prefix=f"f{number}-", description="x")
        for number, figure in enumerate(all_figures())
    )
    ids = re.findall(r'\sid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    references = re.findall(r'(?:xlink:href="#|url\(#)([^")]+)', page)
    assert references
    assert set(references) <= set(ids)


def test_inlined_figures_have_only_the_colours_of_the_style_sheet() -> None:
    for figure in all_figures():
        svg = inline_svg(figure, prefix="", description="x")
        svg = re.sub(r"data:image/png;base64,[^\"]+", "", svg)
        assert not re.search(r"#[0-9a-f]{6}\b", svg), "a colour that ignores dark mode"
        assert "var(--ink)" in svg or "var(--muted)" in svg


def test_files_have_plain_colours_and_the_same_bytes_each_time() -> None:
    figure = figures.learning_curves(make_epochs(3), quantity="loss")
    svg = standalone_svg(figure)
    ElementTree.fromstring(svg)
    assert "var(" not in svg
    assert light_palette()["--accent"] in svg
    assert svg == standalone_svg(figures.learning_curves(make_epochs(3), quantity="loss"))
