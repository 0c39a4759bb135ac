"""The face detector seam."""

from typing import Protocol

import numpy as np
import numpy.typing as npt

BgrImage = npt.NDArray[np.uint8]
"""uint8 (H, W, 3), blue-green-red, row-major."""

Detections = npt.NDArray[np.float32]
"""float32 (N, 5): x1, y1, x2, y2 in px of the given image, clipped to it, and score 0 to 1; ordered by score, best first."""


class FaceDetector(Protocol):
    """Finds faces in an image. Not thread-safe: one detector per thread."""

    square_from: str
    """How a crop's side follows from a box: `width` (Haar) or `longer_side` (YuNet-like)."""

    def detect(self, image: BgrImage) -> Detections:
        """Return the faces of one image; (0, 5) when there are none.

        Raises:
            ImageError: the array is not uint8 (H, W, 3) or is empty.
        """
        ...
