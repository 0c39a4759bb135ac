"""The random changes that a training image goes through: what a detector, a camera and a codec do to a face, and more.

With OpenCV on uint8: about 40 us an image, a tenth of a training step at most.
"""

from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from moodline.shared.emotions import CROP_SIDE_PX
from moodline.training.config import AugmentConfig

Images = npt.NDArray[np.uint8]

_CENTRE: Final = (CROP_SIDE_PX - 1) / 2
_GREYS: Final = np.linspace(0, 1, 256, dtype=np.float32)[None]


def augmented(images: Images, random: np.random.Generator, config: AugmentConfig) -> Images:
    """Return changed copies of images uint8 (N, 48, 48). The same generator state gives the same bytes."""
    changed = images.copy()
    if not config.enabled or not len(images):
        return changed
    _compress(changed, random, config.jpeg)
    _lower_resolution(changed, random, config.low_resolution)
    matrices, tables = _matrices(len(images), random, config), _light(len(images), random, config)
    for index, image in enumerate(changed):
        moved = cv2.warpAffine(
            image,
            matrices[index],
            (CROP_SIDE_PX, CROP_SIDE_PX),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
        changed[index] = cv2.LUT(moved, tables[index])
    if random.random() < config.noise:
        changed = _noisy(changed, random, config.noise_strength)
    _erase(changed, random, config.erasing)
    return changed


def compressed(image: Images, quality: int) -> Images:
    """Return one image after JPEG compression."""
    data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_GRAYSCALE), np.uint8)


def enlarged(image: Images, side_px: int) -> Images:
    """Return one image as it is when the face had only `side_px` pixels a side."""
    small = cv2.resize(image, (side_px, side_px), interpolation=cv2.INTER_AREA)
    large: Images = cv2.resize(small, (CROP_SIDE_PX, CROP_SIDE_PX), interpolation=cv2.INTER_LINEAR)
    return large


def mixed(images: Images, share: float, order: npt.NDArray[np.intp]) -> Images:
    """Return `share` of each image and the rest of the one that `order` names (Zhang et al., "mixup", 2018)."""
    blended = cv2.addWeighted(images.reshape(len(images), -1), share, images[order].reshape(len(images), -1), 1 - share, 0)
    return blended.reshape(images.shape)  # type: ignore[no-any-return]


def _compress(images: Images, random: np.random.Generator, share: float) -> None:
    for index in np.flatnonzero(random.random(len(images)) < share):
        images[index] = compressed(images[index], int(random.integers(40, 90)))


def _lower_resolution(images: Images, random: np.random.Generator, share: float) -> None:
    for index in np.flatnonzero(random.random(len(images)) < share):
        images[index] = enlarged(images[index], int(random.integers(18, 34)))


def _matrices(count: int, random: np.random.Generator, config: AugmentConfig) -> npt.NDArray[np.float64]:
    """Return where each pixel of a new image comes from, float64 (N, 2, 3)."""
    angle = np.deg2rad(random.standard_normal(count) * config.rotation_deg)
    scale = random.uniform(config.scale_min, config.scale_max, count)
    mirror = np.where(random.random(count) < config.flip, -1.0, 1.0)
    stretch = random.uniform(1 - config.stretch, 1 + config.stretch, count)
    shift = random.uniform(-config.shift, config.shift, (count, 2)) * CROP_SIDE_PX
    cos, sin = np.cos(angle) * scale, np.sin(angle) * scale
    linear = np.stack([cos * mirror * stretch, -sin, sin * mirror, cos / stretch], 1).reshape(-1, 2, 2)
    # Around the image's centre.
    offset = shift + _CENTRE - linear.sum(2) * _CENTRE
    return np.concatenate([linear, offset[:, :, None]], 2)


def _light(count: int, random: np.random.Generator, config: AugmentConfig) -> Images:
    """Return a table of new grey values for each image, uint8 (N, 256): gamma, contrast, brightness, clipped as in a camera."""
    gamma = np.exp(random.uniform(-config.gamma, config.gamma, (count, 1)))
    contrast = random.uniform(config.contrast_min, config.contrast_max, (count, 1))
    brightness = random.uniform(-config.brightness, config.brightness, (count, 1))
    value = (2 * _GREYS**gamma - 1) * contrast + brightness
    return np.rint((np.clip(value, -1, 1) + 1) * 127.5).astype(np.uint8)


def _noisy(images: Images, random: np.random.Generator, strength: float) -> Images:
    grain = random.standard_normal(images.shape, np.float32)
    grain *= (random.random(len(images), np.float32) * (strength * 127.5))[:, None, None]
    grain += images
    return np.rint(np.clip(grain, 0, 255)).astype(np.uint8)


def _erase(images: Images, random: np.random.Generator, share: float) -> None:
    for index in np.flatnonzero(random.random(len(images)) < share):
        height, width = random.integers(6, 20, 2)
        top, left = random.integers(0, CROP_SIDE_PX - height), random.integers(0, CROP_SIDE_PX - width)
        images[index, top : top + height, left : left + width] = random.integers(0, 256)
