"""Training batches: which images, changed how, with which targets. All of it follows from the seed and the epoch."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from moodline.services.classifier.model import Model
from moodline.training.augment import Images, augmented, mixed
from moodline.training.config import TrainConfig
from moodline.training.measures import tempered
from moodline.training.targets import Targets, TrainTargets


class Batch(NamedTuple):
    """Images uint8 (B, 48, 48) and targets float32 (B, 7), already multiplied with the weights of images and classes."""

    images: Images
    targets: Targets


class Batches:
    """All batches of an epoch.

    Args:
        config: Of the run.
        images: uint8 (N, 48, 48).
        targets: Of each image, and how much it counts.
        weights: Of the classes, float32 (7,).
        teachers: Models whose mean answer for the changed images becomes part of the targets.
    """

    def __init__(
        self,
        config: TrainConfig,
        images: Images,
        targets: TrainTargets,
        weights: npt.NDArray[np.float32],
        teachers: Sequence[Model] = (),
    ) -> None:
        self._config, self._images, self._weights = config, images, weights
        self._targets, self._image_weights = targets
        self._teachers = teachers
        self._batch = min(config.schedule.batch, len(images))
        self.steps = len(images) // self._batch

    def epoch(self, number: int) -> Iterator[Batch]:
        """Yield the batches of an epoch, from 0. A rest that fills no batch is left out; it differs each time."""
        random = np.random.default_rng([self._config.schedule.seed, number])
        order = random.permutation(len(self._images))
        for step in range(self.steps):
            chosen = order[step * self._batch : (step + 1) * self._batch]
            progress = (number + step / self.steps) / self._config.schedule.epochs
            yield self._batch_of(chosen, random, progress)

    def _batch_of(self, chosen: npt.NDArray[np.intp], random: np.random.Generator, progress: float) -> Batch:
        images = augmented(self._images[chosen], random, self._config.augment)
        targets, counts = self._targets[chosen], self._image_weights[chosen]
        loss = self._config.loss
        if random.random() < loss.mixup and progress < loss.mixup_until:
            share, order = float(random.beta(loss.mixup_alpha, loss.mixup_alpha)), random.permutation(len(chosen))
            images, targets = mixed(images, share, order), share * targets + (1 - share) * targets[order]
            counts = share * counts + (1 - share) * counts[order]
        if self._teachers:
            taught = np.mean([teacher.predict(images) for teacher in self._teachers], 0)
            weight = self._config.distil.weight
            soft = tempered(taught, self._config.distil.temperature).astype(np.float32)
            targets = (1 - weight) * targets + weight * soft
        return Batch(images, (targets * self._weights * counts[:, None]).astype(np.float32))
