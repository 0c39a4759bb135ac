"""FER-2013 as arrays, cleaned.

The official parts stay apart: `train` is fitted, `validation` picks the epoch and measures. Random new splits would leak,
because the set holds byte-identical copies; those are dropped here.
"""

import hashlib
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from shared.emotions import CROP_SIDE_PX, EMOTIONS
from shared.errors import ImageError


@dataclass(frozen=True, slots=True)
class Split:
    """Images uint8 (N, 48, 48), grey, and labels int64 (N,), indices into `EMOTIONS`."""

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]

    def subset(self, index: npt.NDArray[np.intp]) -> "Split":
        """Return the rows of `index`."""
        return Split(self.images[index], self.labels[index])


def load_split(folder: Path) -> Split:
    """Read `folder/<class>/*.jpg`, in a fixed order.

    Raises:
        ImageError: a class is missing, or an image is not 48x48 px.
    """
    images, labels = [], []
    for label, name in enumerate(EMOTIONS):
        paths = sorted((folder / name).glob("*.jpg"))
        if not paths:
            raise ImageError(f"no images of class {name} in {folder}")
        for path in paths:
            with Image.open(path) as image:
                pixels = np.asarray(image.convert("L"))
            if pixels.shape != (CROP_SIDE_PX, CROP_SIDE_PX):
                raise ImageError(f"{path.name} is not {CROP_SIDE_PX}x{CROP_SIDE_PX} px")
            images.append(pixels)
            labels.append(label)
    return Split(np.stack(images), np.array(labels, np.int64))


def cleaned(train: Split, validation: Split) -> Split:
    """Return the training images that can teach something.

    Dropped: images without contrast, all but one of identical images, all of identical images whose labels disagree, and
    images that validation holds too.
    """
    groups: dict[bytes, list[int]] = defaultdict(list)
    for index, image in enumerate(train.images):
        groups[_digest(image)].append(index)
    held_out = {_digest(image) for image in validation.images}
    kept = [
        members[0]
        for digest, members in groups.items()
        if digest not in held_out and len(set(train.labels[members].tolist())) == 1 and np.ptp(train.images[members[0]]) > 0
    ]
    return train.subset(np.array(sorted(kept), np.intp))


def _digest(image: npt.NDArray[np.uint8]) -> bytes:
    return hashlib.sha256(image.tobytes()).digest()
