"""Compares found faces with known ones: recall, precision and overlap."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from moodline.training.detector.labels import overlap

Rows = npt.NDArray[np.floating]


class Picture(NamedTuple):
    """The found and the known faces of one picture.

    Attributes:
        found: float (N, 5): x1, y1, x2, y2 in px, score.
        known: float (M, 4), the faces.
        ignored: float (K, 4): what is found there, or would match these, counts neither way.
        least_px: The known faces are all those of at least so many px (longer side). What is found smaller counts as right
            if it matches one and else neither way, as with the size ranges of COCO: of such faces nobody said which there are.
    """

    found: Rows
    known: Rows
    ignored: Rows
    least_px: float = 0.0


class Matches(NamedTuple):
    """All found faces of several pictures, best score first; the ignored ones are gone.

    Attributes:
        score: (N,).
        right: (N,), whether it is a known face that no better one had found.
        iou: (N,), overlap with that face, 0 where there is none.
        side_px: (N,), longer side of that face.
        known_side_px: (M,), longer sides of all known faces.
    """

    score: npt.NDArray[np.float64]
    right: npt.NDArray[np.bool_]
    iou: npt.NDArray[np.float64]
    side_px: npt.NDArray[np.float64]
    known_side_px: npt.NDArray[np.float64]


class Point(NamedTuple):
    """A point of the curve: at this threshold so much is found, so much of it is right, and boxes overlap so much on average."""

    threshold: float
    recall: float
    precision: float
    mean_iou: float


def match(pictures: Sequence[Picture], least_iou: float) -> Matches:
    """Match what is found with what is known: the best scores choose first, each the face that it overlaps most."""
    rows, known = [], [longer_side(picture.known) for picture in pictures]
    for picture, sides in zip(pictures, known, strict=True):
        found = picture.found[np.argsort(-picture.found[:, 4], kind="stable")]
        shared = overlap(found, picture.known)
        off = (_covered(found, picture.ignored) >= 0.5) | (longer_side(found) < picture.least_px)
        free = np.ones(len(picture.known), bool)
        for index, row in enumerate(found):
            fit = np.where(free, shared[index], 0.0)
            best = int(fit.argmax()) if len(fit) else -1
            if best >= 0 and fit[best] >= least_iou:
                free[best] = False
                rows.append((row[4], 1.0, fit[best], sides[best]))
            elif not off[index]:
                rows.append((row[4], 0.0, 0.0, 0.0))
    table = np.array(rows, np.float64).reshape(-1, 4)
    table = table[np.argsort(-table[:, 0], kind="stable")]
    every = np.concatenate(known) if known else np.empty(0)
    return Matches(table[:, 0], table[:, 1] > 0, table[:, 2], table[:, 3], every)


def longer_side(boxes: Rows) -> npt.NDArray[np.float64]:
    """Return the longer side of each box (N, 4+), in px."""
    sides: npt.NDArray[np.float64] = np.maximum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]).astype(np.float64)
    return sides


def _covered(found: Rows, ignored: Rows) -> npt.NDArray[np.float64]:
    """Return how much of each found box the best fitting ignored region covers."""
    if not len(ignored):
        return np.zeros(len(found))
    wide = np.minimum(found[:, None, 2], ignored[None, :, 2]) - np.maximum(found[:, None, 0], ignored[None, :, 0])
    high = np.minimum(found[:, None, 3], ignored[None, :, 3]) - np.maximum(found[:, None, 1], ignored[None, :, 1])
    area = np.maximum((found[:, 2] - found[:, 0]) * (found[:, 3] - found[:, 1]), 1e-9)
    covered: npt.NDArray[np.float64] = (np.clip(wide, 0, None) * np.clip(high, 0, None) / area[:, None]).max(1)
    return covered


def point_at(matches: Matches, threshold: float) -> Point:
    """Return what is reached with a threshold."""
    chosen = matches.score >= threshold
    right = matches.right & chosen
    return Point(
        float(threshold),
        float(right.sum() / max(1, len(matches.known_side_px))),
        float(right.sum() / max(1, chosen.sum())),
        float(matches.iou[right].mean()) if right.any() else 0.0,
    )


def point_at_precision(matches: Matches, precision: float) -> Point:
    """Return the point of most recall among those with at least so much precision."""
    right = np.cumsum(matches.right)
    enough = np.flatnonzero(right / np.arange(1, len(right) + 1) >= precision)
    # Equal scores fall together: only the last of them can be a threshold.
    last = np.append(matches.score[1:] < matches.score[:-1], True) if len(right) else np.empty(0, bool)
    usable = enough[last[enough]]
    return point_at(matches, matches.score[usable[-1]] if len(usable) else 1.1)


def average_precision(matches: Matches) -> float:
    """Return the area under the curve of precision over recall."""
    if not matches.right.any():
        return 0.0
    right = np.cumsum(matches.right)
    precision = np.maximum.accumulate((right / np.arange(1, len(right) + 1))[::-1])[::-1]
    return float(precision[matches.right].sum() / len(matches.known_side_px))
