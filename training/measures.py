"""Figures of answers. Probabilities are float (N, 7), labels int (N,), indices into `EMOTIONS`."""

import math
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from moodline.shared.emotions import EMOTIONS

Floats = npt.NDArray[np.floating[Any]]
Labels = npt.NDArray[np.integer[Any]]

BINS: Final = 15
_TINY: Final = 1e-9


class Interval(NamedTuple):
    """The interval that holds the true share with 95% confidence."""

    low: float
    high: float


def accuracy(probabilities: Floats, labels: Labels) -> float:
    """Return the share of images whose likeliest class is the label's."""
    return float((probabilities.argmax(1) == labels).mean())


def wilson(share: float, count: int, z: float = 1.959964) -> Interval:
    """Return the interval of a share of `count` trials (Wilson, 1927)."""
    centre = share + z * z / (2 * count)
    margin = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    scale = 1 + z * z / count
    return Interval((centre - margin) / scale, (centre + margin) / scale)


def cross_entropy(probabilities: Floats, labels: Labels) -> float:
    """Return the mean of minus the logarithm of the label's probability, in nats."""
    right = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return float(-np.log(np.maximum(right, _TINY)).mean())


def confusion(probabilities: Floats, labels: Labels) -> npt.NDArray[np.int64]:
    """Return counts (7, 7): row, the label; column, the answer."""
    classes = len(EMOTIONS)
    cells = np.bincount(labels * classes + probabilities.argmax(1), minlength=classes**2)
    return cells.reshape(classes, classes).astype(np.int64)


class ClassFigures(NamedTuple):
    """One row of a classification report. 0 where there is nothing to divide by."""

    precision: float
    recall: float
    f1: float
    support: int


def class_figures(counts: npt.NDArray[np.int64]) -> dict[str, ClassFigures]:
    """Return the figures of each class from a confusion matrix."""
    figures = {}
    for index, name in enumerate(EMOTIONS):
        right, answered, support = int(counts[index, index]), int(counts[:, index].sum()), int(counts[index].sum())
        precision, recall = right / answered if answered else 0.0, right / support if support else 0.0
        figures[name] = ClassFigures(precision, recall, 2 * right / (answered + support) if answered + support else 0.0, support)
    return figures


def macro_f1(figures: dict[str, ClassFigures]) -> float:
    """Return the mean F1 of the classes that occur."""
    present = [row.f1 for row in figures.values() if row.support]
    return sum(present) / len(present)


class Bin(NamedTuple):
    """Answers of about the same confidence: its mean, their accuracy, how many there are."""

    confidence: float
    accuracy: float
    size: int


def calibration_bins(probabilities: Floats, labels: Labels) -> list[Bin]:
    """Return those of 15 equally wide bins that hold answers."""
    hit, confidence = probabilities.argmax(1) == labels, probabilities.max(1)
    places = np.minimum((confidence * BINS).astype(int), BINS - 1)
    return [
        Bin(float(confidence[places == place].mean()), float(hit[places == place].mean()), int((places == place).sum()))
        for place in np.unique(places)
    ]


def calibration_error(probabilities: Floats, labels: Labels) -> float:
    """Return the expected calibration error over 15 bins (Guo et al., "On calibration", 2017)."""
    bins = calibration_bins(probabilities, labels)
    return sum(abs(one.accuracy - one.confidence) * one.size for one in bins) / len(labels)


def tempered(probabilities: Floats, temperature: float) -> npt.NDArray[np.float64]:
    """Return the probabilities that logits divided by `temperature` would give."""
    logits = np.log(np.maximum(probabilities.astype(np.float64), 1e-30)) / temperature
    powers = np.exp(logits - logits.max(1, keepdims=True))
    result: npt.NDArray[np.float64] = powers / powers.sum(1, keepdims=True)
    return result


def fitted_temperature(probabilities: Floats, labels: Labels) -> float:
    """Return the temperature, 0.2 to 5, at which the cross-entropy is least."""
    return fitted_common_temperature([probabilities], labels)


def fitted_common_temperature(views: Sequence[Floats], labels: Labels) -> float:
    """Return the temperature of single views, 0.2 to 5, at which the mean of their answers has the least cross-entropy.

    A golden-section search on its logarithm.
    """

    def loss(logarithm: float) -> float:
        answers = [tempered(view, math.exp(logarithm)) for view in views]
        return cross_entropy(np.mean(answers, 0), labels)

    low, high, ratio = math.log(0.2), math.log(5.0), (math.sqrt(5) - 1) / 2
    for _ in range(40):
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        if loss(left) < loss(right):
            high = right
        else:
            low = left
    return math.exp((low + high) / 2)


class Roc(NamedTuple):
    """A curve from (0, 0) to (1, 1), and the area below it; NaN where a class is missing or alone."""

    false_share: npt.NDArray[np.float64]
    true_share: npt.NDArray[np.float64]
    area: float


def roc(scores: Floats, positive: npt.NDArray[np.bool_]) -> Roc:
    """Return how many positives and negatives pass each threshold. Equal scores pass together."""
    order = np.argsort(-scores, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)
    true = np.append(0, np.cumsum(positive[order])[ends]).astype(np.float64)
    false = np.append(0, np.cumsum(~positive[order])[ends]).astype(np.float64)
    if not true[-1] or not false[-1]:
        return Roc(false, true, math.nan)
    true, false = true / true[-1], false / false[-1]
    return Roc(false, true, float(np.trapezoid(true, false)))
