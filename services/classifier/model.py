"""The model seam."""

from typing import Protocol

import numpy as np
import numpy.typing as npt

Crops = npt.NDArray[np.uint8]
"""uint8 (N, 48, 48), grey."""

Probabilities = npt.NDArray[np.float32]
"""float32 (N, 7) in the order of `shared.emotions.EMOTIONS`; each row sums to 1."""


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
