"""Faces and emotions in single pictures, through the very stages of the service."""

import threading
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias, overload

import numpy as np
import numpy.typing as npt

from moodline.errors import ClientError
from moodline.library._faces import Face, face_of
from moodline.library._settings import settings_of
from moodline.shared.bus.base import Position
from moodline.shared.errors import ImageError
from moodline.shared.messages import Emotions, Frame, StreamClass
from moodline.shared.metrics import Metrics
from moodline.shared.pipeline.stage import Received, Send, Stage
from moodline.shared.settings import Settings

if TYPE_CHECKING:
    from moodline.services.ingest.media.frames import BgrImage

Picture: TypeAlias = "npt.NDArray[np.uint8] | str | Path | Any"
"""uint8 (H, W, 3) or (H, W), a path, or a `PIL.Image.Image`."""

_AT_ONCE: Final = 64
_NOWHERE: Final = Position("", 0, 0)


@overload
def detect_emotions(  # type: ignore[overload-overlap]  # a path is a sequence, too, of letters
    image: npt.NDArray[np.uint8] | str | Path, *, color: str = ..., threads: int | None = ..., model: str | None = ...
) -> list[Face]: ...
@overload
def detect_emotions(
    image: Sequence[Picture], *, color: str = ..., threads: int | None = ..., model: str | None = ...
) -> list[list[Face]]: ...
@overload
def detect_emotions(image: Any, *, color: str = ..., threads: int | None = ..., model: str | None = ...) -> list[Any]: ...


def detect_emotions(image: Any, *, color: str = "bgr", threads: int | None = None, model: str | None = None) -> list[Any]:
    """Return the faces of a picture and the emotions that they show; of several pictures, a list for each.

    Blocks. Models are loaded at the first call and shared by all threads of the process. The answers are those of
    `moodline analyze` on a file with the same pixels.

    Args:
        image: uint8 (H, W, 3), or (H, W) for grey; a path; a PIL image. Or several: a list of these, or uint8 (N, H, W, 3).
        color: Order of the colours in arrays: `bgr` as OpenCV has them, or `rgb`. PIL images and files know theirs.
        threads: For each of the two networks; by default one for each processor.
        model: Name of the classifier's model.

    Raises:
        ImageError: an array is no picture: of another type or shape.
        SourceError: a file cannot be read.
        ClientError: a package is missing; the message names the extra that brings it.
    """
    if color not in ("bgr", "rgb"):
        raise ClientError(f"color is bgr or rgb, not {color!r}")
    settings = settings_of(threads, model)
    several = isinstance(image, list | tuple) or (isinstance(image, np.ndarray) and image.ndim == 4)
    pictures = list(image) if several else [image]
    found: list[list[Face]] = []
    for first in range(0, len(pictures), _AT_ONCE):
        found += _faces([as_bgr(one, color, settings) for one in pictures[first : first + _AT_ONCE]], settings)
    return found if several else found[0]


def as_bgr(picture: Picture, color: str, settings: Settings) -> "BgrImage":
    """Return a picture as uint8 (H, W, 3), blue-green-red, upright.

    Raises:
        ImageError, SourceError: it is none.
    """
    if isinstance(picture, str | Path):
        return _read(Path(picture), settings)
    if hasattr(picture, "convert") and hasattr(picture, "getexif"):
        from PIL import ImageOps

        opened: Any = picture
        upright = ImageOps.exif_transpose(opened) or opened
        return np.ascontiguousarray(np.asarray(upright.convert("RGB"), np.uint8)[:, :, ::-1])
    if not isinstance(picture, np.ndarray):
        raise ImageError(f"a picture is an array, a path or a PIL image, not {type(picture).__name__}")
    if picture.dtype != np.uint8:
        raise ImageError(f"a picture is an array of uint8, 0 to 255, not of {picture.dtype}")
    if picture.ndim == 2:
        picture = np.repeat(picture[:, :, None], 3, axis=2)
    if picture.ndim != 3 or picture.shape[2] != 3 or 0 in picture.shape:
        raise ImageError(f"a picture has the shape (height, width, 3) or (height, width), not {picture.shape}")
    return np.ascontiguousarray(picture[:, :, ::-1] if color == "rgb" else picture)


def _read(path: Path, settings: Settings) -> "BgrImage":
    from moodline.services.ingest.file.open import open_source

    resolved = path.expanduser().resolve()
    ingest = settings.ingest.model_copy(update={"media_root": resolved.parent})
    with closing(open_source(resolved.as_uri(), ingest)) as source:
        for frame in source.frames():
            return frame.to_bgr()
    raise ImageError("there is no picture in the file")


def _faces(images: "Sequence[BgrImage]", settings: Settings) -> list[list[Face]]:
    from moodline.services.aggregator.tracker import least_quality

    answers = _engine(settings).detect(images)
    faces = []
    least = least_quality(settings.aggregator)
    for image, answer in zip(images, answers, strict=True):
        size_px = (image.shape[1], image.shape[0])
        faces.append([face_of(face, size_px, readable=face.quality >= least) for face in answer.faces])
    return faces


class _Engine:
    """Detector and classifier of this process. One call at a time; each uses all threads."""

    def __init__(self, settings: Settings) -> None:
        from moodline.services.classifier.factory import open_model
        from moodline.services.classifier.stage import ClassifierStage
        from moodline.services.detector.factory import open_detector
        from moodline.services.detector.stage import DetectorStage

        self._lock = threading.Lock()
        self._settings = settings
        metrics = Metrics()
        detector, classifier = settings.detector, settings.classifier
        self._detector: Stage = DetectorStage(lambda: open_detector(detector), detector, metrics)
        self._classifier: Stage = ClassifierStage(open_model(classifier), classifier, metrics)

    def detect(self, images: "Sequence[BgrImage]") -> list[Emotions]:
        """Return what is seen in each picture."""
        frames = [self._frame(number, image) for number, image in enumerate(images)]
        with self._lock:
            faces = self._detector.process(frames, 0.0)
            received = [Received(one.message, _NOWHERE) for one in faces if isinstance(one, Send)]
            answers = self._classifier.process(received, 0.0)
        return [one.message for one in answers if isinstance(one, Send) and isinstance(one.message, Emotions)]

    def _frame(self, number: int, image: "BgrImage") -> Received:
        from moodline.services.ingest.media.encode import encode_jpeg, reduce_image

        ingest = self._settings.ingest
        reduced = reduce_image(image, ingest.max_side_px)
        frame = Frame(
            stream_id="picture",
            epoch=0,
            seq=number,
            event_time_us=0,
            captured_at_us=0,
            lane=StreamClass.FILE,
            width=reduced.shape[1],
            height=reduced.shape[0],
            jpeg=encode_jpeg(reduced, ingest.jpeg_quality),
        )
        return Received(frame, _NOWHERE)


_engines: dict[str, _Engine] = {}
_engines_lock = threading.Lock()


def _engine(settings: Settings) -> _Engine:
    key = settings.model_dump_json(include={"ingest", "detector", "classifier"})
    with _engines_lock:
        if key not in _engines:
            _engines[key] = _Engine(settings)
        return _engines[key]
