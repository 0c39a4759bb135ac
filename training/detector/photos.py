"""Photos with a teacher's labels, decoded and held in memory, and which of them are held out."""

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from moodline.shared.errors import DataError
from moodline.training.detector.labels import Boxes, decode_photo, load_labels, read_photos

CORRECTIONS: Final = Path(__file__).parent / "corrections.json"
CROWDS: Final = "shanghaitech"
_CROWDS_HELD_OUT: Final = 4
_OTHERS_HELD_OUT: Final = 20


class Photo(NamedTuple):
    """A photo and all that the teacher saw in it.

    Attributes:
        name: Path in the archive.
        image: uint8 (H, W, 3) BGR.
        boxes: float32 (N, 5), x1, y1, x2, y2 in px, score.
    """

    name: str
    image: npt.NDArray[np.uint8]
    boxes: Boxes

    @property
    def group(self) -> str:
        """The set that it comes from."""
        return self.name.split("/")[-2] if "/" in self.name else ""


class Rules(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Selects the teacher's boxes that are taught; the others become regions to ignore.

    Attributes:
        least_score: Of the teacher.
        least_side_px: Longer side in the photo; the teacher saw it at twice that size, too.
    """

    least_score: float = 0.7
    least_side_px: float = 12.0

    def taught(self, boxes: Boxes) -> npt.NDArray[np.bool_]:
        """Say of each box whether it is taught."""
        longer = np.maximum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1])
        chosen: npt.NDArray[np.bool_] = (boxes[:, 4] >= self.least_score) & (longer >= self.least_side_px)
        return chosen


def is_held_out(name: str) -> bool:
    """Say whether a photo is kept for validation: a quarter of the crowds, a twentieth of all else, by its name alone."""
    share = _CROWDS_HELD_OUT if f"{CROWDS}/" in name else _OTHERS_HELD_OUT
    return zlib.crc32(name.encode()) % share == 0


class Corrections(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Corrections by people who checked 1,958 of the teacher's boxes: centres of boxes in px, by the photo's name.

    Attributes:
        not_a_face: Dogs, monkeys, clocks, wheels: training learns that there is nothing.
        doubtful: Backs of heads, helmets, masks, drawings: training ignores them.
    """

    not_a_face: dict[str, list[tuple[float, float]]] = {}
    doubtful: dict[str, list[tuple[float, float]]] = {}

    def applied(self, name: str, boxes: Boxes) -> Boxes:
        """Return a photo's boxes without those that are none, and with a score of 0 for those that are doubtful."""
        wrong = _around(boxes, self.not_a_face.get(name, ()))
        corrected = boxes.copy()
        corrected[_around(boxes, self.doubtful.get(name, ())), 4] = 0
        return corrected[~wrong]


def load_corrections(path: Path = CORRECTIONS) -> Corrections:
    """Read corrections.

    Raises:
        DataError: the file is missing or damaged.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=Corrections)
    except (OSError, msgspec.MsgspecError) as error:
        raise DataError(f"{path} cannot be read: {error}") from None


def _around(boxes: Boxes, points: Sequence[tuple[float, float]]) -> npt.NDArray[np.bool_]:
    """Say of each box whether a point is near its middle: within a quarter of its sides."""
    near = np.zeros(len(boxes), bool)
    for x, y in points:
        away_x = np.abs((boxes[:, 0] + boxes[:, 2]) / 2 - x) <= np.maximum(2, (boxes[:, 2] - boxes[:, 0]) / 4)
        away_y = np.abs((boxes[:, 1] + boxes[:, 3]) / 2 - y) <= np.maximum(2, (boxes[:, 3] - boxes[:, 1]) / 4)
        near |= away_x & away_y
    return near


def load_photos(archive: Path, labels: Path, held_out: bool) -> list[Photo]:
    """Read the photos of an archive that have labels.

    Args:
        archive: Tar archive of photos.
        labels: What the teacher said of them.
        held_out: Those for validation, or else those for training.

    Raises:
        DataError: a file is missing or damaged, or there is no such photo.
    """
    known, corrections = load_labels(labels), load_corrections()
    photos = []
    for name, data in read_photos(archive):
        if name in known and is_held_out(name) == held_out:
            photos.append(Photo(name, decode_photo(data, name), corrections.applied(name, known[name].array())))
    if not photos:
        raise DataError(f"{labels} says nothing of the photos in {archive}")
    return photos
