"""What each part of an audit computes: plain values for the page, and pictures to go with them."""

from typing import TYPE_CHECKING, Any

import numpy as np

from tenfold.audit.store import Arrays, Finding
from tenfold.audit.subject import Subject
from tenfold.errors import TenfoldError
from tenfold.evaluation import agreement as people
from tenfold.evaluation import calibration as calibrating
from tenfold.evaluation import label_issues
from tenfold.evaluation import novelty as novel
from tenfold.evaluation import robustness as robust
from tenfold.evaluation.corruptions import FAMILIES, corrupt
from tenfold.evaluation.metrics import cross_entropy, wilson_interval
from tenfold.evaluation.new_test_set import load_new_test_set
from tenfold.evaluation.predictions import Predictions, map_labels
from tenfold.evaluation.submissions import table_text
from tenfold.explain import features_before_head

if TYPE_CHECKING:
    from tenfold.audit.auditing import AuditOptions

ATTACKED_SHARE = 0.5
"""Of the pictures that are corrupted; an attack takes some thirty passes for each."""

NUM_DOUBTFUL = 24
"""Pictures with a doubtful label that are kept to be shown."""


def calibration(subject: Subject, options: "AuditOptions") -> Finding:
    """How far confidence can be trusted, before and after a temperature fitted on validation."""
    measured = subject.measured_predictions()
    values: dict[str, Any] = {"split": subject.split, "before": _trust(measured)}
    validation = subject.predictions("validation") if subject.split == "test" else None
    if validation is None:
        values["unfitted"] = (
            "There are no validation pictures besides those it is measured on, so no temperature, "
            "threshold or set could be fitted; train with data.validation_size to have some."
        )
        return Finding(values, {})
    try:
        fitted = calibrating.fit(validation)
    except TenfoldError as error:
        values["unfitted"] = str(error)
        return Finding(values, {})
    after = calibrating.with_temperature(measured, fitted.temperature)
    values |= {
        "num_validation": fitted.num_images,
        "temperature": fitted.temperature,
        "after": _trust(after),
        "thresholds": [
            calibrating.apply_threshold(after, each)._asdict() for each in fitted.thresholds
        ],
        "selective": [list(point) for point in calibrating.selective_curve(after)],
        "sets": [
            calibrating.apply_sets(after, promised, least)._asdict()
            for promised, least in fitted.sets
        ],
    }
    return Finding(values, {})


def _trust(predictions: Predictions) -> dict[str, Any]:
    return {
        "error_width": calibrating.calibration_error(predictions),
        "error_mass": calibrating.calibration_error(predictions, binning="mass"),
        "brier": calibrating.brier_score(predictions),
        "loss": cross_entropy(predictions),
        "bins": [each._asdict() for each in calibrating.reliability(predictions)],
    }


def robustness(subject: Subject, options: "AuditOptions") -> Finding:
    """What is left of the accuracy on corrupted, shifted and attacked pictures."""
    images = subject.sample(subject.measured, options.pictures)
    attacked = subject.sample(images, max(round(options.pictures * ATTACKED_SHARE), 1))
    clean = subject.model.logits(images.pixels).argmax(axis=1)
    labels = map_labels(images, subject.model.class_names)
    results = list(
        robust.corruption_accuracies(
            subject.model,
            images,
            official=options.corrupted,
            seed=options.seed,
            progress=subject.progress,
        )
    )
    example = images.pixels[:1]
    shown = [
        np.concatenate([corrupt(example, name, severity=s, seed=options.seed) for s in (1, 3, 5)])
        for names in FAMILIES.values()
        for name in names
    ]
    values = {
        "split": subject.split,
        "num_images": len(images),
        "official": options.corrupted is not None,
        "clean": float((clean == labels).mean()),
        "corruptions": [result._asdict() for result in results],
        "mean": float(np.mean([result.accuracies for result in results])),
        "shift_consistency": robust.shift_consistency(
            subject.model, images, progress=subject.progress
        ),
        "attacks": [
            result._asdict()
            for result in robust.attack_accuracies(
                subject.model, attacked, seed=options.seed, progress=subject.progress
            )
        ],
        "num_attacked": len(attacked),
    }
    if subject.dataset.name == "cifar10" and subject.split == "test":
        values["new_test_set"] = _on_new_pictures(subject, options)
    arrays: Arrays = {"example": example, "corrupted": np.stack(shown)}
    return Finding(values, arrays)


def _on_new_pictures(subject: Subject, options: "AuditOptions") -> dict[str, Any]:
    """Accuracy on CIFAR-10.1 beside that on the test set, or why it is not known."""
    try:
        images = load_new_test_set(options.new_test_set, progress=subject.progress)
    except TenfoldError as error:
        if options.new_test_set is not None:
            raise
        return {"missing": str(error)}
    guesses = subject.model.logits(images.pixels).argmax(axis=1)
    right = guesses == map_labels(images, subject.model.class_names)
    known = subject.measured_predictions()
    return {
        "num_images": len(images),
        "accuracy": float(right.mean()),
        "accuracy_interval": list(wilson_interval(int(right.sum()), len(right))),
        "test_accuracy": float((known.logits.argmax(axis=1) == known.labels).mean()),
    }


def novelty(subject: Subject, options: "AuditOptions") -> Finding:
    """Whether it notices pictures of nothing that it knows."""
    size, number = subject.model.image_size, options.pictures
    strange = {
        "noise": novel.noise(number, size, seed=options.seed),
        "textures": novel.textures(number, size, seed=options.seed),
    } | _other_pictures(subject, number)
    scores = novel.scores_of(subject.known_features, subject.known_labels)
    indices = subject.drawn(len(subject.measured), number)
    familiar = novel.Seen(subject.measured_predictions().logits[indices], subject.features[indices])
    results: dict[str, list[dict[str, Any]]] = {}
    arrays: Arrays = {}
    for name, pixels in strange.items():
        seen = _seen(subject, pixels)
        results[name] = [
            novel.compare(label, score(familiar), score(seen))._asdict()
            for label, score in scores.items()
        ]
        arrays[name.replace(" ", "_")] = pixels[:6]
    return Finding({"num_images": len(indices), "split": subject.split, "results": results}, arrays)


def _other_pictures(subject: Subject, number: int) -> dict[str, Any]:
    """Data sets that can be had here without waiting, at the model's size."""
    from tenfold.data import load
    from tenfold.data.sources import get

    height, width = subject.model.image_size
    found = {}
    if subject.dataset.name != "digits" and height == width:
        found["digits"] = subject.sample(load("digits", image_size=height).train, number).pixels
    if subject.dataset.name != "cifar100" and (height, width) == (32, 32):
        try:
            others = get("cifar100", offline=True).test
        except TenfoldError:
            others = None
        if others is not None:
            known = set(subject.model.class_names)
            strange = np.array([name not in known for name in others.class_names])
            keep = np.flatnonzero(strange[others.labels]).astype(np.int64)
            found["CIFAR-100"] = subject.sample(others.take(keep), number).pixels
    return found


def _seen(subject: Subject, pixels: Any) -> novel.Seen:
    return novel.Seen(
        subject.model.logits(pixels),
        features_before_head(subject.model, pixels, progress=subject.progress),
    )


def agreement(subject: Subject, options: "AuditOptions") -> Finding:
    """The model beside people, for CIFAR-10."""
    if subject.dataset.name != "cifar10" or subject.split != "test":
        return _missing("People's answers are known for the test pictures of CIFAR-10 alone.")
    try:
        answers = people.load_answers(options.human, progress=subject.progress)
        found = people.compare_with_people(subject.measured_predictions(), answers)
    except TenfoldError as error:
        if options.human is not None:
            raise
        return _missing(str(error))
    values = found._asdict()
    arrays: Arrays = {}
    names = np.array(people.CLASS_NAMES)
    for kind in ("model_alone", "people_alone"):
        cases = values[kind]
        indices = np.array([case.position for case in cases], dtype=np.int64)
        arrays[kind] = subject.measured.pixels[indices]
        guesses = subject.measured_predictions()
        values[kind] = [
            {
                **case._asdict(),
                "id": str(subject.measured.ids[case.position]),
                "true": guesses.class_names[guesses.labels[case.position]],
                "model": guesses.class_names[guesses.logits[case.position].argmax()],
                "people": [
                    [str(names[i]), float(answers[case.position, i])]
                    for i in np.argsort(-answers[case.position], kind="stable")[:2]
                ],
            }
            for case in cases
        ]
    return Finding(values, arrays)


def labels(subject: Subject, options: "AuditOptions") -> Finding:
    """Pictures whose label is probably wrong, among those that training did not see."""
    try:
        ranked = label_issues.rank_labels(subject.measured_predictions())
    except TenfoldError as error:
        return _missing(str(error))
    first = ranked[:NUM_DOUBTFUL]
    indices = np.array([issue.position for issue in first], dtype=np.int64)
    values = {
        "split": subject.split,
        "num_images": len(ranked),
        "num_likely": sum(issue.is_likely for issue in ranked),
        "first": [issue._asdict() for issue in first],
        "known": label_issues.measure(ranked, set(label_issues.WRONG_IN_CIFAR10))._asdict()
        if subject.dataset.name == "cifar10" and subject.split == "test"
        else None,
    }
    rows = [
        [issue.id, issue.given, issue.suggested, f"{issue.quality:.6f}", str(issue.is_likely)]
        for issue in ranked
    ]
    table = table_text(["id", "given", "suggested", "quality", "likely_wrong"], rows)
    return Finding(values, {"first": subject.measured.pixels[indices]}, {"labels.csv": table})


def _missing(why: str) -> Finding:
    return Finding({"missing": why}, {})
