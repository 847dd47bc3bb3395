"""What each part of an audit computes: plain values for the page, and pictures to go with them."""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from tenfold.audit.store import Arrays, Finding
from tenfold.audit.subject import Subject
from tenfold.data import Images
from tenfold.data.sources.digits import CLASS_NAMES as DIGIT_NAMES
from tenfold.errors import TenfoldError
from tenfold.evaluation import agreement as people
from tenfold.evaluation import calibration as calibrating
from tenfold.evaluation import label_issues
from tenfold.evaluation import novelty as novel
from tenfold.evaluation import robustness as robust
from tenfold.evaluation.corruptions import FAMILIES, corrupt
from tenfold.evaluation.metrics import cross_entropy, wilson_interval
from tenfold.evaluation.new_test_set import load_new_test_set
from tenfold.evaluation.predictions import Predictions, map_labels, predict_images
from tenfold.evaluation.submissions import table_text
from tenfold.explain import features_before_head
from tenfold.recipe import Recipe
from tenfold.registry import traits

Pictures = Annotated[int, Field(ge=1, description="How many are damaged and attacked.")]

ATTACKED_SHARE = 0.5
"""Of the pictures that are corrupted; an attack takes some thirty passes for each."""

NUMERALS = {str(number) for number in range(10)} | set(DIGIT_NAMES)
"""Names of classes that say that a model knows digits."""

NUM_FLIPPED = 8
"""Pictures that are kept to be shown whose answer a shift changes."""

NUM_DOUBTFUL = 24
"""Pictures with a doubtful label that are kept to be shown."""


@traits(images=False)
def calibration(subject: Subject) -> Finding:
    """How far confidence can be trusted, before and after a temperature fitted on validation."""
    measured = subject.measured_predictions()
    values: dict[str, Any] = {"split": subject.split, "before": _trust(measured)}
    validation = subject.predictions("validation")
    if validation is not None:
        try:
            fitted = calibrating.fit(validation)
        except TenfoldError as error:
            values["unfitted"] = str(error)
            return Finding(values, {})
        subject.keep_fitted(fitted)
    if subject.split != "test":
        # There is no test split, and the run has fitted a temperature on these very pictures.
        values["unfitted"] = (
            "There is no test split to see what a temperature does on pictures that it was not "
            "fitted on; give the data one, or set data.test_size."
        )
        return Finding(values, {})
    if validation is None:
        values["unfitted"] = (
            "There are no validation pictures besides those it is measured on, so no temperature, "
            "threshold or set could be fitted; train with --set data.validation_size=0.1."
        )
        return Finding(values, {})
    after = calibrating.with_temperature(measured, fitted.temperature)
    values |= {
        "num_validation": fitted.num_images,
        "temperature": fitted.temperature,
        "chosen_by": _chosen_by_validation(subject.model.recipe),
        "after": _trust(after),
        "thresholds": [
            calibrating.apply_threshold(after, each).to_dict() for each in fitted.thresholds
        ],
        "selective": [list(point) for point in calibrating.selective_curve(after)],
        "sets": [
            calibrating.apply_sets(after, promised, least)._asdict()
            for promised, least in fitted.sets
        ],
    }
    return Finding(values, {})


def _chosen_by_validation(recipe: Recipe) -> str:
    """What else of the training went by the validation images, in words; empty for nothing."""
    if recipe.training.early_stopping:
        return "the epoch whose weights are used"
    return "when the learning rate fell" if recipe.schedule.name == "plateau" else ""


def _trust(predictions: Predictions) -> dict[str, Any]:
    return {
        "error_width": calibrating.calibration_error(predictions),
        "error_mass": calibrating.calibration_error(predictions, binning="mass"),
        "brier": calibrating.brier_score(predictions),
        "loss": cross_entropy(predictions),
        "bins": [each._asdict() for each in calibrating.reliability(predictions)],
    }


def robustness(
    subject: Subject, *, pictures: Pictures = 1000, corrupted: Path | None = None
) -> Finding:
    """What is left of the accuracy on corrupted, shifted and attacked pictures."""
    images = subject.sample(subject.measured, pictures)
    attacked = subject.sample(images, max(round(pictures * ATTACKED_SHARE), 1))
    # The published files are of all test pictures.
    compared = (
        subject.measured_predictions()
        if corrupted is not None
        else predict_images(subject.model, images, progress=subject.progress)
    )
    results = list(
        robust.corruption_accuracies(
            subject.model,
            images,
            official=corrupted,
            seed=subject.seed,
            progress=subject.progress,
        )
    )
    shifts = robust.shift_consistency(subject.model, images, progress=subject.progress)
    flips = shifts.flips[:NUM_FLIPPED]
    example = images.pixels[:1]
    shown = [
        np.concatenate([corrupt(example, name, severity=s, seed=subject.seed) for s in (1, 3, 5)])
        for names in FAMILIES.values()
        for name in names
    ]
    values = {
        "split": subject.split,
        "num_images": len(compared.labels),
        "side": min(subject.model.image_size),
        "official": corrupted is not None,
        "clean": float((compared.logits.argmax(axis=1) == compared.labels).mean()),
        "corruptions": [result._asdict() for result in results],
        "mean": float(np.mean([result.accuracies for result in results])),
        "shift_consistency": shifts.consistency,
        "flips": [_flip_in_words(each, images, subject.model.class_names) for each in flips],
        "attacks": [
            result._asdict()
            for result in robust.attack_accuracies(
                subject.model, attacked, seed=subject.seed, progress=subject.progress
            )
        ],
        "num_shifted": len(images),
        "num_attacked": len(attacked),
    }
    arrays: Arrays = {"example": example, "corrupted": np.stack(shown)}
    if flips:
        flipped = [images.pixels[each.position : each.position + 1] for each in flips]
        arrays["flipped"] = np.concatenate(flipped)
        arrays["moved"] = np.concatenate(
            [robust.shifted(own, each.direction) for own, each in zip(flipped, flips, strict=True)]
        )
    return Finding(values, arrays)


def _flip_in_words(flip: robust.Flip, images: Images, names: Sequence[str]) -> dict[str, str]:
    return {
        "id": str(images.ids[flip.position]),
        "true": images.class_names[images.labels[flip.position]],
        "before": names[flip.before],
        "after": names[flip.after],
        "direction": flip.direction,
    }


def new_pictures(subject: Subject, *, new_test_set: Path | None = None) -> Finding:
    """Accuracy on CIFAR-10.1 beside that on the test set."""
    if not subject.is_of_cifar10:
        return _not_for("New pictures of the same kind are known for CIFAR-10 alone.")
    images = load_new_test_set(new_test_set, progress=subject.progress)
    guesses = subject.model.logits(images.pixels).argmax(axis=1)
    right = guesses == map_labels(images, subject.model.class_names)
    known = subject.measured_predictions()
    values = {
        "num_images": len(images),
        "accuracy": float(right.mean()),
        "accuracy_interval": list(wilson_interval(int(right.sum()), len(right))),
        "test_accuracy": float((known.logits.argmax(axis=1) == known.labels).mean()),
    }
    return Finding(values, {})


def novelty(subject: Subject, *, pictures: Pictures = 1000, strange: str | None = None) -> Finding:
    """Whether it notices pictures of nothing that it knows."""
    size, number = subject.model.image_size, pictures
    others = {
        "noise": novel.noise(number, size, seed=subject.seed),
        "textures": novel.textures(number, size, seed=subject.seed),
    } | _other_pictures(subject, number, strange)
    scores = novel.scores_of(subject.known_features, subject.known_labels)
    indices = subject.drawn(len(subject.measured), number)
    familiar = novel.Seen(subject.measured_predictions().logits[indices], subject.features[indices])
    known = {label: score(familiar) for label, score in scores.items()}
    results: dict[str, list[dict[str, Any]]] = {}
    arrays: Arrays = {}
    for name, pixels in others.items():
        seen = _seen(subject, pixels)
        results[name] = [
            novel.compare(label, known[label], score(seen))._asdict()
            for label, score in scores.items()
        ]
        arrays[name.replace(" ", "_")] = pixels[:6]
    return Finding({"num_images": len(indices), "split": subject.split, "results": results}, arrays)


def _other_pictures(subject: Subject, number: int, named: str | None) -> dict[str, Any]:
    """Data sets that can be had here without waiting, and one that was named, at the model's size.

    Pictures of classes that the model knows are left out.
    """
    from tenfold.data import load
    from tenfold.data.sources import get

    height, width = subject.model.image_size
    found = {}
    if named is not None:
        if height != width:
            raise TenfoldError(
                f"{named} can't be brought to the oblong {height}x{width} pixels of this model; "
                "leave --strange away."
            )
        strange = load(named, image_size=height, progress=subject.progress)
        found[strange.name] = _of_other_classes(subject, strange.test or strange.train, number)
    if height == width and not NUMERALS & set(subject.model.class_names):
        found["digits"] = subject.sample(load("digits", image_size=height).train, number).pixels
    if (height, width) == (32, 32):
        # It may not be at hand, and the model may know all of its classes.
        with contextlib.suppress(TenfoldError):
            others = get("cifar100", offline=True).test
            if others is not None:
                found["CIFAR-100"] = _of_other_classes(subject, others, number)
    return found


def _of_other_classes(subject: Subject, images: Images, number: int) -> NDArray[np.uint8]:
    """Up to `number` of the pictures whose class the model does not know by its name."""
    known = set(subject.model.class_names)
    strange = np.array([name not in known for name in images.class_names])
    keep = np.flatnonzero(strange[images.labels]).astype(np.int64)
    if not len(keep):
        raise TenfoldError(
            "All classes of the strange pictures are known to the model; name others with "
            "--strange."
        )
    return subject.sample(images.take(keep), number).pixels


def _seen(subject: Subject, pixels: Any) -> novel.Seen:
    return novel.Seen(
        subject.model.logits(pixels),
        features_before_head(subject.model, pixels, progress=subject.progress),
    )


def agreement(subject: Subject, *, human: Path | None = None) -> Finding:
    """The model beside people, for CIFAR-10."""
    if not subject.is_of_cifar10:
        return _not_for("People's answers are known for the test pictures of CIFAR-10 alone.")
    answers = people.load_answers(human, progress=subject.progress)
    calibrated = calibrating.with_temperature(subject.measured_predictions(), subject.temperature)
    found = people.compare_with_people(calibrated, answers)
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


def labels(subject: Subject) -> Finding:
    """Pictures whose label is probably wrong, among those that training did not see."""
    predictions = subject.measured_predictions()
    num_judged = label_issues.count_judged(predictions)
    if not num_judged:
        return _not_for(
            f"None of the {len(predictions.labels):,} labels could be judged: each is the only one "
            "of its class, or the model is right no more often than by chance."
        )
    ranked = label_issues.rank_labels(predictions)
    first = ranked[:NUM_DOUBTFUL]
    indices = np.array([issue.position for issue in first], dtype=np.int64)
    values = {
        "split": subject.split,
        "num_images": len(ranked),
        "num_judged": num_judged,
        "num_likely": sum(issue.is_likely for issue in ranked),
        "first": [issue._asdict() for issue in first],
        "known": label_issues.measure(ranked, set(label_issues.WRONG_IN_CIFAR10))._asdict()
        if subject.is_of_cifar10
        else None,
    }
    rows = [
        [issue.id, issue.given, issue.suggested, f"{issue.quality:.6f}", str(issue.is_likely)]
        for issue in ranked
    ]
    table = table_text(["id", "given", "suggested", "quality", "likely_wrong"], rows)
    return Finding(values, {"first": subject.measured.pixels[indices]}, {"labels.csv": table})


def _not_for(why: str) -> Finding:
    return Finding({"missing": why, "for_good": True}, {})
