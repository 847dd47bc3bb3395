"""The run that is audited: its model, images, predictions and features, each computed once."""

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tenfold.data import Dataset, Images
from tenfold.data.sources.origins import CIFAR10
from tenfold.errors import TenfoldError
from tenfold.evaluation.calibration import fitted_of
from tenfold.evaluation.predictions import Predictions, map_labels, predict_images
from tenfold.progress import Progress
from tenfold.results.runs import Fitted, read_result
from tenfold.run import RunFolder

if TYPE_CHECKING:
    from tenfold.evaluation.trained import TrainedModel

NUM_KNOWN = 10_000
"""Training images whose features stand for all: enough to have neighbours of every kind."""


class Subject:
    """A finished run, opened. data: where its images are now, if not where they were."""

    def __init__(
        self, run: RunFolder, *, seed: int, progress: Progress | None, data: str | None = None
    ) -> None:
        if not run.is_finished():
            raise TenfoldError(
                f"{run.path} is not finished; run its `tenfold train` command again to finish it."
            )
        self.run, self.seed, self.progress, self._place = run, seed, progress, data
        self._images: dict[str, Images | None] = {}
        self._predictions: dict[str, Predictions] = {}

    @cached_property
    def model(self) -> "TrainedModel":
        """The trained network."""
        from tenfold.evaluation.trained import load_model

        return load_model(self.run.model)

    @cached_property
    def dataset(self) -> Dataset:
        """What it was trained on. Raises TenfoldError where that is no longer there as it was."""
        from tenfold.evaluation.evaluate import open_data, require_unchanged

        found, own = open_data(
            self.run, self.model, self._place, skip_broken=True, progress=self.progress
        )
        if not own:
            require_unchanged(self.run, found)
        return found

    def images(self, split: str) -> Images | None:
        """The images of `split`, as the run has them; None where it has no such split."""
        from tenfold.evaluation.evaluate import split_of

        if split not in self._images:
            dataset = self.dataset
            try:
                found: Images | None = split_of(dataset, split, self.model.recipe.data)
            except TenfoldError:
                found = None
            self._images[split] = found if found is not None and len(found) else None
        return self._images[split]

    @cached_property
    def split(self) -> str:
        """What it is measured on: test, or validation where there is no test."""
        from tenfold.evaluation.evaluate import saved_predictions

        if saved_predictions(self.run, "test") is not None:
            return "test"
        for split in ("test", "validation"):
            if self.images(split) is not None:
                return split
        raise TenfoldError(
            f"{self.run.path} has neither test nor validation images to be measured on."
        )

    @cached_property
    def measured(self) -> Images:
        """The images of `split`. Raises TenfoldError where what was predicted is of others."""
        images = self.images(self.split)
        if images is None or not np.array_equal(images.ids, self.measured_predictions().ids):
            raise TenfoldError(
                f"What {self.run.path} has predicted is of other {self.split} images than there "
                "are now; run `tenfold evaluate` on it first."
            )
        return images

    def require_images(self) -> None:
        """Raise TenfoldError where there are no images to be measured on, or others than were
        predicted."""
        assert len(self.measured)

    @property
    def is_of_cifar10(self) -> bool:
        """Whether it is measured on the test images of CIFAR-10, in the order as published."""
        sums = CIFAR10.sums
        found = self.dataset.checksums
        names = ("test-images", "test-labels")
        return self.split == "test" and all(found.get(name) == sums[name] for name in names)

    @cached_property
    def temperature(self) -> float:
        """By which the run divides its logits before it speaks of confidence; 1 without one."""
        fitted = fitted_of(read_result(self.run.result))
        return fitted.temperature if fitted is not None else 1.0

    def keep_fitted(self, fitted: Fitted) -> None:
        """Keep what was fitted on validation with the run, which speaks of confidence by it from
        then on, unless it has some of this version."""
        result = read_result(self.run.result)
        kept = fitted_of(result)
        if kept is None or not all(each.num_images for each in kept.thresholds):
            result.model_copy(update={"calibration": fitted}).write(self.run.result)

    def record_use(self, purpose: str) -> None:
        """Write down that the images it is measured on were looked at, if they are a test."""
        from tenfold.evaluation.evaluate import use_of

        accuracy = float(self.measured_predictions().right.mean())
        use = use_of(self.split, accuracy, purpose=purpose)
        read_result(self.run.result).with_use(use).write(self.run.result)

    def predictions(self, split: str) -> Predictions | None:
        """What the run says of `split`: as it was saved, or computed now; None without images."""
        from tenfold.evaluation.evaluate import saved_predictions

        if split not in self._predictions:
            found = saved_predictions(self.run, split)
            if found is None and (images := self.images(split)) is not None:
                found = predict_images(self.model, images, progress=self.progress)
            if found is None:
                return None
            self._predictions[split] = found
        return self._predictions[split]

    def measured_predictions(self) -> Predictions:
        """Those of the images it is measured on."""
        found = self.predictions(self.split)
        assert found is not None
        return found

    @cached_property
    def known(self) -> Images:
        """Training images, all or NUM_KNOWN drawn by the seed."""
        from tenfold.evaluation.evaluate import split_of

        train = split_of(self.dataset, "train", self.model.recipe.data)
        return self.sample(train, NUM_KNOWN)

    @cached_property
    def known_labels(self) -> NDArray[np.int64]:
        """Their classes, as the model numbers them."""
        return map_labels(self.known, self.model.class_names)

    @cached_property
    def known_features(self) -> NDArray[np.float32]:
        """What the head sees of them."""
        return self.features_of(self.known.pixels)

    @cached_property
    def features(self) -> NDArray[np.float32]:
        """What the head sees of the images it is measured on."""
        return self.features_of(self.measured.pixels)

    def features_of(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """What the head sees of images, (N, D)."""
        from tenfold.explain import features_before_head

        return features_before_head(self.model, pixels, progress=self.progress)

    def sample(self, images: Images, number: int) -> Images:
        """`number` of `images` drawn by the seed, or all where there are no more."""
        if len(images) <= number:
            return images
        return images.take(self.drawn(len(images), number))

    def drawn(self, of: int, number: int) -> NDArray[np.int64]:
        """`number` different indices below `of`, in rising order."""
        generator = np.random.default_rng((self.seed, of))
        return np.sort(generator.choice(of, min(number, of), replace=False)).astype(np.int64)
