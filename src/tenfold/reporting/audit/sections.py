"""A section of the page for each question that an audit answers, in plain words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tenfold.audit.store import Finding
from tenfold.reporting.audit import figures
from tenfold.reporting.charts import Chart, Charts
from tenfold.reporting.pictures import png_data_uri
from tenfold.reporting.words import counted, percent, points

HEAT_STRENGTH = 0.75
"""Of the colour over the picture where it mattered the most."""

MAX_SIDE = 96


@dataclass(frozen=True)
class Source:
    """Where a method comes from."""

    words: str
    address: str


@dataclass(frozen=True)
class Shown:
    """Pictures in a row that belong together, with lines of text under them."""

    uris: tuple[str, ...]
    labels: tuple[str, ...]
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Strip:
    """Rows of pictures under a heading, with a sentence on how to read them."""

    heading: str
    caption: str
    items: tuple[Shown, ...]


@dataclass(frozen=True)
class Table:
    """Rows of text under column names; the columns after the first are numbers."""

    heading: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Section:
    """The answer to a question: sentences, charts, tables, pictures, and where to read more."""

    name: str
    question: str
    answer: tuple[str, ...]
    charts: tuple[Chart, ...] = ()
    tables: tuple[Table, ...] = ()
    strips: tuple[Strip, ...] = ()
    sources: tuple[Source, ...] = field(default=())


def view_audit(findings: Mapping[str, Finding], charts: Charts) -> tuple[Section, ...]:
    """A section for each part that was computed, in the order of the questions."""
    views = {
        "calibration": _calibration,
        "explanation": _explanation,
        "errors": _errors,
        "robustness": _robustness,
        "novelty": _novelty,
        "agreement": _agreement,
        "labels": _labels,
    }
    return tuple(
        view(findings[name], charts)
        for name, view in views.items()
        if name in findings and "missing" not in findings[name].values
    )


# -- calibration ---------------------------------------------------------------------------------


def _calibration(finding: Finding, charts: Charts) -> Section:
    values = finding.values
    before, after = values["before"], values.get("after")
    gap = _gap(before["bins"])
    answer = [
        f"As trained, its confidence and its share of right answers differ by "
        f"{points(before['error_width'])} on average: it is "
        f"{'too sure of itself' if gap > 0 else 'surer than it says'}."
        if before["error_width"] >= 0.01
        else "As trained, its confidence is honest: it differs from its share of right answers by "
        f"{points(before['error_width'])} on average."
    ]
    tables = [
        Table(
            "In figures",
            ("", "as trained", *(("with temperature",) if after else ())),
            tuple(
                (name, *(form(each[key]) for each in (before, after) if each))
                for name, key, form in (
                    ("calibration error, bins of equal width", "error_width", _two_digits),
                    ("calibration error, bins of as many pictures", "error_mass", _two_digits),
                    ("Brier score, 0 is perfect", "brier", _decimal),
                    ("loss", "loss", _decimal),
                )
            ),
        )
    ]
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
        answer += [_threshold_words(each) for each in values["thresholds"]]
        drawn.append(
            charts.chart(
                "If it may decline to answer",
                figures.selective(values["selective"]),
                "The fewer pictures it must answer, the more of its answers are right. The right "
                "end is all pictures.",
            )
        )
        tables.append(
            Table(
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
                    for each in values["sets"]
                ),
            )
        )
    return Section(
        "calibration",
        "When it is sure, is it right?",
        tuple(answer),
        tuple(drawn),
        tuple(tables),
        sources=(
            Source("Guo et al. 2017, temperature", "https://arxiv.org/abs/1706.04599"),
            Source("Sadinle et al. 2019, sets", "https://arxiv.org/abs/1609.00451"),
        ),
    )


def _gap(bins: Sequence[Mapping[str, Any]]) -> float:
    """Mean confidence less accuracy."""
    total = sum(each["num_images"] for each in bins)
    return sum((e["confidence"] - e["accuracy"]) * e["num_images"] for e in bins) / total


def _threshold_words(threshold: Mapping[str, Any]) -> str:
    asked = percent(threshold["accuracy"], digits=0)
    if threshold["confidence"] > 1:
        return f"No confidence is high enough for {asked} of its answers to be right."
    return (
        f"For {asked} right answers, take those of a confidence of "
        f"{percent(threshold['confidence'])} and more: {percent(threshold['coverage'])} of the "
        f"pictures, of which {percent(threshold['reached'])} were right."
    )


# -- explanation ---------------------------------------------------------------------------------

_METHODS = {
    "grad-cam": "Grad-CAM",
    "integrated-gradients": "integrated gradients",
    "occlusion": "occlusion",
}


def _explanation(finding: Finding, charts: Charts) -> Section:
    values, arrays = finding.values, finding.arrays
    methods = [name for name in _METHODS if name in arrays]
    items = []
    for index, picture in enumerate(values["pictures"]):
        pixels = arrays["pixels"][index]
        uris = [_uri(pixels), *(_uri(heated(pixels, arrays[name][index])) for name in methods)]
        alike = list(zip(arrays["neighbours"][index], picture["neighbours"], strict=True))[:3]
        items.append(
            Shown(
                (*uris, *(_uri(other) for other, _ in alike)),
                (
                    "picture",
                    *(_METHODS[name] for name in methods),
                    *(f"alike: {label}" for _, label in alike),
                ),
                (_said_of(picture),),
            )
        )
    checks = values["checks"]
    answer = [
        "Red is what spoke for its answer. The three pictures at the end are those from training "
        "that look most alike to it, with their classes."
    ]
    if checks:
        answer.append(
            "Would the maps look the same if it had learnt nothing? With shuffled weights they "
            "agree with these by "
            + ", ".join(f"{value:.2f} ({_METHODS[name]})" for name, value in checks.items())
            + "; 1 would mean that they show the picture and not the network, 0 that they have "
            "nothing in common."
        )
    if "grad-cam" not in arrays:
        answer.append("A dense network has no sense of place, so there is no map from within it.")
    strips = [
        Strip("Where it looked", "From left to right in each row.", tuple(items)),
    ]
    if "filters" in arrays:
        strips.append(
            Strip(
                "Its first filters",
                "What the first layer looks for in every corner of a picture: edges and colours.",
                (Shown((_uri(_sheet(arrays["filters"])),), ("first filters",), ()),),
            )
        )
    if values["layers"]:
        layers = [
            Shown(
                tuple(_uri(_grey(maps)) for maps in arrays[f"layer{number}"]),
                tuple(f"{name}, map {i + 1}" for i in range(len(arrays[f"layer{number}"]))),
                (name,),
            )
            for number, name in enumerate(values["layers"])
        ]
        strips.append(
            Strip(
                "What its layers see in the first of these pictures",
                "Bright is a strong answer. The deeper the layer, the coarser and the more about "
                "things than about edges. Of each layer the maps that vary the most are shown.",
                tuple(layers),
            )
        )
    return Section(
        "explanation",
        "Where does it look?",
        tuple(answer),
        strips=tuple(strips),
        sources=(
            Source("Selvaraju et al. 2017, Grad-CAM", "https://arxiv.org/abs/1610.02391"),
            Source("Sundararajan et al. 2017, integrated gradients", "https://arxiv.org/abs/1703.01365"),
            Source("Adebayo et al. 2018, the check", "https://arxiv.org/abs/1810.03292"),
        ),
    )  # fmt: skip


def _said_of(picture: Mapping[str, Any]) -> str:
    truth = f"is {picture['true']}, " if picture["true"] else ""
    sure = percent(picture["confidence"], digits=0)
    return f"{picture['kind']}: {truth}called {picture['guess']} ({sure})"


def heated(pixels: NDArray[np.uint8], values: NDArray[Any]) -> NDArray[np.uint8]:
    """The picture, greyed, with red where a map `(H, W)` is high."""
    strength = np.abs(values.astype(np.float32))
    highest = float(np.percentile(strength, 99))
    share = np.clip(strength / highest, 0, 1)[..., None] if highest > 0 else strength[..., None] * 0
    grey = (pixels @ np.array([0.299, 0.587, 0.114], dtype=np.float32))[..., None]
    grey = np.repeat(0.75 * grey + 40, 3, axis=2)
    red = np.array([235, 40, 30], dtype=np.float32)
    mixed = grey * (1 - HEAT_STRENGTH * share) + red * HEAT_STRENGTH * share
    return np.asarray(np.clip(mixed, 0, 255), dtype=np.uint8)


def _grey(maps: NDArray[Any]) -> NDArray[np.uint8]:
    values = maps.astype(np.float32)
    low, high = float(values.min()), float(values.max())
    scaled = (values - low) / (high - low) * 255 if high > low else values * 0
    return np.repeat(scaled.astype(np.uint8)[..., None], 3, axis=2)


def _sheet(filters: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Filters side by side, with lines of background between them, at most 16 in a row."""
    number, height, width = filters.shape[:3]
    across = min(number, 16)
    rows = -(-number // across)
    sheet = np.full((rows * (height + 1) + 1, across * (width + 1) + 1, 3), 128, dtype=np.uint8)
    for index, picture in enumerate(filters):
        row, column = divmod(index, across)
        top, left = row * (height + 1) + 1, column * (width + 1) + 1
        sheet[top : top + height, left : left + width] = picture
    return sheet


# -- errors --------------------------------------------------------------------------------------


def _errors(finding: Finding, charts: Charts) -> Section:
    values, arrays = finding.values, finding.arrays
    if not values["groups"]:
        answer = ("It made next to no mistakes, so there is nothing to group.",)
        return Section("errors", "What do its mistakes have in common?", answer)
    items = []
    for number, group in enumerate(values["groups"]):
        pairs = "; ".join(f"{true} called {guess} ({n})" for true, guess, n in group["pairs"])
        items.append(
            Shown(
                tuple(_uri(picture) for picture in arrays[f"group{number}"]),
                tuple(f"{each['true']}, called {each['guess']}" for each in group["pictures"]),
                (f"{counted(group['num_images'], 'mistake')}, mostly {pairs}",),
            )
        )
    return Section(
        "errors",
        "What do its mistakes have in common?",
        (
            f"Its {counted(values['num_wrong'], 'mistake')} on the {values['split']} pictures, "
            "sorted into groups of pictures that look alike to the network. A group with one "
            "cause, such as a pose or a background, is where more pictures would help the most.",
        ),
        strips=(Strip("Groups of mistakes", "The most typical of each group.", tuple(items)),),
        sources=(
            Source("k-means on features, scikit-learn",
                   "https://scikit-learn.org/stable/modules/clustering.html#k-means"),
        ),
    )  # fmt: skip


# -- robustness ----------------------------------------------------------------------------------


def _robustness(finding: Finding, charts: Charts) -> Section:
    values, arrays = finding.values, finding.arrays
    results, clean = values["corruptions"], values["clean"]
    worst = min(results, key=lambda result: sum(result["accuracies"]))
    best = max(results, key=lambda result: sum(result["accuracies"]))
    attacks = {(each["method"], round(each["limit"] * 255)): each for each in values["attacks"]}
    pgd = attacks[("PGD", 8)]["accuracy"]
    answer = (
        f"Of {counted(values['num_images'], 'picture')} it gets {percent(clean)} right as they "
        f"are, and {percent(values['mean'])} on average over fifteen kinds of damage. The worst is "
        f"{_plain(worst)} ({percent(sum(worst['accuracies']) / 5)}), the mildest {_plain(best)} "
        f"({percent(sum(best['accuracies']) / 5)}).",
        f"Moved by one pixel up, down, left and right, "
        f"{percent(values['shift_consistency'])} of the pictures keep their answer.",
        f"Changes that nobody sees, made to mislead it, leave {percent(pgd)} right at 8 of 255 "
        "steps of brightness"
        + (": like any network that was not trained against it, it can be fooled at will."
           if pgd < 0.1 else "."),
    )  # fmt: skip
    items = tuple(
        Shown(
            (_uri(arrays["example"][0]), *(_uri(each) for each in arrays["corrupted"][number])),
            ("as it is", "severity 1", "severity 3", "severity 5"),
            (_plain(result),),
        )
        for number, result in enumerate(results)
    )
    return Section(
        "robustness",
        "What if a picture is not perfect?",
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
        (Strip("What was done to the pictures", "As it is, and at severity 1, 3 and 5.", items),),
        (
            Source("Hendrycks and Dietterich 2019", "https://arxiv.org/abs/1903.12261"),
            Source("Madry et al. 2018, PGD", "https://arxiv.org/abs/1706.06083"),
        ),
    )


def _plain(result: Mapping[str, Any]) -> str:
    return str(result["corruption"]).replace("_", " ").replace("jpeg", "JPEG")


# -- novelty -------------------------------------------------------------------------------------


def _novelty(finding: Finding, charts: Charts) -> Section:
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
        Shown(tuple(_uri(each) for each in pixels), tuple(name for _ in pixels), (name,))
        for name, pixels in arrays.items()
    )
    return Section(
        "novelty",
        "Does it notice what it does not know?",
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
        ),
    )


# -- agreement -----------------------------------------------------------------------------------


def _agreement(finding: Finding, charts: Charts) -> Section:
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
                    (_uri(arrays[kind][number]),),
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
        "agreement",
        "Does it see what people see?",
        answer,
        strips=strips,
        sources=(Source("Peterson et al. 2019, CIFAR-10H", "https://arxiv.org/abs/1908.07086"),),
    )


# -- labels --------------------------------------------------------------------------------------


def _labels(finding: Finding, charts: Charts) -> Section:
    values, arrays = finding.values, finding.arrays
    items = tuple(
        Shown(
            (_uri(arrays["first"][number]),),
            (case["given"],),
            (f"labelled {case['given']}", f"perhaps {case['suggested']}"),
        )
        for number, case in enumerate(values["first"])
    )
    return Section(
        "labels",
        "Are the labels right?",
        (
            f"Of the {counted(values['num_images'], values['split'] + ' picture')}, "
            f"{counted(values['num_likely'], 'label')} contradict what the model is sure of. Some "
            "are wrong, some are its own mistakes: look before you change any. All pictures, the "
            "most doubtful first, stand in audit/labels.csv.",
        ),
        strips=(Strip("The most doubtful labels", "Judge for yourself.", items),),
        sources=(Source("Northcutt et al. 2021", "https://arxiv.org/abs/1911.00068"),),
    )


# -- what they share -----------------------------------------------------------------------------


def _uri(pixels: NDArray[np.uint8]) -> str:
    if max(pixels.shape[:2]) > MAX_SIDE:
        step = -(-max(pixels.shape[:2]) // MAX_SIDE)
        pixels = pixels[::step, ::step]
    return png_data_uri(np.ascontiguousarray(pixels))


def _two_digits(share: float) -> str:
    return percent(share, digits=2)


def _decimal(value: float) -> str:
    return f"{value:.3f}"
