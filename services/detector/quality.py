"""Estimates how well an expression can be read from a face, from 0 (not at all) to 1.

The quality is the chance that the emotion model's answer is what most people see, learnt without regard to which emotion it is
(after Best-Rowden and Jain, "Learning face image quality from human assessments", 2018). It falls with few pixels, darkness,
blur, a hand or a mask before the face, and with a face that is turned away.

What it looks at: a histogram of oriented gradients (Dalal and Triggs, 2005) of the crop, its light, contrast, sharpness and
symmetry, and how many pixels of the frame it was made of. A network with one hidden layer, in NumPy, does the rest.
"""

import io
import math
import zipfile
from functools import lru_cache
from pathlib import Path
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from moodline.models import models_dir
from moodline.shared.emotions import CROP_SIDE_PX
from moodline.shared.errors import ModelError

FOLDER: Final = "face-quality"
WEIGHTS: Final = "quality.npz"
FEATURES: Final = 907
PARTS: Final = ("mean", "scale", "hidden", "hidden_bias", "answer", "answer_bias")

Crop = npt.NDArray[np.uint8]
"""uint8 (48, 48), grey."""

_HOG: Final = cv2.HOGDescriptor((CROP_SIDE_PX, CROP_SIDE_PX), (16, 16), (8, 8), (8, 8), 9)
_LEAST_SIDE_PX: Final = 4


class FaceQuality:
    """Judges crops. What it answers for a crop depends on nothing else; safe to use from several threads.

    Args:
        weights: Arrays by the names of `PARTS`: what is subtracted from and then divides the features, each (907,); the hidden
            layer (907, h) and (h,); the answer (h,) and (1,).

    Raises:
        ModelError: one is missing, or they do not fit together.
    """

    def __init__(self, weights: dict[str, npt.NDArray[np.float32]]) -> None:
        try:
            parts = [np.asarray(weights[name], np.float32) for name in PARTS]
        except KeyError as error:
            raise ModelError(f"the weights of the face quality lack {error}: install Moodline again") from None
        width = parts[3].size
        wanted = [(FEATURES,), (FEATURES,), (FEATURES, width), (width,), (width,), (1,)]
        if [part.shape for part in parts] != wanted or not all(np.isfinite(part).all() for part in parts):
            raise ModelError("the weights of the face quality do not fit together: install Moodline again")
        self._mean, self._scale, self._hidden, self._hidden_bias, self._answer, self._answer_bias = parts

    def of(self, crop: Crop, side_px: int) -> float:
        """Return the quality of a face, 0 to 1.

        Args:
            crop: As the emotion model sees it.
            side_px: Side of the square in the frame that it was made of.
        """
        at = (features(crop, side_px) - self._mean) / self._scale
        hidden = np.maximum(at @ self._hidden + self._hidden_bias, 0)
        return 1 / (1 + math.exp(-min(max(float(hidden @ self._answer + self._answer_bias[0]), -30.0), 30.0)))


def features(crop: Crop, side_px: int) -> npt.NDArray[np.float32]:
    """Return what a face is judged by, float32 (907,); see the module."""
    grey = crop.astype(np.float32) / 255
    light, contrast = float(grey.mean()), float(grey.std())
    mirrored = grey[:, ::-1]
    symmetry = float(((grey - light) * (mirrored - light)).mean()) / max(contrast * contrast, 1e-4)
    edges = float(np.abs(cv2.Laplacian(grey, cv2.CV_32F)).mean())
    size = math.log2(min(max(side_px, _LEAST_SIDE_PX), CROP_SIDE_PX) / CROP_SIDE_PX)
    dark, bright = float((crop < 16).mean()), float((crop > 240).mean())
    own = np.array([light, contrast, symmetry, edges / max(contrast, 0.02), size, dark, bright], np.float32)
    return np.concatenate([np.asarray(_HOG.compute(crop), np.float32).ravel(), own])


@lru_cache(maxsize=1)
def load_quality() -> FaceQuality:
    """Return the judge that comes with Moodline.

    Raises:
        ModelError: its file is missing or damaged.
    """
    return read_quality(models_dir() / FOLDER)


def read_quality(folder: Path) -> FaceQuality:
    """Return the judge in a folder. Raises `ModelError` as `load_quality`."""
    path = folder / WEIGHTS
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as arrays:
            weights = {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, EOFError, KeyError, AttributeError, TypeError, zipfile.BadZipFile) as error:
        raise ModelError(f"{path} cannot be read ({type(error).__name__}): install Moodline again") from None
    return FaceQuality(weights)
