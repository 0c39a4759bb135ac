"""FER+: ten people's votes for each image of FER-2013, as distributions over our seven classes.

From Barsoum et al., "Training deep networks for facial expression recognition with crowd-sourced label distribution", 2016.
"""

from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from moodline.shared.emotions import EMOTIONS
from moodline.shared.errors import DataError
from moodline.training.data import Split, open_csv

_COLUMNS: Final = ("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral")
"""In the order of `EMOTIONS`. Contempt, unknown and NF (not a face) have no class here."""

Votes = dict[str, npt.NDArray[np.float32]]
"""Image name to a distribution float32 (7,)."""


def load_votes(path: Path) -> Votes:
    """Read a FER+ CSV. Images without a name or without a vote for any of the seven are left out.

    Raises:
        DataError: a column is missing, or a vote is not a number from 0 on.
    """
    votes: Votes = {}
    with open_csv(path) as rows:
        for index, (name, *counts) in enumerate(rows.named(("image name", *_COLUMNS))):
            if not all(count.strip().isdigit() for count in counts):
                raise DataError(f"{path}, line {index + 2}: a vote is not a whole number")
            given = np.array([int(count) for count in counts], np.float32)
            if name.strip() and given.sum() > 0:
                votes[name.strip()] = given / given.sum()
    if not votes:
        raise DataError(f"{path} holds no votes")
    return votes


def voted_targets(split: Split, votes: Votes, weight: float) -> npt.NDArray[np.float32]:
    """Return targets float32 (N, 7): the label's, and `weight` of the votes where an image has some.

    Raises:
        DataError: no image has a name that the votes know.
    """
    targets = np.eye(len(EMOTIONS), dtype=np.float32)[split.labels]
    known = [index for index, name in enumerate(split.names) if name in votes]
    if not known:
        raise DataError("no image is named as in the votes (fer0000000.png …): use fer2013.csv, or FER+'s own image names")
    for index in known:
        targets[index] = (1 - weight) * targets[index] + weight * votes[split.names[index]]
    return targets
