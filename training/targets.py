"""The target of each training image, as distributions over the seven classes."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from moodline.shared.emotions import EMOTIONS
from moodline.shared.errors import DataError
from moodline.training.config import DistilConfig, TrainConfig
from moodline.training.data import Split
from moodline.training.measures import tempered
from moodline.training.runs import load_arrays
from moodline.training.votes import load_votes, voted_targets

Targets = npt.NDArray[np.float32]


class TrainTargets(NamedTuple):
    """Targets float32 (N, 7), rows that sum to 1, and how much each image counts in the loss, float32 (N,), mean 1."""

    targets: Targets
    image_weights: Targets


def make_targets(config: TrainConfig, train: Split, kept: npt.NDArray[np.intp]) -> TrainTargets:
    """Return the targets of the images kept.

    From the label or the votes, smoothed (Szegedy et al., "Rethinking Inception", 2016), and then from soft labels.

    Args:
        config: Of the run.
        train: All training images, as read.
        kept: Which of them are trained on.

    Raises:
        DataError: the votes or the soft labels do not fit the images.
    """
    part = train.subset(kept)
    weights = np.ones(len(part), np.float32)
    if config.data.votes:
        votes = load_votes(Path(config.data.votes))
        hard, weights = voted_targets(part, votes, config.data.votes_weight, config.data.doubt_weight)
    else:
        hard = np.eye(len(EMOTIONS), dtype=np.float32)[part.labels]
    smoothing = config.loss.label_smoothing
    targets = (1 - smoothing) * hard + smoothing / len(EMOTIONS)
    if config.distil.soft_labels:
        soft = _soft_labels(config.distil, len(train))[kept]
        targets = (1 - config.distil.weight) * targets + config.distil.weight * soft
    return TrainTargets(targets.astype(np.float32), (weights / max(float(weights.mean()), 1e-6)).astype(np.float32))


def class_weights(labels: npt.NDArray[np.int64], balance: float) -> Targets:
    """Return the weight of each class in the loss, float32 (7,); the mean over all images is 1."""
    counts = np.bincount(labels, minlength=len(EMOTIONS)).astype(np.float64)
    weights = np.where(counts > 0, np.maximum(counts, 1) ** -balance, 0.0)
    normalised: Targets = (weights * counts.sum() / (weights * counts).sum()).astype(np.float32)
    return normalised


def _soft_labels(config: DistilConfig, count: int) -> Targets:
    values = load_arrays(Path(config.soft_labels)).get("probabilities")
    if values is None or values.shape != (count, len(EMOTIONS)):
        raise DataError(f"{config.soft_labels} needs an array `probabilities` ({count}, {len(EMOTIONS)})")
    if not np.isfinite(values).all() or (values < 0).any() or (np.abs(values.sum(1) - 1) > 1e-2).any():
        raise DataError(f"{config.soft_labels}: a row is not a distribution")
    soft: Targets = tempered(values, config.temperature).astype(np.float32)
    return soft
