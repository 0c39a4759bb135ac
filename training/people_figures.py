"""Compares answers with what most people see, and with the labels, side by side.

The labels of FER-2013 and the majority of FER+'s votes differ in more than a third of the images, so no answers can agree well
with both, nor be as sure as they are right against both.
"""

from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from moodline.shared.emotions import EMOTIONS
from moodline.training.data import Split
from moodline.training.measures import Floats, Labels, accuracy, calibration_error, class_figures, confusion, tempered, wilson
from moodline.training.votes import People

COVERAGES: Final = (1.0, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5)
SHARES: Final = (0.0, 0.25, 0.5, 0.75, 1.0)

_FOLDS: Final = 5
_STEPS: Final = 12
_RIDGE: Final = 1e-3

Doubles = npt.NDArray[np.float64]


class PeopleRow(msgspec.Struct, frozen=True):
    """One class against the people's majority: shares from 0 to 1, and in how many images most people see it."""

    precision: float
    recall: float
    support: int


class RiskRow(msgspec.Struct, frozen=True):
    """The share of wrong answers among the surest ones.

    Attributes:
        coverage: Share of the images that are answered.
        confidence: Of the least sure of them.
        people: Share of them that differs from the people's majority.
        labels: Share of them that differs from the label.
    """

    coverage: float
    confidence: float
    people: float
    labels: float


class FrontierRow(msgspec.Struct, frozen=True):
    """The accuracies of the answers once they are corrected towards a mixture of both truths; see `frontier`.

    Attributes:
        share: Of the votes in the mixture; the rest is the label's.
        people: Accuracy against the people's majority.
        labels: Accuracy against the labels.
    """

    share: float
    people: float
    labels: float


class PeopleFigures(msgspec.Struct, frozen=True):
    """Figures on the images that have votes for any of the seven classes.

    Attributes:
        images: How many have.
        agreement: Share of them whose label is the people's majority.
        accuracy: Against the people's majority.
        interval_95: Wilson's, of that.
        mean_accuracy: Mean of it and of the accuracy against the labels of all images.
        macro_recall: Mean recall of the classes against people.
        calibration_error: Against the people's majority, 15 bins.
        classes: By class, against the people's majority.
        confusion: Counts (7, 7): row, the people's majority; column, the answer.
        risk_coverage: The surer the answers that are believed, the fewer and the better they are.
        frontier: See `frontier`.
    """

    images: int
    agreement: float
    accuracy: float
    interval_95: tuple[float, float]
    mean_accuracy: float
    macro_recall: float
    calibration_error: float
    classes: dict[str, PeopleRow]
    confusion: list[list[int]]
    risk_coverage: list[RiskRow]
    frontier: list[FrontierRow]


def people_figures(answers: Floats, split: Split, seen: People) -> PeopleFigures:
    """Return the figures of answers float (N, 7) for a part of the data and what people see in it."""
    known = seen.known
    compared, majority, labels = answers[known], seen.majority[known], split.labels[known]
    counts, share = confusion(compared, majority), accuracy(compared, majority)
    rows = class_figures(counts)
    recalls = [row.recall for row in rows.values() if row.support]
    low, high = wilson(share, len(majority))
    return PeopleFigures(
        images=len(majority),
        agreement=round(float((labels == majority).mean()), 4),
        accuracy=round(share, 4),
        interval_95=(round(low, 4), round(high, 4)),
        mean_accuracy=round((share + accuracy(answers, split.labels)) / 2, 4),
        macro_recall=round(sum(recalls) / len(recalls), 4),
        calibration_error=round(calibration_error(compared, majority), 4),
        classes={name: PeopleRow(round(row.precision, 4), round(row.recall, 4), row.support) for name, row in rows.items()},
        confusion=counts.tolist(),
        risk_coverage=risk_coverage(compared, majority, labels),
        frontier=frontier(compared, seen.shares[known], majority, labels),
    )


def risk_coverage(answers: Floats, majority: Labels, labels: Labels) -> list[RiskRow]:
    """Return the errors among the surest answers, for each of `COVERAGES`.

    See Geifman and El-Yaniv, "Selective classification for deep neural networks", 2017.
    """
    confidence = answers.max(1)
    order = np.argsort(-confidence, kind="stable")
    given = answers.argmax(1)[order]
    rows = []
    for coverage in COVERAGES:
        count = max(1, round(coverage * len(order)))
        believed, of = given[:count], order[:count]
        rows.append(
            RiskRow(
                coverage,
                round(float(confidence[order[count - 1]]), 4),
                round(float((believed != majority[of]).mean()), 4),
                round(float((believed != labels[of]).mean()), 4),
            )
        )
    return rows


def frontier(answers: Floats, shares: Floats, majority: Labels, labels: Labels) -> list[FrontierRow]:
    """Return how far both truths pull apart: accuracy against each, for each of `SHARES`.

    For each share of the votes, the logarithms of the answers get the affine map that fits the mixture of votes and label best,
    and the accuracy is that on images which the map was not fitted to (five folds). It shows what a last layer can
    trade; a network that is trained on the mixture may reach a little more.
    """
    logs = np.log(np.maximum(tempered(answers, 1.0), 1e-6))
    features = np.concatenate([logs, np.ones((len(logs), 1))], 1)
    folds = np.random.default_rng(0).permutation(len(answers)) % _FOLDS
    by_label = np.eye(len(EMOTIONS))[labels]
    rows = []
    for share in SHARES:
        targets = (share * shares + (1 - share) * by_label).astype(np.float64)
        given = np.empty(len(answers), np.int64)
        for fold in range(_FOLDS):
            inside = folds != fold
            weights = _fitted(features[inside], targets[inside])
            given[~inside] = (features[~inside] @ weights).argmax(1)
        rows.append(FrontierRow(share, round(float((given == majority).mean()), 4), round(float((given == labels).mean()), 4)))
    return rows


def _fitted(features: Doubles, targets: Doubles) -> Doubles:
    """Return the weights (C, 7) of a softmax regression, with a light ridge towards the identity: damped Newton steps."""
    start = np.eye(features.shape[1], targets.shape[1])
    weights = start.copy()
    for _ in range(_STEPS):
        shares = _shares(features @ weights)
        gradient = features.T @ (shares - targets) / len(features) + _RIDGE * (weights - start)
        step = np.linalg.solve(_curvature(features, shares), gradient.ravel()).reshape(weights.shape)
        loss, length = _loss(features, targets, weights, start), 1.0
        while _loss(features, targets, weights - length * step, start) > loss and length > 1e-3:
            length /= 2
        weights = weights - length * step
        if np.abs(step).max() < 1e-4:
            break
    return weights


def _curvature(features: Doubles, shares: Doubles) -> Doubles:
    """Return the second derivatives of the loss, (7 C, 7 C)."""
    width, classes = features.shape[1], shares.shape[1]
    hessian = np.zeros((width, classes, width, classes))
    for one in range(classes):
        for other in range(one, classes):
            factor = shares[:, one] * ((one == other) - shares[:, other])
            hessian[:, one, :, other] = hessian[:, other, :, one] = (features * factor[:, None]).T @ features / len(features)
    return hessian.reshape(width * classes, -1) + _RIDGE * np.eye(width * classes)


def _loss(features: Doubles, targets: Doubles, weights: Doubles, start: Doubles) -> float:
    logits = features @ weights
    entropy = -(targets * np.log(_shares(logits) + 1e-12)).sum(1).mean()
    return float(entropy + _RIDGE / 2 * ((weights - start) ** 2).sum())


def _shares(logits: Doubles) -> Doubles:
    powers = np.exp(logits - logits.max(1, keepdims=True))
    shares: Doubles = powers / powers.sum(1, keepdims=True)
    return shares
