"""The model seam."""

from typing import Protocol

import numpy as np
import numpy.typing as npt

from moodline.shared.emotions import CROP_SIDE_PX
from moodline.shared.errors import ModelError

Crops = npt.NDArray[np.uint8]
"""uint8 (N, 48, 48), grey."""

Probabilities = npt.NDArray[np.float32]
"""float32 (N, 7) in the order of `moodline.shared.emotions.EMOTIONS`; each row sums to 1."""


class Model(Protocol):
    """An emotion classifier. A crop's answer does not depend on its neighbours or its place in the batch, bit for bit."""

    name: str

    def predict(self, crops: Crops) -> Probabilities:
        """Classify any number of crops, 0 included. Pre-processing is inside.

        Raises:
            ModelError: the array has another shape or dtype.
        """
        ...

    def close(self) -> None:
        """Release the model."""
        ...


def check_crops(crops: object) -> None:
    """Raise `ModelError` unless this is a batch of crops."""
    if not isinstance(crops, np.ndarray) or crops.dtype != np.uint8 or crops.shape[1:] != (CROP_SIDE_PX, CROP_SIDE_PX):
        shape, kind = getattr(crops, "shape", None), getattr(crops, "dtype", type(crops).__name__)
        raise ModelError(f"crops must be uint8 (N, {CROP_SIDE_PX}, {CROP_SIDE_PX}), not {kind} {shape}")
