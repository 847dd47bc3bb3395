"""The sections about numbers: confidence, damage, strange pictures, people, labels."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from tenfold.audit.store import Finding
from tenfold.data.encoding import png_data_uri
from tenfold.errors import counted
from tenfold.evaluation.thresholds import CERTAINTY, why_not_promised
from tenfold.formatting import interval, percent, plain, points
from tenfold.reporting.audit import figures
from tenfold.reporting.audit.section import Section, Shown, Source, Strip, Table
from tenfold.reporting.charts import Chart, Charts
from tenfold.reporting.pictures import picture_uri


def calibration(finding: Finding, charts: Charts) -> Section:
    """How far its confidence can be trusted, and thresholds and sets from it."""
    values = finding.values
    before, after = values["before"], values.get("after")
    gap = _gap(before["bins"])
    answer = [
        f"As trained, its confidence and its share of right answers differ by "
        f"{points(before['error_width'])} on average: it is "
        f"{'too sure of itself' if gap > 0 else 'right more often than it says'}."
        if before["error_width"] >= 0.01
        else "As trained, its confidence is honest: it differs from its share of right answers by "
        f"{points(before['error_width'])} on average."
    ]
    tables = [_calibration_table(before, after)]
    drawn = [
        charts.chart(
            "Is it as sure as it is right?",
            figures.reliability(before["bins"], after["bins"] if after else ()),
            "Each dot holds answers of similar confidence. Below the dotted line it promises too "
            "much, above it too little.",
        )
    ]
    if "unfitted" in values:
        answer.append(values["unfitted"])
    else:
        assert after is not None
        answer.append(
            "Dividing what it computes by one number, the temperature "
            f"{values['temperature']:.2f}, fitted on "
            f"{counted(values['num_validation'], 'validation picture')}, brings that to "
            f"{points(after['error_width'])}, and changes no answer."
        )
        answer += [threshold_words(each, values["split"]) for each in values["thresholds"]]
        answer += reused(values)
        drawn.append(
            charts.chart(
                "If it may decline to answer",
                figures.selective(values["selective"]),
                "The fewer pictures it must answer, the more of its answers are right. The right "
                "end is all pictures.",
            )
        )
        tables.append(_sets_table(values["sets"]))
    return Section(
        tuple(answer),
        tuple(drawn),
        tuple(tables),
        sources=(
            Source("Naeini et al. 2015, calibration error",
                   "https://ojs.aaai.org/index.php/AAAI/article/view/9602"),
            Source("Brier 1950, Brier score",
                   "https://doi.org/10.1175/1520-0493(1950)078%3C0001:VOFEIT%3E2.0.CO;2"),
            Source("Guo et al. 2017, temperature", "https://arxiv.org/abs/1706.04599"),
            Source("Clarté et al. 2023, how it is fitted", "https://arxiv.org/abs/2303.02644"),
            Source("Sadinle et al. 2019, sets", "https://arxiv.org/abs/1609.00451"),
        ),
    )  # fmt: skip


def _calibration_table(before: Mapping[str, Any], after: Mapping[str, Any] | None) -> Table:
    """The measures of calibration, as trained and with temperature where one was fitted."""
    measures = (
        ("calibration error, bins of equal width", "error_width", _two_digits),
        ("calibration error, bins of as many pictures", "error_mass", _two_digits),
        ("Brier score, 0 is perfect", "brier", _decimal),
        ("loss", "loss", _decimal),
    )
    return Table(
        "In figures",
        ("", "as trained", *(("with temperature",) if after else ())),
        tuple(
            (name, *(form(each[key]) for each in (before, after) if each))
            for name, key, form in measures
        ),
    )


def _sets_table(sets: Sequence[Mapping[str, Any]]) -> Table:
    """What sets of classes with a promised coverage do."""
    return Table(
        "Answers with several classes, that hold the right one as often as promised",
        ("promised", "held it", "classes on average", "just one", "none"),
        tuple(
            (
                percent(each["promised"], digits=0),
                percent(each["coverage"]),
                f"{each['mean_size']:.2f}",
                percent(each["single"]),
                percent(each["empty"]),
            )
            for each in sets
        ),
    )


def _gap(bins: Sequence[Mapping[str, Any]]) -> float:
    """Mean confidence less accuracy."""
    total = sum(each["num_images"] for each in bins)
    return float(sum((e["confidence"] - e["accuracy"]) * e["num_images"] for e in bins) / total)


def reused(values: Mapping[str, Any]) -> list[str]:
    """A sentence where what was fitted on the validation images isn't all that went by them."""
    if not values.get("chosen_by"):
        return []
    return [
        f"The same validation images chose {values['chosen_by']}, so temperature, thresholds and "
        "sets may promise a little too much; what they reached on other images counts."
    ]


def threshold_words(threshold: Mapping[str, Any], split: str) -> str:
    """What a threshold promises, and what it came to on the pictures of `split`."""
    if threshold["confidence"] > 1:
        return why_not_promised(threshold["accuracy"], threshold["num_images"])
    return (
        f"For {percent(threshold['accuracy'], digits=0)} right answers, let it decline below a "
        f"confidence of {percent(threshold['confidence'])}, as "
        f"{counted(threshold['num_images'], 'validation image')} promise with "
        f"{percent(CERTAINTY, digits=0)} certainty: "
        + (
            f"it then answered {percent(threshold['coverage'])} of the {split} pictures, and "
            f"{percent(threshold['reached'])} of the answers were right."
            if threshold["coverage"]
            else f"none of the {split} pictures has it."
        )
    )


# -- robustness ----------------------------------------------------------------------------------


def robustness(finding: Finding, charts: Charts) -> Section:
    """What damage, a shift and attacks leave of the accuracy."""
    values, arrays = finding.values, finding.arrays
    results, clean = values["corruptions"], values["clean"]
    worst = min(results, key=lambda result: sum(result["accuracies"]))
    best = max(results, key=lambda result: sum(result["accuracies"]))
    attacks = {(each["method"], round(each["limit"] * 255)): each for each in values["attacks"]}
    pgd = attacks[("PGD", 8)]["accuracy"]
    which = " (the published files of CIFAR-10-C)" if values["official"] else ""
    answer: tuple[str, ...] = (
        f"Of {counted(values['num_images'], 'picture')}{which} it gets {percent(clean)} right as "
        f"they are, and {percent(values['mean'])} on average over fifteen kinds of damage. The "
        f"worst is {plain(worst['corruption'])} ({percent(sum(worst['accuracies']) / 5)}), "
        f"the mildest {plain(best['corruption'])} ({percent(sum(best['accuracies']) / 5)}).",
        f"Moved by one pixel up, down, left and right, {percent(values['shift_consistency'])} of "
        f"{counted(values['num_shifted'], 'picture')} keep their answer.",
        "Small changes, made to mislead it, leave "
        f"{percent(pgd)} of {counted(values['num_attacked'], 'picture')} right at 8 of 255 steps "
        "of brightness, where it looks at each once"
        + (": like any network that was not trained against it, it can be fooled at will."
           if pgd < 0.1 else "."),
    )  # fmt: skip
    if values["side"] > 32:
        answer += (
            "The damage was defined for pictures of 32 pixels; on these, of "
            f"{values['side']}, blur and shifts look milder than they would there.",
        )
    items = tuple(
        Shown(
            tuple(
                picture_uri(each) for each in (arrays["example"][0], *arrays["corrupted"][number])
            ),
            ("as it is", "severity 1", "severity 3", "severity 5"),
            (plain(result["corruption"]),),
        )
        for number, result in enumerate(results)
    )
    return Section(
        answer,
        (
            charts.chart(
                "The more damage, the fewer right answers",
                figures.corruptions(results, clean=clean),
                "Each line is the mean of a family: noise, blur, weather, and what is done to "
                "files. Severity 5 is hard for people too.",
            ),
            charts.chart(
                "Each kind of damage",
                figures.by_corruption(results, clean=clean),
                "Right answers per 100, on average over five severities. The dotted line is "
                "without damage.",
            ),
        ),
        (
            Table(
                "Pictures changed so as to mislead it",
                ("method", "at most 2 of 255", "at most 8 of 255"),
                tuple(
                    (name, *(percent(attacks[(name, limit)]["accuracy"]) for limit in (2, 8)))
                    for name in ("FGSM", "PGD")
                ),
            ),
        ),
        (
            Strip("What was done to the pictures", "As it is, and at severity 1, 3 and 5.", items),
            *_flips(finding),
        ),
        (
            Source("Hendrycks and Dietterich 2019", "https://arxiv.org/abs/1903.12261"),
            Source("Zhang 2019, shifts", "https://arxiv.org/abs/1904.11486"),
            Source("Goodfellow et al. 2015, FGSM", "https://arxiv.org/abs/1412.6572"),
            Source("Madry et al. 2018, PGD", "https://arxiv.org/abs/1706.06083"),
        ),
    )


def _flips(finding: Finding) -> tuple[Strip, ...]:
    """Pictures that a move by one pixel makes into something else, if there are any."""
    arrays = finding.arrays
    items = tuple(
        Shown(
            (picture_uri(arrays["flipped"][number]), picture_uri(arrays["moved"][number])),
            (f"as it is: {each['before']}", f"moved {each['direction']}: {each['after']}"),
            (
                f"is {each['true']}, called {each['before']}; moved {each['direction']}: "
                f"{each['after']}",
                each["id"],
            ),
        )
        for number, each in enumerate(finding.values["flips"])
    )
    if not items:
        return ()
    caption = (
        "The first of those whose answer changes, as they are and moved by one pixel. To us both "
        "look the same; to the network nearly every number is another one."
    )
    return (Strip("What one pixel changes", caption, items),)


# -- new pictures --------------------------------------------------------------------------------


def new_pictures(finding: Finding, charts: Charts) -> Section:
    """Accuracy on CIFAR-10.1 beside that on the test set."""
    values = finding.values
    lost = values["test_accuracy"] - values["accuracy"]
    beside = (
        f"{points(lost)} less than on the test set" if lost > 0 else "no less than on the test set"
    )
    return Section(
        (
            f"On {counted(values['num_images'], 'new picture')}, chosen years later as the test "
            f"set was (CIFAR-10.1), it gets {percent(values['accuracy'])} right (95 % interval "
            f"{interval(*values['accuracy_interval'])}), {beside}. Models of their time lost 4 to "
            "10 points: the new pictures are a little harder, and a test set that everybody has "
            "looked at for years flatters.",
        ),
        sources=(Source("Recht et al. 2018, CIFAR-10.1", "https://arxiv.org/abs/1806.00451"),),
    )


# -- novelty -------------------------------------------------------------------------------------


def novelty(finding: Finding, charts: Charts) -> Section:
    """How well pictures of other things are told from known ones."""
    values, arrays = finding.values, finding.arrays
    results = values["results"]
    means = {
        entry["score"]: np.mean([rows[i]["auroc"] for rows in results.values()])
        for i, entry in enumerate(next(iter(results.values())))
    }
    best = max(means, key=lambda score: means[score])
    hardest = min(results, key=lambda kind: results[kind][0]["auroc"])
    confident = results[hardest][0]
    answer = (
        "It knows its classes and nothing else, and gives every picture one of their names. Is it "
        "at least less sure of strange ones? Of two pictures, one known and one strange, it is "
        f"surer of the known one in {percent(confident['auroc'], digits=0)} of the cases, where "
        f"that is hardest for it ({hardest}).",
        f"{best.capitalize()} tells them apart best here, by {percent(means[best], digits=0)} on "
        "average. 50 % would be guessing.",
    )
    passing = Table(
        "Strange pictures that pass as known, where 95 % of the known ones do",
        ("", *(entry["score"] for entry in next(iter(results.values())))),
        tuple(
            (kind, *(percent(entry["fpr95"], digits=0) for entry in rows))
            for kind, rows in results.items()
        ),
    )
    items = tuple(
        Shown(tuple(picture_uri(each) for each in pixels), tuple(name for _ in pixels), (name,))
        for name, pixels in arrays.items()
    )
    return Section(
        answer,
        (
            charts.chart(
                "How well strange pictures are told from known ones",
                figures.novelty(results),
                "The share of pairs in which the known picture has the higher score. The dotted "
                "line is guessing.",
            ),
        ),
        (passing,),
        (Strip("Some of the strange pictures", "It has seen nothing like them.", items),),
        (
            Source("Hendrycks and Gimpel 2017", "https://arxiv.org/abs/1610.02136"),
            Source("Liu et al. 2020, energy", "https://arxiv.org/abs/2010.03759"),
            Source("Sun et al. 2022, neighbours", "https://arxiv.org/abs/2204.06507"),
            Source("Lee et al. 2018, Mahalanobis", "https://arxiv.org/abs/1807.03888"),
            Source("Mueller and Hein 2025, the same", "https://arxiv.org/abs/2505.18032"),
        ),
    )


# -- agreement -----------------------------------------------------------------------------------


def agreement(finding: Finding, charts: Charts) -> Section:
    """Its answers beside people's."""
    values, arrays = finding.values, finding.arrays
    shares = {
        name: percent(values[name], digits=0 if name == "second_best" else 1)
        for name in ("human_accuracy", "majority_accuracy", "majority", "second_best")
    }
    answer = (
        "Some fifty people said what they see on each test picture. "
        f"{shares['human_accuracy']} of their answers are right; what most of them say is right "
        f"for {shares['majority_accuracy']} of the pictures. The model says what most people say "
        f"for {shares['majority']}.",
        "Where people are not of one mind, its second guess is theirs for "
        f"{shares['second_best']} of the pictures. How unsure it is goes with how unsure they are "
        f"by {values['entropy_correlation']:.2f}; 1 would be the same order of pictures, 0 none.",
        f"Its loss against people's answers is {values['soft_cross_entropy']:.3f}; people "
        f"themselves would have {values['floor']:.3f}.",
    )
    strips = tuple(
        Strip(
            heading,
            caption,
            tuple(
                Shown(
                    (picture_uri(arrays[kind][number]),),
                    (case["true"],),
                    (
                        f"is {case['true']}, called {case['model']}",
                        "people: "
                        + ", ".join(
                            f"{name} {percent(share, digits=0)}"
                            for name, share in case["people"]
                            if share > 0
                        ),
                    ),
                )
                for number, case in enumerate(values[kind])
            ),
        )
        for kind, heading, caption in (
            ("model_alone", "Easy for people, hard for it", "People agree, and it is unsure."),
            ("people_alone", "Hard for people, easy for it", "It is sure, and people are not."),
        )
    )
    return Section(
        answer,
        strips=strips,
        sources=(Source("Peterson et al. 2019, CIFAR-10H", "https://arxiv.org/abs/1908.07086"),),
    )


# -- labels --------------------------------------------------------------------------------------


def labels(finding: Finding, charts: Charts) -> Section:
    """The labels that it doubts the most."""
    values, arrays = finding.values, finding.arrays
    items = tuple(
        Shown(
            (picture_uri(arrays["first"][number]),),
            (case["given"],),
            (f"labelled {case['given']}", f"perhaps {case['suggested']}"),
        )
        for number, case in enumerate(values["first"])
    )
    known: tuple[str, ...] = ()
    if values["known"]:
        found = values["known"]
        known = (
            f"Of the {found['num_known']} labels that people have found to be wrong in this set, "
            f"{percent(found['found_in'], digits=0)} are among its first "
            f"{percent(found['share'], digits=0)}.",
        )
    return Section(
        (
            f"Of the {counted(values['num_judged'], values['split'] + ' picture')} whose label can "
            "be judged, "
            f"{counted(values['num_likely'], 'label')} contradict what the model is sure of. Some "
            "are wrong, some are its own mistakes: look before you change any. All pictures, the "
            "most doubtful first, stand in audit/labels.csv.",
            *known,
        ),
        strips=(Strip("The most doubtful labels", "Judge for yourself.", items),),
        sources=(Source("Northcutt et al. 2021", "https://arxiv.org/abs/1911.00068"),),
    )


# -- numbers ---------------------------------------------------------------------------------------


def _two_digits(share: float) -> str:
    return percent(share, digits=2)


def _decimal(value: float) -> str:
    return f"{value:.3f}"


# -- questions of one's own ----------------------------------------------------------------------


def own(finding: Finding, charts: Charts) -> Section:
    """A table of what somebody's own question found, and its figure."""
    rows = finding.values["rows"]
    columns = tuple(rows[0])
    table = Table("", columns, tuple(tuple(_cell(row.get(c, "")) for c in columns) for row in rows))
    drawn: tuple[Chart, ...] = ()
    if "figure" in finding.arrays:
        uri = png_data_uri(finding.arrays["figure"])
        drawn = (Chart("", Markup('<img src="{}" alt="">').format(uri), ""),)
    return Section((f"As {finding.values['own']} measures it.",), drawn, (table,))


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
