"""Faces and emotions in single pictures: the interface between the API and the models."""

from collections.abc import Sequence
from typing import Protocol

import msgspec


class PictureFace(msgspec.Struct, frozen=True, kw_only=True):
    """One face.

    Attributes:
        box: Left, top, right, bottom in px of the upright picture.
        score: The detector's, 0 to 1.
        quality: How well an expression can be read from it, 0 to 1.
        probabilities: Seven, in the order of `EMOTIONS`, that sum to 1.
        is_readable: The quality is enough.
    """

    box: tuple[float, float, float, float]
    score: float
    quality: float
    probabilities: tuple[float, ...]
    is_readable: bool = True


class ClassifiedPicture(msgspec.Struct, frozen=True, kw_only=True):
    """The faces found in one picture; width and height in px, upright. `too_small` counts faces that are too small to look at."""

    width: int
    height: int
    faces: tuple[PictureFace, ...]
    model: str
    too_small: int = 0


class PictureClassifier(Protocol):
    """Looks at pictures. Thread-safe."""

    def classify(self, pictures: Sequence[bytes]) -> list[ClassifiedPicture]:
        """Return what is in each of these JPEG, PNG or WebP files. Blocks until they have had their turn.

        Raises:
            InvalidImageError: one of them cannot be read, or has too many px; nothing of the others is told.
            ModelError: the models cannot be loaded.
        """
        ...
