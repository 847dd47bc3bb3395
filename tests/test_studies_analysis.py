"""What is said of made-up studies, whose accuracies are known because they were chosen."""

import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fabricated_study_runs import NUM_PICTURES, Made, answers, make_study, three
from tenfold.errors import TenfoldError
from tenfold.evaluation.metrics import wilson_interval
from tenfold.files import read_json, write_json
from tenfold.reporting import story
from tenfold.results.studies import read_study
from tenfold.studies.analysis import summarise_study
from tenfold.studies.statistics import mcnemar_p, welch_difference


def the_finding(summary: dict[str, Any], words: str) -> str:
    """The only finding that holds `words`."""
    (found,) = (finding for finding in summary["findings"] if words in finding)
    return str(found)


@pytest.fixture
def activations(tmp_path: Path) -> Path:
    """Three variants, the second better and the third the same as the first."""
    return make_study(
        tmp_path / "activations",
        {
            "ReLU": three(0.600, 0.604, 0.608),
            "Leaky ReLU": three(0.660, 0.662, 0.667, seconds=130.0),
            "Swish": three(0.601, 0.605, 0.603),
        },
    )


def test_a_summary_has_the_study_the_runs_and_their_intervals(activations: Path) -> None:
    summary = summarise_study(activations).to_dict()
    assert read_json(activations / "summary.json") == summary
    assert [*summary] == [
        "name", "title", "question", "limits", "command", "data", "baseline", "planned", "finished",
        "failed", "failures", "machine", "variants", "comparisons", "findings",
    ]  # fmt: skip
    assert (summary["name"], summary["title"], summary["question"]) == (
        "activations", "A title", "What helps?",
    )  # fmt: skip
    assert summary["data"] == [f"cifar10: 45,000 training and {NUM_PICTURES:,} test images"]
    assert (summary["limits"], summary["baseline"]) == (["One network."], "ReLU")
    assert (summary["planned"], summary["finished"], summary["failed"]) == (9, 9, 0)
    expected = {"cpu": "Xeon", "instructions": None, "cores": 2, "device": "cpu", "threads": 1}
    assert summary["machine"] == expected
    leaky = summary["variants"][1]
    assert [*leaky] == [
        "label", "recipe", "model", "num_parameters", "planned_seeds", "seeds",
        "training_seconds", "process_seconds", "points", "curves",
    ]  # fmt: skip
    assert (leaky["recipe"], leaky["model"], leaky["num_parameters"]) == ("lenet", "lenet", 62_006)
    assert (leaky["planned_seeds"], leaky["seeds"]) == (3, [0, 1, 2])
    assert leaky["training_seconds"]["mean"] == 130
    assert leaky["process_seconds"]["values"] == [260, 260, 260]
    (point,) = leaky["points"]
    sd = math.sqrt(((0.660 - 0.663) ** 2 + (0.662 - 0.663) ** 2 + (0.667 - 0.663) ** 2) / 2)
    assert point["test"] == {
        "mean": pytest.approx(0.663),
        "sd": pytest.approx(sd),
        "low": pytest.approx(0.663 - 4.3027 * sd / math.sqrt(3), abs=1e-6),
        "high": pytest.approx(0.663 + 4.3027 * sd / math.sqrt(3), abs=1e-6),
        "n": 3,
        "values": [0.66, 0.662, 0.667],
        "interval_over": "seeds",
    }
    assert (point["epoch"], point["is_end"], point["validation"]) == (20, True, None)
    assert (point["published"], point["verdict"]) == (None, None)


def test_each_variant_is_compared_with_the_baseline_on_the_same_pictures(
    activations: Path,
) -> None:
    leaky, swish = summarise_study(activations).to_dict()["comparisons"]
    sides = [
        np.stack([answers(accuracy, seed) for seed, accuracy in enumerate(accuracies)])
        for accuracies in ((0.660, 0.662, 0.667), (0.600, 0.604, 0.608))
    ]
    expected = welch_difference(sides[0], sides[1])
    assert (leaky["variant"], leaky["baseline"], leaky["epoch"]) == ("Leaky ReLU", "ReLU", 20)
    assert leaky["difference"] == pytest.approx(0.059)
    assert (leaky["low"], leaky["high"]) == (expected.low, expected.high)
    assert leaky["p"] == expected.p
    assert leaky["p_holm"] == 2 * expected.p
    assert leaky["mcnemar_p"] == mcnemar_p(sides[0][0], sides[1][0])
    assert leaky["n"] == [3, 3]
    assert leaky["sentence"].startswith("Leaky ReLU is better than ReLU: +5.9 points (")
    assert "correction for 2 comparisons" in leaky["sentence"]
    assert swish["p_holm"] > 0.5
    assert swish["sentence"].startswith("No difference between Swish and ReLU is shown: ")


def test_the_order_of_pictures_in_a_file_does_not_matter(activations: Path) -> None:
    before = summarise_study(activations).to_dict()["comparisons"]
    path = activations / "runs" / "Leaky ReLU,seed=1" / "predictions-test.npz"
    with np.load(path) as file:
        arrays = dict(file)
    order = np.random.default_rng(1).permutation(NUM_PICTURES)
    arrays |= {name: arrays[name][order] for name in ("logits", "labels", "ids")}
    np.savez_compressed(path, **arrays)
    assert summarise_study(activations).to_dict()["comparisons"] == before


def test_what_ends_highest_is_said_first(activations: Path) -> None:
    assert summarise_study(activations).to_dict()["findings"][0] == (
        "Leaky ReLU ends highest, with a test accuracy of 66.3 % (65.4 to 67.2) after 20 epochs, "
        "over 3 seeds."
    )


def test_curves_have_the_mean_and_range_of_the_seeds_that_have_a_value(tmp_path: Path) -> None:
    runs = [
        Made(0, train=(0.4, 0.6, None), validation=(0.5, None, None)),
        Made(1, train=(0.5, math.nan, None), validation=(0.3, None, None)),
        Made(2, train=(0.6,), validation=(0.4,)),
    ]
    (variant,) = summarise_study(make_study(tmp_path / "s", {"ReLU": runs})).to_dict()["variants"]
    curves = variant["curves"]
    assert curves["epoch"] == [1, 2, 3]
    assert curves["train_accuracy"] == {
        "mean": [pytest.approx(0.5), 0.6, None],
        "low": [0.4, 0.6, None],
        "high": [0.6, 0.6, None],
    }
    assert curves["validation_accuracy"]["low"] == [0.3, None, None]
    assert curves["validation_loss"]["mean"] == [None, None, None]
    assert "NaN" not in (tmp_path / "s" / "summary.json").read_text()


def test_milestones_become_points_beside_what_was_published(tmp_path: Path) -> None:
    milestones = [{5: 0.55, 10: 0.621}, {5: 0.56, 10: 0.623}, {5: 0.552, 10: 0.619}]
    runs = [
        Made(seed, accuracy, milestones=scores | {20: 0.1})
        for seed, (accuracy, scores) in enumerate(zip((0.59, 0.585, 0.58), milestones, strict=True))
    ]
    published = {
        "ReLU": [
            {"accuracy": 0.50, "epoch": 5, "source": "a thesis"},
            {"accuracy": 0.62, "epoch": 10, "source": "a thesis"},
            {"accuracy": 0.30, "epoch": 20, "source": "a blog"},
            {"accuracy": 0.6097, "epoch": None, "source": "a thesis", "settings": "source"},
        ]
    }
    folder = make_study(tmp_path / "s", {"ReLU": runs}, published=published)
    summary = summarise_study(folder).to_dict()
    points = summary["variants"][0]["points"]
    assert [(p["epoch"], p["is_end"], p["verdict"]) for p in points] == [
        (5, False, "beaten"),
        (10, False, "met"),
        (20, True, "below"),
    ]
    # The weights at the last epoch are those of the end, whatever the list of milestones says.
    assert points[2]["test"]["values"] == [0.59, 0.585, 0.58]
    assert points[2]["published"] == {
        "accuracy": 0.6097, "source": "a thesis", "settings": "source", "training_mode": False
    }  # fmt: skip
    assert the_finding(summary, "published results") == (
        "Of 3 published results: 1 beaten, 1 met and 1 not reproduced."
    )
    assert story.not_reproduced(read_study(folder)) == (
        "1 of 3 published results did not reproduce: ReLU after 20 epochs, published 60.97 %, "
        "here 58.5 % (57.3 to 59.7)."
    )
    assert the_finding(summary, "peaks") == (
        "ReLU peaks at 62.1 % after 10 epochs and has fallen to 58.5 % after 20: more epochs hurt."
    )


@pytest.mark.parametrize(
    ("published", "verdict"),
    [(0.54, "beaten"), (0.60, "met"), (0.62, "within the interval"), (0.64, "below")],
)
def test_one_seed_is_judged_by_the_interval_over_pictures(
    tmp_path: Path, published: float, verdict: str
) -> None:
    entry = {"accuracy": published, "epoch": None, "source": "x", "settings": "source"}
    folder = make_study(tmp_path / "s", {"ReLU": [Made(0)]}, published={"ReLU": [entry]})
    point = summarise_study(folder).to_dict()["variants"][0]["points"][0]
    low, high = wilson_interval(600, NUM_PICTURES)
    assert (point["test"]["low"], point["test"]["high"]) == (low, high)
    assert (point["test"]["sd"], point["test"]["interval_over"]) == (None, "images")
    assert point["verdict"] == verdict


@pytest.mark.parametrize("settings", [{}, {"settings": "assumed"}, {"settings": "guessed"}])
def test_where_settings_are_assumed_nothing_is_said_not_to_reproduce(
    tmp_path: Path, settings: dict[str, str]
) -> None:
    entry = {"accuracy": 0.64, "epoch": None, "source": "a blog", **settings}
    folder = make_study(tmp_path / "s", {"ReLU": [Made(0)]}, published={"ReLU": [entry]})
    summary = summarise_study(folder).to_dict()
    assert summary["variants"][0]["points"][0]["verdict"] == "lower"
    assert "reproduce" not in " ".join(summary["findings"])
    assert the_finding(summary, "published result") == (
        "Of 1 published result: 1 above ours, settings partly assumed."
    )


@pytest.mark.parametrize(
    ("in_training_mode", "verdict"), [(0.55, "below"), (0.62, "met"), (None, None)]
)
def test_a_result_of_training_mode_is_compared_with_ours_in_that_mode(
    tmp_path: Path, in_training_mode: float | None, verdict: str | None
) -> None:
    entry = {
        "accuracy": 0.62, "epoch": None, "source": "x", "settings": "source", "training_mode": True
    }  # fmt: skip
    folder = make_study(tmp_path / "s", {"ReLU": [Made(0, 0.7)]}, published={"ReLU": [entry]})
    (path,) = folder.rglob("result.json")
    result = read_json(path)
    if in_training_mode is not None:
        result["splits"]["test"]["accuracy_in_training_mode"] = in_training_mode
    write_json(path, result)
    summary = summarise_study(folder).to_dict()
    (point,) = summary["variants"][0]["points"]
    assert point["test"]["mean"] == 0.7
    assert point["verdict"] == verdict
    assert (point["training_mode"] or {}).get("mean") == in_training_mode
    if verdict == "below":
        assert re.search(
            r"here 55.0 % .* in training mode", story.not_reproduced(read_study(folder))
        )


@pytest.mark.parametrize(
    ("end", "sentence"),
    [
        (
            0.609,
            "ReLU peaks at 61.0 % after 10 epochs; that it is at 60.9 % after 20 may be chance.",
        ),
        (0.66, "ReLU is still at its best after 20 epochs, with 66.0 %."),
        (0.40, "61.0 % after 10 epochs and has fallen to 40.0 % after 20 in the one run there is"),
    ],
)
def test_a_single_run_tells_less_of_where_it_peaks(
    tmp_path: Path, end: float, sentence: str
) -> None:
    runs = [Made(0, end, milestones={5: 0.5, 10: 0.61})]
    summary = summarise_study(make_study(tmp_path / "s", {"ReLU": runs})).to_dict()
    assert any(sentence in finding for finding in summary["findings"])


def test_overfitting_is_told_by_variant_the_widest_gap_first(tmp_path: Path) -> None:
    variants = {
        "none": three(0.6, 0.61, train=(0.5, 0.95), validation=(0.5, 0.60)),
        "dropout 0.2": three(0.6, 0.61, train=(0.5, 0.705), validation=(0.5, 0.605)),
        "dropout 0.3": three(0.6, 0.61, train=(0.5, 0.63), validation=(0.5, 0.62)),
        "dropout 0.5": three(0.6, 0.61, train=(0.5, 0.60), validation=(0.5, 0.62)),
        "unknown": three(0.6, 0.61, validation=(None, None)),
    }
    summary = summarise_study(make_study(tmp_path / "s", variants)).to_dict()
    assert the_finding(summary, "Overfitting") == (
        "Overfitting: at the end training accuracy is above validation accuracy by 35.0 points "
        "with none and 10.0 points with dropout 0.2; by less than 5 points with dropout 0.3; "
        "not with dropout 0.5."
    )


def test_a_study_that_was_cut_short_says_what_was_run(tmp_path: Path) -> None:
    diverged = "The loss is not finite at step 12; lower optimizer.lr."
    folder = make_study(
        tmp_path / "s",
        {
            "ReLU": three(0.60, 0.61, 0.62),
            "Swish": [Made(0, 0.7), Made(1, status=diverged)],
            "Tanh": [],
            "GELU": three(0.6, 0.61),
        },
        planned={"Swish": [2], "Tanh": [0]},
        published={"Tanh": [{"accuracy": 0.5, "epoch": None, "source": ""}]},
    )
    # A folder that somebody removed.
    (folder / "runs" / "GELU,seed=1" / "result.json").unlink()
    summary = summarise_study(folder).to_dict()
    assert (summary["planned"], summary["finished"], summary["failed"]) == (9, 5, 1)
    assert summary["failures"] == [{"trial": "Swish,seed=1", "error": diverged}]
    study = read_study(folder)
    assert story.cut_short(study).startswith(
        "This study was cut short: 5 of 9 planned runs are finished, 1 failed and 3 were not run"
    )
    assert story.missing_parts(study) == (
        "Swish: 1 of 3 seeds", "Tanh: no run", "GELU: 1 of 2 seeds"
    )  # fmt: skip
    assert story.failures(study) == (f"Swish,seed=1 failed: {diverged}",)
    tanh = summary["variants"][2]
    assert (tanh["seeds"], tanh["num_parameters"], tanh["curves"]) == ([], None, None)
    assert (tanh["training_seconds"], tanh["recipe"]) == (None, "lenet")
    assert [(p["epoch"], p["test"], p["verdict"]) for p in tanh["points"]] == [(20, None, None)]
    assert tanh["points"][0]["published"]["accuracy"] == 0.5
    assert the_finding(summary, "published") == "Of 1 published result: 1 not measured."
    swish, gelu = summary["comparisons"]
    assert (swish["n"], gelu["n"]) == ([1, 3], [1, 3])
    assert "With 1 against 3 seeds, interval and p leave out" in swish["sentence"]
    assert read_study(folder).was_cut_short


def test_a_study_without_a_finished_run_has_a_summary_too(tmp_path: Path) -> None:
    folder = make_study(tmp_path / "s", {"ReLU": [], "Swish": []}, planned={"ReLU": [0, 1]})
    summary = summarise_study(folder).to_dict()
    assert (summary["planned"], summary["finished"], summary["comparisons"]) == (2, 0, [])
    assert summary["machine"] is None
    assert summary["findings"][-1] == "No run is finished, so there is nothing to compare."
    read_study(folder)


def test_own_pictures_without_a_test_are_judged_by_validation(tmp_path: Path) -> None:
    folder = make_study(
        tmp_path / "s",
        {
            "ReLU": three(0.60, 0.61, split="validation", milestones={10: 0.5}),
            "Swish": three(0.80, 0.81, split="validation", milestones={10: 0.5}),
        },
    )
    summary = summarise_study(folder).to_dict()
    assert "no test split: every result here is of the validation images" in the_finding(
        summary, "no test split"
    )
    point = summary["variants"][1]["points"][-1]
    assert point["test"] is None
    assert point["validation"]["mean"] == pytest.approx(0.805)
    assert summary["comparisons"][0]["difference"] == pytest.approx(0.2)
    assert "a validation accuracy of" in the_finding(summary, "ends highest")


def test_runs_of_other_pictures_are_named(tmp_path: Path) -> None:
    runs = three(0.7, 0.71)
    old = replace(runs[0], checksum="01d")
    folder = make_study(tmp_path / "s", {"ReLU": three(0.6, 0.61), "Swish": [old, *runs[1:]]})
    assert the_finding(summarise_study(folder).to_dict(), "different images").startswith(
        "The runs of Swish saw different images, since their data were changed"
    )


def test_runs_of_other_code_are_named(tmp_path: Path) -> None:
    folder = make_study(tmp_path / "s", {"ReLU": three(0.6, 0.61), "Swish": three(0.7, 0.71)})
    for number, file in enumerate(sorted(folder.glob("runs/Swish*/provenance.json"))):
        made = json.loads(file.read_text())
        made["code"] = {"net.py": "new" if number else "old", "loss.py": "same"}
        file.write_text(json.dumps(made))
    findings = [f for f in summarise_study(folder).to_dict()["findings"] if "version" in f]
    assert findings == [
        "The runs of Swish were made by different versions of net.py; train them again."
    ]


def test_without_a_baseline_nothing_is_compared(tmp_path: Path) -> None:
    variants = {"ReLU": three(0.6, 0.61), "Swish": three(0.7, 0.71)}
    summary = summarise_study(make_study(tmp_path / "s", variants, baseline=None)).to_dict()
    assert (summary["baseline"], summary["comparisons"]) == (None, [])
    assert not any("compare" in finding for finding in summary["findings"])


def test_a_baseline_that_never_ran_is_named(tmp_path: Path) -> None:
    variants = {"ReLU": [], "Swish": three(0.7, 0.71), "Tanh": three(0.7, 0.71)}
    summary = summarise_study(make_study(tmp_path / "s", variants, planned={"ReLU": [0]})).to_dict()
    assert summary["comparisons"] == []
    assert the_finding(summary, "baseline") == (
        "ReLU, the baseline, has no finished run, so nothing is compared."
    )


def test_what_cannot_be_matched_is_left_out_of_the_comparisons_and_named(tmp_path: Path) -> None:
    variants = {
        "ReLU": three(0.6, 0.61),
        "lost": three(0.7, 0.71, predictions=False),
        "elsewhere": three(0.7, 0.71, first_picture=10_000),
        "overlapping": three(0.7, 0.71, first_picture=400),
        "one lost": [Made(0, 0.7), Made(1, 0.7), Made(2, 0.7, predictions=False)],
    }
    summary = summarise_study(make_study(tmp_path / "s", variants)).to_dict()
    assert [c["variant"] for c in summary["comparisons"]] == ["one lost"]
    assert summary["comparisons"][0]["n"] == [2, 2]
    assert the_finding(summary, "can't be compared") == (
        "lost, elsewhere and overlapping can't be compared with ReLU: their runs kept no "
        "predictions of the same test images."
    )


def test_seeds_that_are_not_shared_have_no_mcnemar(tmp_path: Path) -> None:
    variants = {"ReLU": [Made(0), Made(1)], "Swish": [Made(2, 0.7), Made(3, 0.7)]}
    (comparison,) = summarise_study(make_study(tmp_path / "s", variants)).to_dict()["comparisons"]
    assert comparison["mcnemar_p"] is None
    assert comparison["p"] < 0.05


def test_several_machines_are_all_listed(tmp_path: Path) -> None:
    variants = {"ReLU": [Made(0), Made(1, device="cuda"), Made(2)]}
    summary = summarise_study(make_study(tmp_path / "s", variants)).to_dict()
    assert summary["machine"] is None
    assert [machine["device"] for machine in summary["machines"]] == ["cpu", "cuda"]


def test_row_e_what_is_no_study_or_damaged_is_named(tmp_path: Path, activations: Path) -> None:
    with pytest.raises(TenfoldError, match="There is no study in"):
        summarise_study(tmp_path)
    for content in ("[]", '{"trials": 3}', '{"trials": [{"trial": "x"}]}'):
        (tmp_path / "study.json").write_text(content)
        with pytest.raises(TenfoldError, match="is not the plan of a study"):
            summarise_study(tmp_path)
    run = activations / "runs" / "ReLU,seed=0"
    (run / "predictions-test.npz").write_bytes(b"PK")
    with pytest.raises(TenfoldError, match=r"predictions-test.npz can't be read"):
        summarise_study(activations)
    (run / "result.json").write_text("{}")
    assert not (activations / "summary.json").exists()
    assert "result.json: model is missing" in str(summarise_study(activations).failures)
