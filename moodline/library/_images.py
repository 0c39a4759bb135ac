"""Faces and emotions in single pictures, through the very stages of the service."""

import os
import threading
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, overload

import numpy as np
import numpy.typing as npt

from moodline.library._faces import Face, face_of
from moodline.library._pictures import Picture, as_bgr, color_of, named_in_errors, pictures_of
from moodline.library._settings import settings_of
from moodline.shared.bus.base import Position
from moodline.shared.messages import Emotions, Frame, StreamClass
from moodline.shared.metrics import Metrics
from moodline.shared.pipeline.stage import Received, Send, Stage
from moodline.shared.settings import Settings

if TYPE_CHECKING:
    from moodline.services.ingest.media.frames import BgrImage

_AT_ONCE: Final = 64
_NOWHERE: Final = Position("", 0, 0)


@overload
def detect_emotions(  # type: ignore[overload-overlap]  # a path is a sequence, too, of letters
    image: npt.NDArray[np.uint8] | str | os.PathLike[str] | bytes,
    *,
    color: str = ...,
    threads: int | None = ...,
    model: str | None = ...,
) -> list[Face]: ...
@overload
def detect_emotions(
    image: Iterable[Picture], *, color: str = ..., threads: int | None = ..., model: str | None = ...
) -> list[list[Face]]: ...
@overload
def detect_emotions(image: Any, *, color: str = ..., threads: int | None = ..., model: str | None = ...) -> list[Any]: ...


def detect_emotions(image: Any, *, color: str = "bgr", threads: int | None = None, model: str | None = None) -> list[Any]:
    """Return the faces of a picture and the emotions that they show; of several pictures, a list for each.

    Blocks. Models are loaded at the first call and shared by all threads of the process. The answers are those of
    `moodline analyze` on a file with the same pixels.

    Args:
        image: uint8 (H, W, 3), or (H, W) for grey; a path; the bytes of a picture file, or a file that is open for reading
            them; a PIL image. Or several: an iterable of these, or uint8 (N, H, W, 3).
        color: Order of the colours in arrays: `bgr` as OpenCV has them, or `rgb`. PIL images and files know theirs.
        threads: For each of the two networks, 1 to 256; by default one for each processor.
        model: Name of the classifier's model.

    Raises:
        ImageError: it is no picture: of another type or shape, too large, damaged. Of several, the message says which.
        SourceError: a file cannot be read.
        ClientError: `color` or `threads` cannot be used, or a package is missing; the message names the extra that brings it.
        ModelNotFoundError: there is no such model.
    """
    color = color_of(color)
    settings = settings_of(threads, model)
    several = pictures_of(image)
    if several is None:
        return _faces([as_bgr(image, color, settings)], settings)[0]
    found: list[list[Face]] = []
    numbered = enumerate(several)
    while images := [_image(number, one, color, settings) for number, one in islice(numbered, _AT_ONCE)]:
        found += _faces(images, settings)
    return found


def _image(number: int, picture: Picture, color: str, settings: Settings) -> "BgrImage":
    with named_in_errors(number):
        return as_bgr(picture, color, settings)


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
