"""FER+: ten people's votes for each image of FER-2013, as distributions over our seven classes.

From Barsoum et al., "Training deep networks for facial expression recognition with crowd-sourced label distribution", 2016.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from moodline.shared.emotions import EMOTIONS
from moodline.shared.errors import DataError
from moodline.training.data import Split, open_csv, row_name

_CLASSES: Final = ("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral")
"""The columns of the votes, in the order of `EMOTIONS`."""
_OTHERS: Final = ("contempt", "unknown", "nf")
"""Votes for none of the seven; `nf` is "not a face"."""

_MIN_IMAGES: Final = 30
_MARGIN: Final = 0.1

Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Votes:
    """The votes for each image.

    Attributes:
        counts: Votes int64 (M, 10), a row of the file each: for the classes in the order of `EMOTIONS`, then for contempt,
            unknown and not-a-face.
        rows: The row of an image, by the image's name.
        source: The file.
    """

    counts: Counts
    rows: dict[str, int]
    source: Path


class VotedTargets(NamedTuple):
    """Targets float32 (N, 7), rows that sum to 1, and how much each image counts in the loss, float32 (N,), 0 to 1."""

    targets: Floats
    weights: Floats


class People(NamedTuple):
    """The emotions that most people see in the images of a part.

    Attributes:
        known: Which images have a vote for any of the seven classes, bool (N,).
        majority: The class with the most votes among the seven, int64 (N,); of equal ones the first. 0 where none is known.
        shares: Votes for the seven as distributions, float32 (N, 7); zeros where none is known.
    """

    known: npt.NDArray[np.bool_]
    majority: npt.NDArray[np.int64]
    shares: Floats


def load_votes(path: Path) -> Votes:
    """Read a FER+ CSV: FER+'s own `fer2013new.csv`, or one whose image names are those of your image files.

    FER+'s own file has one row for each row of `fer2013.csv`, in the same order; rows without an image name are images that
    FER+ left out, and its names count only the others. So images of `fer2013.csv` are found by their row, not by that name.

    Raises:
        DataError: a column is missing, or a vote is not a number from 0 on.
    """
    counts: list[list[int]] = []
    names: list[str] = []
    with open_csv(path) as rows:
        for index, (name, *given) in enumerate(rows.named(("image name", *_CLASSES, *_OTHERS))):
            if not all(count.strip().isdigit() for count in given):
                raise DataError(f"{path}, line {index + 2}: a vote is not a whole number")
            counts.append([int(count) for count in given])
            names.append(name.strip())
    if not any(names):
        raise DataError(f"{path} holds no votes")
    places = {name: index for index, name in enumerate(names) if name}
    if _counted(names):
        places |= {row_name(index): index for index, name in enumerate(names) if name}
    return Votes(np.array(counts, np.int64), places, path)


def people(split: Split, votes: Votes) -> People:
    """Return what people see in the images of a part.

    Raises:
        DataError: no image has a name that the votes know, or the votes agree with the labels no better than chance would:
            they are those of other images.
    """
    counts = _counts_of(split, votes)
    seven = counts[:, : len(EMOTIONS)]
    total = seven.sum(1, keepdims=True)
    known, majority = total[:, 0] > 0, seven.argmax(1)
    _check_agreement(split.labels[known], majority[known], votes.source)
    return People(known, majority, (seven / np.maximum(total, 1)).astype(np.float32))


def voted_targets(split: Split, votes: Votes, weight: float, doubt_weight: float = 1.0) -> VotedTargets:
    """Return targets: the label's, and `weight` of the votes where an image has some.

    Votes for contempt, unknown and not-a-face stand for no class: an image counts as much as its share of votes for the
    seven, and only `doubt_weight` where one of those three has as many votes as the strongest class, or where FER+ left the
    image out.

    Raises:
        DataError: as `people`.
    """
    seen = people(split, votes)
    targets = np.eye(len(EMOTIONS), dtype=np.float32)[split.labels]
    targets[seen.known] = (1 - weight) * targets[seen.known] + weight * seen.shares[seen.known]
    counts = _counts_of(split, votes)
    seven, others = counts[:, : len(EMOTIONS)], counts[:, len(EMOTIONS) :]
    share = seven.sum(1) / np.maximum(counts.sum(1), 1)
    doubtful = others.max(1) >= seven.max(1)  # images without votes too: nothing against nothing
    weights = np.where(doubtful, doubt_weight, np.maximum(share, doubt_weight)).astype(np.float32)
    return VotedTargets(targets, weights)


def _counts_of(split: Split, votes: Votes) -> Counts:
    places = np.array([votes.rows.get(name, -1) for name in split.names], np.int64)
    if not (places >= 0).any():
        raise DataError(
            f"{votes.source}: no image is named as in the votes. Use fer2013.csv with FER+'s own fer2013new.csv, unchanged, or "
            "votes that name your image files"
        )
    counts = np.zeros((len(split), votes.counts.shape[1]), np.int64)
    counts[places >= 0] = votes.counts[places[places >= 0]]
    return counts


def _counted(names: list[str]) -> bool:
    """Return whether the names are FER+'s own: a number that counts the rows that have a name."""
    given = [name for name in names if name]
    return all(name == f"fer{index:07d}.png" for index, name in enumerate(given))


def _check_agreement(labels: npt.NDArray[np.int64], majority: npt.NDArray[np.int64], source: Path) -> None:
    """Raise `DataError` where the votes cannot be these images'. Real ones agree with FER-2013's labels in 64%."""
    if len(labels) < _MIN_IMAGES:
        return
    agreement = float((labels == majority).mean())
    classes = len(EMOTIONS)
    shares = [np.bincount(truth, minlength=classes) / len(labels) for truth in (labels, majority)]
    by_chance = float(shares[0] @ shares[1])
    if agreement < by_chance + _MARGIN:
        raise DataError(
            f"{source}: the votes agree with the labels in {100 * agreement:.1f}% of {len(labels)} images, and votes of other "
            f"images would in {100 * by_chance:.1f}%: these are not the votes for these images"
        )
