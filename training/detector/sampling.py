"""Training pictures: photos enlarged or shrunk around a face, turned, put together in fours, and made worse.

The size of a face is drawn first, evenly on a logarithmic scale, and the photo is scaled to it: so all sizes are taught alike,
though most faces of photos are small.
"""

from pathlib import Path
from typing import Final, NamedTuple

import cv2
import msgspec
import numpy as np
import numpy.typing as npt

from moodline.shared.errors import DataError
from moodline.training.detector.labels import decode_photo
from moodline.training.detector.photos import Photo, Rules

Image = npt.NDArray[np.uint8]
Rows = npt.NDArray[np.float32]


class SamplingConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The sampling of training pictures. Shares are of pictures.

    Attributes:
        side_px: Of the square picture.
        mosaic: Share that is put together of four photos.
        crowding: A photo with faces is drawn with a weight of their number to this power: 0 draws all alike, and most of
            them show one or two; 1 draws all faces alike, and most of those are in crowds.
        least_face_px, most_face_px: Range of face sizes (longer side); smaller ones are ignored.
        enlarging: A photo is enlarged at most so much.
        rotation_deg: Standard deviation; a tenth are turned by up to 45 degrees.
        grey, blur, jpeg, dark, noise, coarse: Shares that lose colour, are blurred, compressed, darkened, get noise, or lose
            resolution.
        covered: Share of the faces before which something is put: a mask, dark glasses, a hat's brim, a hand's breadth of
            another part of the picture. They stay faces.
        hard: A file of `moodline.training.detector.mine`, or nothing: photos with faces that were missed.
        hard_weight: A photo in it is drawn as if it had so many more faces for each face that was missed.
    """

    side_px: int = 320
    mosaic: float = 0.5
    crowding: float = 0.0
    least_face_px: float = 8.0
    most_face_px: float = 320.0
    enlarging: float = 5.0
    rotation_deg: float = 8.0
    grey: float = 0.15
    blur: float = 0.12
    jpeg: float = 0.2
    dark: float = 0.12
    noise: float = 0.12
    coarse: float = 0.12
    covered: float = 0.0
    hard: str = ""
    hard_weight: float = 3.0


class Sample(NamedTuple):
    """A training picture.

    Attributes:
        image: uint8 (S, S, 3) BGR.
        faces: float32 (N, 4), px.
        ignored: float32 (K, 4), px.
    """

    image: Image
    faces: Rows
    ignored: Rows


_LEAST_FILLED: Final = 0.55
"""A photo is not shrunk below so much of the size that just fits: of a smaller one mostly black would be left."""
_LEAST_SEEN: Final = 0.5
"""The least part of a face that must be left where it is cut off; a face of which less is left is ignored."""


class Sampler:
    """Makes the picture of a number, the same one each time.

    Args:
        photos: What pictures are made of.
        rules: Which boxes are taught.
        config: How.
        seed: Of everything random.
    """

    def __init__(self, photos: list[Photo], rules: Rules, config: SamplingConfig, seed: int) -> None:
        self._photos, self._config, self._seed = photos, config, seed
        self._taught = [rules.taught(photo.boxes) for photo in photos]
        counts = np.array([taught.sum() for taught in self._taught])
        self._with_faces = np.flatnonzero(counts)
        weights = counts[self._with_faces] ** config.crowding + config.hard_weight * self._missed(config)[self._with_faces]
        self._chances = weights / weights.sum() if len(weights) else weights

    def sample(self, epoch: int, number: int) -> Sample:
        """Return a picture of an epoch."""
        rng = np.random.default_rng((self._seed, epoch, number))
        side = self._config.side_px
        if rng.random() < self._config.mosaic:
            picture = self._mosaic(rng)
        else:
            picture = self._part(rng, side, side, self._config.most_face_px)
        if self._config.covered:
            picture = picture._replace(image=covered(picture.image, picture.faces, self._config.covered, rng))
        return picture._replace(image=worsened(picture.image, self._config, rng))

    def _missed(self, config: SamplingConfig) -> npt.NDArray[np.float64]:
        """Return for each photo how many of its faces were missed, 0 where nobody looked."""
        told = load_hard(Path(config.hard)) if config.hard else {}
        return np.array([told.get(photo.name, 0) for photo in self._photos], np.float64)

    def _mosaic(self, rng: np.random.Generator) -> Sample:
        side = self._config.side_px
        x, y = (round(side * part) for part in rng.uniform(0.3, 0.7, 2))
        image = np.zeros((side, side, 3), np.uint8)
        faces, ignored = [], []
        for left, top, wide, high in ((0, 0, x, y), (x, 0, side - x, y), (0, y, x, side - y), (x, y, side - x, side - y)):
            part = self._part(rng, wide, high, 0.8 * min(wide, high))
            image[top : top + high, left : left + wide] = part.image
            shift = np.array([left, top, left, top], np.float32)
            faces.append(part.faces + shift)
            ignored.append(part.ignored + shift)
        return Sample(image, np.concatenate(faces), np.concatenate(ignored))

    def _part(self, rng: np.random.Generator, wide: int, high: int, most_px: float) -> Sample:
        """Cut a `wide` by `high` picture out of a photo, which is scaled to a drawn size of a drawn face."""
        with_face = len(self._with_faces) > 0 and rng.random() < 0.8
        index = int(rng.choice(self._with_faces, p=self._chances) if with_face else rng.integers(len(self._photos)))
        photo, taught = self._photos[index], self._taught[index]
        height, width = photo.image.shape[:2]
        whole = min(wide / width, high / height)
        if taught.any():
            box = photo.boxes[rng.choice(np.flatnonzero(taught))]
            longer = max(box[2] - box[0], box[3] - box[1])
            wanted = np.exp(rng.uniform(np.log(self._config.least_face_px * 1.25), np.log(most_px)))
            scale = min(max(wanted / longer, _LEAST_FILLED * whole), self._config.enlarging)
            centre = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
            slack = max(0.0, 0.5 - 0.45 * scale * longer / min(wide, high))
            at = (wide * rng.uniform(0.5 - slack, 0.5 + slack), high * rng.uniform(0.5 - slack, 0.5 + slack))
        else:
            scale = whole * float(np.exp(rng.uniform(-0.4, 1.0)))
            centre, at = (width * rng.uniform(0.3, 0.7), height * rng.uniform(0.3, 0.7)), (wide / 2, high / 2)
        return _warped(photo, taught, _placed(rng, self._config, float(scale), centre, at), (wide, high), self._config)


class _Placed(NamedTuple):
    matrix: npt.NDArray[np.float64]
    scale: float
    turned: float


def _placed(
    rng: np.random.Generator, config: SamplingConfig, scale: float, centre: tuple[float, float], at: tuple[float, float]
) -> _Placed:
    """Return the affine map that scales, turns and mirrors around `centre` and puts it `at`."""
    turned = np.deg2rad(rng.uniform(-45, 45) if rng.random() < 0.1 else rng.normal(0, config.rotation_deg))
    mirror = -1.0 if rng.random() < 0.5 else 1.0
    cosine, sine = scale * np.cos(turned), scale * np.sin(turned)
    matrix = np.array([[cosine * mirror, -sine], [sine * mirror, cosine]])
    shift = np.array(at) - matrix @ np.array(centre)
    return _Placed(np.concatenate([matrix, shift[:, None]], 1), scale, float(turned))


def _warped(
    photo: Photo, taught: npt.NDArray[np.bool_], placed: _Placed, size: tuple[int, int], config: SamplingConfig
) -> Sample:
    image, matrix = photo.image, placed.matrix
    if placed.scale < 0.6:  # the warp samples points; averaging comes first
        factor = max(placed.scale * 1.2, 4 / min(image.shape[:2]))
        reduced = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
        back = np.array([image.shape[1] / reduced.shape[1], image.shape[0] / reduced.shape[0]])
        image, matrix = reduced, np.concatenate([matrix[:, :2] * back, matrix[:, 2:]], 1)
    picture = cv2.warpAffine(image, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    boxes, seen = moved_boxes(photo.boxes, placed.matrix, placed.scale, size)
    longer = np.maximum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1])
    good = taught & (seen >= _LEAST_SEEN) & (longer >= config.least_face_px)
    visible = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    return Sample(picture, boxes[good], boxes[visible & ~good])


def moved_boxes(
    boxes: npt.NDArray[np.float32], matrix: npt.NDArray[np.float64], scale: float, size: tuple[int, int]
) -> tuple[Rows, npt.NDArray[np.float64]]:
    """Return boxes under an affine map, clipped to the picture, and how much of each is left.

    A turned face keeps the sides of its box: a head is about as wide along the diagonal, while the box around the turned box
    would grow by up to 1.4.
    """
    middle = (boxes[:, :2] + boxes[:, 2:4]) / 2 @ matrix[:, :2].T + matrix[:, 2]
    half = (boxes[:, 2:4] - boxes[:, :2]) / 2 * scale
    whole = np.concatenate([middle - half, middle + half], 1)
    limit = np.array([*size, *size], np.float64)
    clipped = np.clip(whole, 0, limit)
    area = np.prod(whole[:, 2:] - whole[:, :2], axis=1)
    left = np.prod(clipped[:, 2:] - clipped[:, :2], axis=1)
    return clipped.astype(np.float32), left / np.maximum(area, 1e-9)


def load_hard(path: Path) -> dict[str, int]:
    """Read a file of `moodline.training.detector.mine`. Raises `DataError` where it is missing or damaged."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, int])
    except (OSError, msgspec.MsgspecError) as error:
        raise DataError(f"{path} cannot be read: {error}") from None


def covered(image: Image, faces: Rows, share: float, rng: np.random.Generator) -> Image:
    """Return a picture in which a `share` of the faces, float (N, 4) in px, has something before it."""
    image = image.copy()
    side = image.shape[0]
    for x1, y1, x2, y2 in faces[rng.random(len(faces)) < share]:
        wide, high = float(x2 - x1), float(y2 - y1)
        # Mask, glasses, brim, or one side: left, top, right and bottom as parts of the face.
        part = ((0, 0.5, 1, 1.05), (0.05, 0.25, 0.95, 0.5), (-0.1, -0.1, 1.1, 0.3), (-0.1, 0, 0.45, 1))[rng.integers(4)]
        jitter = rng.normal(0, 0.04, 4)
        left, top, right, bottom = (
            int(np.clip(edge, 0, side))
            for edge in (
                x1 + (part[0] + jitter[0]) * wide,
                y1 + (part[1] + jitter[1]) * high,
                x1 + (part[2] + jitter[2]) * wide,
                y1 + (part[3] + jitter[3]) * high,
            )
        )
        if right - left < 2 or bottom - top < 2:
            continue
        if rng.random() < 0.3:
            from_x, from_y = rng.integers(0, side - (right - left) + 1), rng.integers(0, side - (bottom - top) + 1)
            image[top:bottom, left:right] = image[from_y : from_y + bottom - top, from_x : from_x + right - left]
        else:
            colour = rng.integers(0, 256, 3) + rng.normal(0, rng.uniform(0, 12), (bottom - top, right - left, 3))
            image[top:bottom, left:right] = np.clip(colour, 0, 255).astype(np.uint8)
    return image


def worsened(image: Image, config: SamplingConfig, rng: np.random.Generator) -> Image:
    """Return a picture with other light and colours and, at times, less of everything."""
    draw = rng.random(6)
    side = image.shape[0]
    if draw[0] < config.coarse:
        small = cv2.resize(image, None, fx=(factor := rng.uniform(0.3, 0.8)), fy=factor, interpolation=cv2.INTER_AREA)
        image = cv2.resize(small, (side, side), interpolation=cv2.INTER_LINEAR)
    if draw[1] < config.blur:
        image = _blurred(image, rng)
    image = cv2.LUT(image, _light_table(draw[2] < config.dark, rng))
    if draw[3] < config.grey:
        image = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    if draw[4] < config.noise or draw[2] < config.dark / 2:
        grain = rng.normal(0, rng.uniform(3, 18), (side, side, 1 if rng.random() < 0.5 else 3))
        image = np.clip(image + grain, 0, 255).astype(np.uint8)
    if draw[5] < config.jpeg:
        data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(20, 85))])[1]
        image = decode_photo(data.tobytes(), "the picture")
    return image


def _blurred(image: Image, rng: np.random.Generator) -> Image:
    if rng.random() < 0.5:
        return cv2.GaussianBlur(image, (0, 0), rng.uniform(0.5, 2.2))  # type: ignore[no-any-return]
    length = int(rng.integers(3, 10))  # motion
    kernel = np.zeros((length, length), np.float32)
    angle = rng.uniform(0, np.pi)
    reach = np.array([np.cos(angle), np.sin(angle)]) * (length - 1) / 2
    ends = [tuple(round(value) for value in (length - 1) / 2 + sign * reach) for sign in (-1, 1)]
    cv2.line(kernel, ends[0], ends[1], 1.0)
    return cv2.filter2D(image, -1, kernel / kernel.sum())  # type: ignore[no-any-return]


def _light_table(dark: bool, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Return a look-up table (1, 256, 3): gamma, contrast, brightness, and another gain for each colour."""
    level = np.arange(256) / 255
    gamma = np.exp(rng.uniform(0.2, 0.8) if dark else rng.normal(0, 0.25))
    level = level**gamma
    level = (level - 0.5) * rng.uniform(0.6, 1.3) + 0.5 + rng.uniform(-0.12, 0.12)
    gain = (rng.uniform(0.25, 0.7) if dark else 1.0) * np.exp(rng.normal(0, 0.07, 3))
    table: npt.NDArray[np.uint8] = np.clip(level[None, :, None] * gain * 255, 0, 255).astype(np.uint8)
    return table
