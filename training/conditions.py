"""Conditions of a service that a data set does not have: each changes crops uint8 (N, 48, 48) accordingly."""

from collections.abc import Callable
from typing import Final

import cv2
import numpy as np

from moodline.services.classifier.model import Model, Probabilities
from moodline.shared.emotions import CROP_SIDE_PX
from moodline.training.augment import Images, compressed, enlarged

_SEED: Final = 2013
_OFF: Final = 0.1
_CROP_PX: Final = 44

Condition = Callable[[Images], Images]


def off_in_place(images: Images) -> Images:
    """The crop is 10% of its side away, in a direction of its own; beyond the image its edge goes on."""
    angles = np.random.default_rng(_SEED).uniform(0, 2 * np.pi, len(images))
    shifts = np.stack([np.cos(angles), np.sin(angles)], 1) * _OFF * CROP_SIDE_PX
    return np.stack([_cut(image, 1.0, shift) for image, shift in zip(images, shifts, strict=True)])


def off_in_scale(images: Images) -> Images:
    """The crop is 10% too large or too small."""
    larger = np.random.default_rng(_SEED).random(len(images)) < 0.5
    return np.stack(
        [_cut(image, 1 + _OFF if large else 1 - _OFF, np.zeros(2)) for image, large in zip(images, larger, strict=True)]
    )


def jpeg_80(images: Images) -> Images:
    """JPEG at quality 80."""
    return np.stack([compressed(image, 80) for image in images])


def small_24_px(images: Images) -> Images:
    """The face has 24 px a side and is enlarged."""
    return np.stack([enlarged(image, 24) for image in images])


def dim(images: Images) -> Images:
    """A third of the light, at the dark end."""
    return (images // 3).astype(np.uint8)


def washed_out(images: Images) -> Images:
    """A third of the contrast, at the bright end."""
    return (images // 3 + 170).astype(np.uint8)


CONDITIONS: Final[dict[str, tuple[str, Condition]]] = {
    "off_in_place": ("crop off by 10% in place", off_in_place),
    "off_in_scale": ("crop off by 10% in scale", off_in_scale),
    "jpeg_80": ("JPEG at quality 80", jpeg_80),
    "small_24_px": ("face of 24 px, enlarged", small_24_px),
    "dim": ("dim light (a third, dark)", dim),
    "washed_out": ("washed out (a third of the contrast, bright)", washed_out),
}


def flipped_mean(model: Model, images: Images) -> Probabilities:
    """Return the mean answer for each image and its mirror image."""
    mean = (model.predict(images) + model.predict(_mirrored(images))) / 2
    return mean.astype(np.float32)


def ten_crop_mean(model: Model, images: Images) -> Probabilities:
    """Return the mean answer for the corners and the centre, 44 px a side and enlarged, and their mirror images."""
    rest = CROP_SIDE_PX - _CROP_PX
    total = np.zeros((len(images), 7), np.float64)
    for top, left in ((0, 0), (0, rest), (rest, 0), (rest, rest), (rest // 2, rest // 2)):
        part = images[:, top : top + _CROP_PX, left : left + _CROP_PX]
        crops = np.stack([cv2.resize(image, (CROP_SIDE_PX, CROP_SIDE_PX)) for image in part])
        total += model.predict(crops) + model.predict(_mirrored(crops))
    return (total / 10).astype(np.float32)


def _mirrored(images: Images) -> Images:
    return np.ascontiguousarray(images[:, :, ::-1])


def _cut(image: Images, scale: float, shift: np.ndarray) -> Images:
    """Return what a crop of `scale` times the size, `shift` px away, would hold."""
    centre = (CROP_SIDE_PX - 1) / 2
    matrix = np.array([[scale, 0, centre * (1 - scale) + shift[0]], [0, scale, centre * (1 - scale) + shift[1]]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    cut: Images = cv2.warpAffine(image, matrix, (CROP_SIDE_PX, CROP_SIDE_PX), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return cut
