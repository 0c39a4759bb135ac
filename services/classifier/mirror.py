"""A model that looks at each face twice, as it is and in the mirror, and answers the mean of both."""

from typing import Final

import numpy as np

from moodline.services.classifier.model import Crops, Model, Probabilities, check_crops

VIEWS: Final = 2


class MirroredModel:
    """Answers the mean for a crop and its mirror image, so both get the same answer, bit for bit.

    The two views of a crop need not be in one batch: the answer of the model below depends on no neighbour, and the sum of two
    numbers on no order. So what holds for the model below holds here: the same bits whatever is asked at the same time.

    Args:
        model: What answers for one view; closed with this one.
    """

    def __init__(self, model: Model) -> None:
        self.single = model
        self.name = model.name

    def predict(self, crops: Crops) -> Probabilities:
        check_crops(crops)
        answers = self.single.predict(np.concatenate([crops, crops[:, :, ::-1]]))
        mean: Probabilities = (answers[: len(crops)] + answers[len(crops) :]) * np.float32(1 / VIEWS)
        return mean

    def close(self) -> None:
        self.single.close()


def with_views(model: Model, views: str) -> Model:
    """Return the model that answers as a manifest's `views` says."""
    return MirroredModel(model) if views == "mirror" else model


def single_view_of(model: Model) -> Model:
    """Return the model that answers for one view."""
    return model.single if isinstance(model, MirroredModel) else model


def views_of(model: Model) -> int:
    """Return how many crops go through the network for one face."""
    return VIEWS if isinstance(model, MirroredModel) else 1
