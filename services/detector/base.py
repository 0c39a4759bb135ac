"""The face detector seam."""

from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

BgrImage = npt.NDArray[np.uint8]
"""uint8 (H, W, 3), blue-green-red, row-major."""

Detections = npt.NDArray[np.float32]
"""float32 (N, 5): x1, y1, x2, y2 in px of the given image, clipped to it, and score 0 to 1; ordered by score, best first."""


class Found(NamedTuple):
    """The result of one search.

    Attributes:
        faces: Those that are large enough to be looked at.
        too_small: Those that are narrower than the least width of a face; they are counted, nothing else.
    """

    faces: Detections
    too_small: Detections


class FaceDetector(Protocol):
    """Finds faces in an image. Not thread-safe: one detector per thread."""

    square_from: str
    """The side of the box that sets the crop's side: `width` (Haar) or `longer_side` (YuNet-like)."""

    def search(self, image: BgrImage) -> Found:
        """Return the faces of one image, and apart from them those that are too small.

        Raises:
            ImageError: as `detect`.
        """
        ...

    def detect(self, image: BgrImage) -> Detections:
        """Return the faces of one image that are large enough; (0, 5) when there are none.

        Raises:
            ImageError: the array is not uint8 (H, W, 3) or is empty.
        """
        ...
