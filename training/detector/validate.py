"""Validation of a network on photos that it does not learn from: held-out ones, against the teacher, and labelled ones."""

import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from moodline.services.detector.own import faces_of
from moodline.shared.errors import DataError
from moodline.training.detector.labels import decode_photo
from moodline.training.detector.measure import Matches, Picture, average_precision, match, point_at_precision
from moodline.training.detector.network import answers
from moodline.training.detector.photos import CROWDS, Photo, Rules
from moodline.training.detector.spec import Spec

LEAST_SCORE: Final = 0.02
LABELLED_SIDE_PX: Final = 320
LABELLED_IOU: Final = 0.4
_MULTIPLE_PX: Final = 32
_AT_A_TIME: Final = 16


class LabelledPhoto(NamedTuple):
    """A photo with the boxes that people gave it: uint8 (H, W, 3) BGR, and float32 (N, 4), x1, y1, x2, y2 in px."""

    name: str
    image: npt.NDArray[np.uint8]
    boxes: npt.NDArray[np.float32]


def load_labelled(archive: Path) -> list[LabelledPhoto]:
    """Read a tar.gz of photos and their `boxes.json`, in the order of names.

    Raises:
        DataError: it is missing or damaged.
    """
    try:
        with tarfile.open(archive) as tar:
            files = {Path(member.name).name: member for member in tar.getmembers() if member.isfile()}
            known = json.loads(_content(tar, files["boxes.json"]))
            return [
                LabelledPhoto(name, decode_photo(_content(tar, files[name]), name), _corners(known[name]))
                for name in sorted(known)
            ]
    except (OSError, tarfile.TarError, KeyError, ValueError) as error:
        raise DataError(f"{archive} cannot be read: {error}") from None


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    return file.read() if file else b""


def _corners(entries: list[dict[str, list[float]]]) -> npt.NDArray[np.float32]:
    boxes = np.array([entry["xywh"] for entry in entries], np.float32).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return boxes


def search_all(
    spec: Spec, state: Mapping[str, Any], images: Sequence[npt.NDArray[np.uint8]], side_px: int
) -> list[npt.NDArray[np.float64]]:
    """Return the faces, float64 (N, 5) in px, of images that are first brought to `side_px` at their longer side, if larger."""
    import torch

    found = []
    for start in range(0, len(images), _AT_A_TIME):
        pictures, backs = [], []
        for image in images[start : start + _AT_A_TIME]:
            scale = min(1.0, side_px / max(image.shape[:2]))
            size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
            small = cv2.resize(image, size, interpolation=cv2.INTER_AREA) if scale < 1 else image
            pictures.append(small)
            backs.append(np.array([image.shape[1] / size[0], image.shape[0] / size[1]] * 2 + [1]))
        high, wide = (-(-max(picture.shape[axis] for picture in pictures) // _MULTIPLE_PX) * _MULTIPLE_PX for axis in (0, 1))
        batch = np.zeros((len(pictures), 3, high, wide), np.uint8)
        for index, picture in enumerate(pictures):
            batch[index, :, : picture.shape[0], : picture.shape[1]] = picture.transpose(2, 0, 1)
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
            levels = [level.float().numpy() for level in answers(spec, state, torch.from_numpy(batch), training=False)]
        found += [faces_of([level[index] for level in levels], LEAST_SCORE) * back for index, back in enumerate(backs)]
    return found


def against_teacher(found: Sequence[npt.NDArray[np.float64]], photos: Sequence[Photo], rules: Rules) -> Matches:
    """Match with the teacher's taught boxes at an overlap of 0.5; its other boxes, and whatever is smaller, are ignored."""
    pictures = []
    for boxes, photo in zip(found, photos, strict=True):
        height, width = photo.image.shape[:2]
        limit = np.array([width, height, width, height])
        rows, known = boxes.copy(), np.clip(photo.boxes[:, :4], 0, limit)
        rows[:, :4] = np.clip(rows[:, :4], 0, limit)
        taught = rules.taught(photo.boxes)
        pictures.append(Picture(rows, known[taught], known[~taught], rules.least_side_px))
    return match(pictures, 0.5)


def against_labels(found: Sequence[npt.NDArray[np.float64]], photos: Sequence[LabelledPhoto]) -> Matches:
    """Match with people's boxes at an overlap of `LABELLED_IOU`."""
    nothing = np.empty((0, 4), np.float32)
    return match([Picture(rows, photo.boxes, nothing) for rows, photo in zip(found, photos, strict=True)], LABELLED_IOU)


def measure_all(
    spec: Spec, state: Mapping[str, Any], held_out: Sequence[Photo], labelled: Sequence[LabelledPhoto], rules: Rules
) -> dict[str, float]:
    """Return figures by name: average precision, recall at a precision, and mean overlap of what is right there."""
    groups = {
        "crowds": [photo for photo in held_out if photo.group == CROWDS],
        "others": [photo for photo in held_out if photo.group != CROWDS],
    }
    figures: dict[str, float] = {}
    for name, photos in groups.items():
        if photos:
            matches = against_teacher(search_all(spec, state, [photo.image for photo in photos], 416), photos, rules)
            figures |= _figures(name, matches, 0.9)
    if labelled:
        found = search_all(spec, state, [photo.image for photo in labelled], LABELLED_SIDE_PX)
        figures |= _figures("labelled", against_labels(found, labelled), 0.93)
    return figures


def _figures(name: str, matches: Matches, precision: float) -> dict[str, float]:
    point = point_at_precision(matches, precision)
    values = {
        "ap": average_precision(matches),
        f"recall_at_{precision}": point.recall,
        "iou": point.mean_iou,
        "threshold": point.threshold,
    }
    return {f"{name}_{key}": round(value, 4) for key, value in values.items()}
