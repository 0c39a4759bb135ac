"""Teach how well an expression can be read from a face (`moodline.services.detector.quality`).

    python -m moodline.training.quality --data fer2013 --votes ferplus-votes.csv --photos faces-unlabelled.tar \
        --yunet face_detection_yunet_n_640.onnx --model fer-2-small --out models/face-quality

What is taught is a chance: is the emotion model's answer what most people see?

- Faces of FER-2013 with ten votes, as they are and made worse: few pixels, darkness, blur, something before the face, a crop that
  misses half of it. The truth is whether the answer for the worse face is still what most people see in the good one. Where most
  voted for `unknown` or "not a face", the truth is no.
- Faces that Moodline's own detector cuts from photos, each in several changed copies. YuNet's landmarks tell which are turned
  away: the nose lies beyond an eye. Those, faces behind a mask (`covered.json`, by eye) and what YuNet calls no face count
  as no. The truth of the others is the model's confidence, which was calibrated on what people see.

A drawn mask hides the mouth: it counts as no, although the model's guess from the eyes alone is right in half of the cases.

FER-2013's validation part and the photos that the detector's training holds out are only measured.
"""

import argparse
import json
from pathlib import Path
from typing import Any, Final, NamedTuple

import cv2
import msgspec
import numpy as np
import numpy.typing as npt

from moodline.models import models_dir
from moodline.services.detector.crop import cut_square, square_around
from moodline.services.detector.own import OwnDetector
from moodline.services.detector.quality import FEATURES, WEIGHTS, FaceQuality, features
from moodline.shared.emotions import CROP_SIDE_PX, EMOTIONS
from moodline.training.augment import augmented, compressed, enlarged
from moodline.training.config import AugmentConfig
from moodline.training.data import Split, load_data
from moodline.training.detector.labels import decode_photo, overlap, read_photos
from moodline.training.detector.photos import is_held_out
from moodline.training.measures import roc
from moodline.training.predictor import open_predictor
from moodline.training.runs import load_arrays, write_arrays, write_json
from moodline.training.votes import Votes, load_votes, people

COVERED: Final = Path(__file__).with_name("covered.json")
KINDS: Final = ("as it is", "few pixels", "dark", "blurred", "masked", "covered in part", "beside the face")
METRICS: Final = "metrics.json"

_SHARES: Final = (0.28, 0.22, 0.14, 0.12, 0.08, 0.08, 0.08)
_COPIES_OF_PHOTO_FACES: Final = 8
_PHOTO_SHARE: Final = 0.4
"""The share of the loss that comes from what is taught by photos."""
_TURNED: Final = 0.7
"""Distance of the nose from the middle between the eyes, in distances of the eyes, from which on a face is in profile."""
_FRONTAL: Final = 0.3
_LEAST_FACE_PX: Final = 14
_LEAST_PHOTO_FACE_PX: Final = 24

Images = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


class Judged(NamedTuple):
    """Faces with their truth.

    Attributes:
        crops: uint8 (N, 48, 48).
        sides: Side of the face in the frame in px, int (N,).
        truth: Chance that the emotion model is right, float32 (N,), 0 to 1.
        kinds: What was done to the face, or what it is, (N,).
    """

    crops: Images
    sides: npt.NDArray[np.int64]
    truth: Floats
    kinds: npt.NDArray[np.str_]


class Covered(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of `covered.json`: centres of faces in px, by the photo's name, labelled by eye."""

    covered: dict[str, list[tuple[float, float]]]
    open: dict[str, list[tuple[float, float]]]


def made_worse(image: Images, kind: str, other: Images, rng: np.random.Generator) -> tuple[Images, int]:
    """Return a face, uint8 (48, 48), made worse in one way, and the side in px that it then has; `other` is what may cover it."""
    if kind == "few pixels":
        side = int(np.exp(rng.uniform(np.log(5), np.log(34))))
        return enlarged(image, side), side
    if kind == "dark":
        light = np.exp(rng.uniform(np.log(0.03), np.log(0.5)))
        worse = image * light + rng.uniform(0, 30) + rng.normal(0, rng.uniform(0, 9), image.shape)
        return np.clip(worse, 0, 255).astype(np.uint8), CROP_SIDE_PX
    if kind == "blurred":
        return _blurred(image, rng), CROP_SIDE_PX
    if kind in ("masked", "covered in part"):
        return _covered(image, other, kind == "masked", rng), CROP_SIDE_PX
    if kind == "beside the face":
        away = rng.uniform(0.25, 0.7) * CROP_SIDE_PX
        angle = rng.uniform(0, 2 * np.pi)
        matrix = np.array([[1, 0, away * np.cos(angle)], [0, 1, away * np.sin(angle)]])
        return np.asarray(cv2.warpAffine(image, matrix, image.shape, borderMode=cv2.BORDER_REPLICATE), np.uint8), CROP_SIDE_PX
    if rng.random() < 0.3:
        image = compressed(image, int(rng.integers(30, 90)))
    return image, int(rng.integers(CROP_SIDE_PX, 4 * CROP_SIDE_PX))


def _blurred(image: Images, rng: np.random.Generator) -> Images:
    if rng.random() < 0.6:
        return np.asarray(cv2.GaussianBlur(image, (0, 0), rng.uniform(0.8, 6)), np.uint8)
    length = int(rng.integers(5, 25))
    kernel = np.zeros((length, length), np.float32)
    angle = rng.uniform(0, np.pi)
    reach = np.array([np.cos(angle), np.sin(angle)]) * (length - 1) / 2
    first, last = ((round((length - 1) / 2 + sign * x) for x in reach) for sign in (-1, 1))
    cv2.line(kernel, tuple(first), tuple(last), 1.0)
    return np.asarray(cv2.filter2D(image, -1, kernel / kernel.sum()), np.uint8)


def _covered(image: Images, other: Images, is_mask: bool, rng: np.random.Generator) -> Images:
    """Put a mask, or dark glasses or a piece of something else, before a face."""
    shape = np.zeros_like(image)
    what = rng.random()
    if is_mask:
        top = rng.uniform(20, 29)
        points = [(0, top), (24, top - rng.uniform(0, 7)), (48, top), (46, 38), (34, 48), (14, 48), (2, 38)]
        cv2.fillPoly(shape, [np.rint(np.array(points) + rng.normal(0, 1.5, (7, 2))).astype(np.int32)], 1)
    elif what < 0.3:
        for middle in (14, 34):
            cv2.ellipse(shape, (middle, int(rng.integers(15, 22))), (10, int(rng.integers(6, 10))), 0, 0, 360, 1, -1)
    else:
        high, wide = rng.integers(16, 40, 2)
        top, left = rng.integers(-8, CROP_SIDE_PX - high + 8), rng.integers(-8, CROP_SIDE_PX - wide + 8)
        shape[max(0, top) : top + high, max(0, left) : left + wide] = 1
    level, grain = rng.uniform(10, 245), rng.uniform(0, 14)
    plain = np.linspace(-20, 20, CROP_SIDE_PX)[:, None] * rng.uniform(-1, 1) + level + rng.normal(0, grain, image.shape)
    cover = (
        np.roll(other, 24, 0) if rng.random() < 0.25 else cv2.GaussianBlur(np.clip(plain, 0, 255).astype(np.uint8), (0, 0), 0.7)
    )
    return np.where(shape > 0, cover, image).astype(np.uint8)


def voted_faces(split: Split, votes: Votes, model: Any, seed: int) -> Judged:
    """Return faces of FER-2013, most of them made worse, with the truth about the model's answer."""
    seen = people(split, votes)
    counts = np.stack([votes.counts[votes.rows[name]] if name in votes.rows else np.zeros(10, np.int64) for name in split.names])
    none = counts[:, len(EMOTIONS) + 1 :].sum(1) > counts[:, : len(EMOTIONS) + 1].max(1)
    usable = np.flatnonzero(seen.known | none)
    rng = np.random.default_rng(seed)
    chosen = usable
    kinds = rng.choice(np.array(KINDS), len(chosen), p=_SHARES)
    others = rng.permutation(chosen)
    made = [
        made_worse(split.images[at], kind, split.images[other], rng)
        for at, kind, other in zip(chosen, kinds, others, strict=True)
    ]
    crops, sides = np.stack([crop for crop, _ in made]), np.array([side for _, side in made])
    right = model.predict(crops).argmax(1) == seen.majority[chosen]
    truth = np.where(none[chosen] | (kinds == "masked"), 0.0, right).astype(np.float32)
    return Judged(crops, sides, truth, np.where(none[chosen], "not for people either", kinds))


def photo_faces(photos: Path, yunet: Path, model: Any) -> tuple[Judged, npt.NDArray[np.bool_]]:
    """Return faces that the shipped detector cuts from photos, and which of them are held out."""
    detector = OwnDetector(models_dir() / "face-small", None, 480, _LEAST_FACE_PX)
    landmarks = cv2.FaceDetectorYN.create(str(yunet), "", (320, 320), 0.5, 0.3, 500)
    told = msgspec.json.decode(COVERED.read_bytes(), type=Covered)
    crops, sides, kinds, held = [], [], [], []
    for name, data in read_photos(photos):
        image = decode_photo(data, name)
        boxes = detector.detect(image)[:12]
        turns = turned(image, boxes, landmarks) if len(boxes) else []
        for box, turn in zip(boxes.tolist(), turns, strict=True):
            square = square_around((box[0], box[1], box[2], box[3]), detector.square_from)
            kind = _kind(name, box, turn, square[2], told)
            if kind:
                crops.append(cut_square(image, *square))
                sides.append(square[2])
                kinds.append(kind)
                held.append(is_held_out(name) or ("mask" in name and len(crops) % 2 == 0))
    stacked, named = np.stack(crops), np.array(kinds)
    truth = np.where(named == "frontal", model.predict(stacked).max(1), 0.0).astype(np.float32)
    return Judged(stacked, np.array(sides), truth, named), np.array(held)


def changed_copies(faces: Judged, model: Any, seed: int) -> Judged:
    """Return faces of photos in changed copies, mirrored ones among them: of what is no readable face many, of the others two."""
    index = np.concatenate(
        [np.full(2 if kind == "frontal" else _COPIES_OF_PHOTO_FACES, at) for at, kind in enumerate(faces.kinds.tolist())]
    )
    crops = augmented(faces.crops[index], np.random.default_rng(seed), AugmentConfig(erasing=0.0, noise=0.3, low_resolution=0.0))
    kinds = faces.kinds[index]
    truth = np.where(kinds == "frontal", model.predict(crops).max(1), 0.0).astype(np.float32)
    return Judged(crops, faces.sides[index], truth, kinds)


def _evenly(split: Split, limit: int) -> Split:
    return split.subset(np.linspace(0, len(split) - 1, min(limit, len(split))).astype(np.intp))


def turned(image: Images, boxes: Floats, landmarks: Any) -> list[float | None]:
    """Return how far each face is turned to a side, by YuNet's landmarks; None where YuNet sees no face."""
    padded = cv2.copyMakeBorder(image, 0, -image.shape[0] % 32, 0, -image.shape[1] % 32, cv2.BORDER_CONSTANT)
    landmarks.setInputSize((padded.shape[1], padded.shape[0]))
    rows = landmarks.detect(padded)[1]
    if rows is None:
        return [None] * len(boxes)
    corners = np.concatenate([rows[:, :2], rows[:, :2] + rows[:, 2:4]], 1)
    found: list[float | None] = []
    for shared in overlap(boxes, corners):
        best = rows[int(shared.argmax())]
        right_eye, left_eye, nose = best[4:10].reshape(3, 2)
        axis = left_eye - right_eye
        away = float((nose - (right_eye + left_eye) / 2) @ axis) / max(float(axis @ axis), 1e-6)
        found.append(abs(away) if shared.max() > 0.4 else None)
    return found


def _kind(name: str, box: list[float], turn: float | None, side: int, told: Covered) -> str:
    """Return what a face is; nothing where that is not clear, or where it is too small to tell."""
    middle = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
    reach = (box[2] - box[0]) / 4

    def is_named(points: dict[str, list[tuple[float, float]]]) -> bool:
        return any(max(abs(middle[0] - x), abs(middle[1] - y)) < reach for x, y in points.get(name, ()))

    if side < _LEAST_PHOTO_FACE_PX:
        return ""
    if is_named(told.covered):
        return "behind a mask"
    if turn is None:
        return "no face"
    if turn >= _TURNED:
        return "profile"
    is_clear = "mask" not in name or is_named(told.open)
    return "frontal" if turn <= _FRONTAL and is_clear else ""


def feature_rows(faces: Judged) -> Floats:
    """Return the features of all faces, float32 (N, `FEATURES`)."""
    return np.stack([features(crop, int(side)) for crop, side in zip(faces.crops, faces.sides, strict=True)])


def fit(rows: Floats, truth: Floats, weights: Floats, hidden: int, epochs: int, seed: int) -> dict[str, Floats]:
    """Return the weights of the judge, taught with the cross-entropy."""
    import torch
    from torch import nn

    torch.manual_seed(seed)
    mean, scale = rows.mean(0), rows.std(0) + 0.02
    inputs, targets, importance = (torch.from_numpy(each) for each in ((rows - mean) / scale, truth, weights))
    network = nn.Sequential(nn.Linear(FEATURES, hidden), nn.ReLU(), nn.Dropout(0.3), nn.Linear(hidden, 1))
    optimiser = torch.optim.AdamW(network.parameters(), 2e-3, weight_decay=0.05)
    batch = 512
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, epochs * (len(rows) // batch + 1))
    for _ in range(epochs):
        for at in torch.randperm(len(rows)).split(batch):
            lost = nn.functional.binary_cross_entropy_with_logits(network(inputs[at])[:, 0], targets[at], importance[at])
            optimiser.zero_grad()
            lost.backward()
            optimiser.step()
            schedule.step()
    first, last = network[0], network[3]
    named = (mean, scale, first.weight.T, first.bias, last.weight[0], last.bias)
    parts = ("mean", "scale", "hidden", "hidden_bias", "answer", "answer_bias")
    return {
        name: np.ascontiguousarray(value if isinstance(value, np.ndarray) else value.detach().numpy()).astype(np.float32)
        for name, value in zip(parts, named, strict=True)
    }


def judge(weights: dict[str, Floats], faces: Judged) -> npt.NDArray[np.float64]:
    """Return the quality of each face as it is served."""
    quality = FaceQuality(weights)
    return np.array([quality.of(crop, int(side)) for crop, side in zip(faces.crops, faces.sides, strict=True)])


def figures(voted: Judged, voted_quality: Any, photos: Judged, photo_quality: Any, threshold: float) -> dict[str, Any]:
    """Return how good the judge is on faces that it was not taught with, at a threshold.

    By kind: how many there are, how often the emotion model is right, the share below the threshold, and how often the model is
    right below and above.
    """

    def share(values: Any) -> float | None:
        return round(float(np.mean(values)), 4) if len(values) else None

    kinds = {}
    for kind in dict.fromkeys([*KINDS, *voted.kinds.tolist()]):
        of, below = voted.kinds == kind, voted_quality < threshold
        kinds[kind] = {
            "faces": int(of.sum()),
            "right": share(voted.truth[of]),
            "unreadable": share(below[of]),
            "right_unreadable": share(voted.truth[of & below]),
            "right_readable": share(voted.truth[of & ~below]),
        }
    of_photos = {
        kind: {"faces": int((photos.kinds == kind).sum()), "unreadable": share(photo_quality[photos.kinds == kind] < threshold)}
        for kind in dict.fromkeys(photos.kinds.tolist())
    }
    area = roc(voted_quality, voted.truth > 0.5).area
    return {"threshold": threshold, "area_under_roc": round(area, 4), "fer2013_validation": kinds, "photos_held_out": of_photos}


def main() -> None:
    """Read the command line, teach, measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("data", "votes", "photos", "yunet", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--model", default="fer-2-small")
    parser.add_argument("--limit", type=int, default=16_000, help="most faces of FER-2013")
    parser.add_argument("--hidden", type=int, default=24)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--threshold", type=float, default=0.4, help="for the figures")
    parser.add_argument("--seed", type=int, default=7)
    told = parser.parse_args()
    cv2.setNumThreads(1)
    model, _ = open_predictor(told.model)
    data, votes = load_data(told.data), load_votes(told.votes)
    taught, measured = (
        voted_faces(_evenly(data.part(name), told.limit), votes, model, told.seed) for name in ("train", "validation")
    )
    photos, held = photo_faces(told.photos, told.yunet, model)
    print(len(taught.crops), "voted faces,", len(photos.crops), "of photos", flush=True)
    kept, tested = (
        Judged(photos.crops[part], photos.sides[part], photos.truth[part], photos.kinds[part]) for part in (~held, held)
    )
    copied = changed_copies(kept, model, told.seed)
    rows = np.concatenate([feature_rows(taught), feature_rows(copied)])
    share = _PHOTO_SHARE / (1 - _PHOTO_SHARE) * len(taught.crops) / len(copied.crops)
    importance = np.concatenate([np.ones(len(taught.crops)), np.full(len(copied.crops), share)]).astype(np.float32)
    weights = fit(rows, np.concatenate([taught.truth, copied.truth]), importance, told.hidden, told.epochs, told.seed)
    write_arrays(told.out / WEIGHTS, weights)
    weights = load_arrays(told.out / WEIGHTS)
    found = figures(measured, judge(weights, measured), tested, judge(weights, tested), told.threshold)
    write_json(told.out / METRICS, found)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
