"""The detector's core: frames in, faces out, one message for one message."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue

from services.detector.base import FaceDetector
from services.detector.crop import cut_faces
from services.detector.image import decode_jpeg
from shared.errors import ImageError, MessageError
from shared.messages import End, Face, Faces, Frame, Hop, Lane, Message, SkipReason, topic
from shared.metrics import Metrics
from shared.settings import DetectorSettings
from shared.stage import Output, Received, Send

_NAME = "detector"


class DetectorStage:
    """Finds the faces of each frame and cuts them out.

    Several frames are searched at the same time, each by a detector of its own; outputs keep the order of the inputs, and
    their bytes depend neither on the number of threads nor on what else was in the batch.

    Args:
        make_detector: Called once per thread, at once.
        settings: Threads, most faces per frame, and the age budget of live frames.
        metrics: Where faces, skips and the time of each search are counted.

    Raises:
        ModelError: a detector cannot be made.
    """

    def __init__(
        self, make_detector: Callable[[], FaceDetector], settings: DetectorSettings, metrics: Metrics | None = None
    ) -> None:
        threads = settings.threads or os.cpu_count() or 1
        self._settings = settings
        self._metrics = metrics or Metrics()
        self._detectors: SimpleQueue[FaceDetector] = SimpleQueue()
        for _ in range(threads):
            self._detectors.put(make_detector())
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=_NAME)

    def process(self, batch: Sequence[Received], now_s: float) -> list[Output]:
        messages = [received.message for received in batch]
        answers = self._pool.map(lambda message: self._answer(message, now_s), messages)
        return [Send(topic(Hop.FACES, message.lane), answer) for message, answer in zip(messages, answers, strict=True)]

    def tick(self, now_s: float) -> list[Output]:  # noqa: ARG002  # nothing is held, so time makes nothing due
        return []

    def on_revoked(self, partitions: frozenset[tuple[str, int]]) -> None:
        """Nothing is held between two batches."""

    def close(self) -> None:
        self._pool.shutdown()

    def _answer(self, message: Message, now_s: float) -> Message:
        if isinstance(message, End):
            return message
        if not isinstance(message, Frame):
            raise MessageError("unexpected", f"the detector takes frames, not {type(message).__name__}")
        if message.skip is not None:
            return _faces(message, skip=message.skip)
        if message.lane is Lane.LIVE and now_s - message.captured_at_us / 1e6 > self._settings.age_budget_s:
            return self._skipped(message, SkipReason.EXPIRED)
        try:
            faces = self._search(message)
        except ImageError:
            return self._skipped(message, SkipReason.CORRUPT)
        self._metrics.faces.labels(_NAME).inc(len(faces))
        return _faces(message, faces)

    def _search(self, frame: Frame) -> tuple[Face, ...]:
        image = decode_jpeg(frame.jpeg)
        if image.shape[:2] != (frame.height, frame.width):
            raise ImageError(f"the image is {image.shape[1]}x{image.shape[0]} px, the message says {frame.width}x{frame.height}")
        detector = self._detectors.get()
        try:
            with self._metrics.model_seconds.labels(_NAME).time():
                detections = detector.detect(image)
            return cut_faces(image, detections, detector.square_from, self._settings.max_faces)
        finally:
            self._detectors.put(detector)

    def _skipped(self, frame: Frame, reason: SkipReason) -> Faces:
        self._metrics.frames_skipped.labels(_NAME, frame.lane, reason).inc()
        return _faces(frame, skip=reason)


def _faces(frame: Frame, faces: tuple[Face, ...] = (), skip: SkipReason | None = None) -> Faces:
    return Faces(
        stream_id=frame.stream_id,
        session=frame.session,
        seq=frame.seq,
        event_time_us=frame.event_time_us,
        captured_at_us=frame.captured_at_us,
        lane=frame.lane,
        width=frame.width,
        height=frame.height,
        faces=faces,
        skip=skip,
    )
