"""The detector's core: frames in, faces out, one message for one message."""

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue

from moodline.services.detector.base import FaceDetector
from moodline.services.detector.crop import cut_faces
from moodline.services.detector.image import decode_jpeg
from moodline.services.detector.quality import load_quality
from moodline.shared.errors import ImageError, MessageError
from moodline.shared.messages import DropReason, End, Face, Faces, Frame, Message, PipelineStep, StreamClass, topic
from moodline.shared.metrics import Metrics
from moodline.shared.pipeline.admission import BatchAdmission
from moodline.shared.pipeline.stage import Output, Received, Send
from moodline.shared.settings import DetectorSettings

_NAME = "detector"
_BUDGET_SHARE = 0.5
"""The other half of the age budget is the classifier's."""


class DetectorStage:
    """Finds the faces of each frame and cuts them out.

    Several frames are searched at the same time, each by a detector of its own; outputs keep the order of the inputs, and
    their bytes depend neither on the number of threads nor on what else was in the batch. Live frames that cannot be searched in
    time are passed on, marked with the reason; files' frames are always searched.

    Args:
        make_detector: Called once per thread, at once.
        settings: Threads, most faces per frame, and the age budget of live frames.
        metrics: Where faces, skips and the time of each search are counted.
        timer: Returns seconds; what the searches take is measured with it.
        on_searched: Called with each searched frame and its faces, in any of the threads; must be quick and raise nothing.

    Raises:
        ModelError: a detector cannot be made.
    """

    def __init__(
        self,
        make_detector: Callable[[], FaceDetector],
        settings: DetectorSettings,
        metrics: Metrics | None = None,
        timer: Callable[[], float] = time.perf_counter,
        on_searched: Callable[[Frame, tuple[Face, ...]], None] | None = None,
    ) -> None:
        self._on_searched = on_searched
        threads = settings.threads or os.cpu_count() or 1
        self._settings = settings
        self._metrics = metrics or Metrics()
        self._detectors: SimpleQueue[FaceDetector] = SimpleQueue()
        for _ in range(threads):
            self._detectors.put(make_detector())
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=_NAME)
        self._timer = timer
        self._quality = load_quality()
        live = topic(PipelineStep.FRAMES, StreamClass.LIVE)
        self._admission = BatchAdmission(live, settings.age_budget_s, _BUDGET_SHARE, threads, timer)

    def process(self, batch: Sequence[Received], now_s: float) -> list[Output]:
        started_s = self._timer()
        messages = [received.message for received in batch]
        drops = self._admission.drops(messages, _searches, now_s)
        answers = list(self._pool.map(self._answer, messages, drops))
        self._admission.idle()
        searched = sum(_searches(message) for message, skip in zip(messages, drops, strict=True) if skip is None)
        if searched:
            self._admission.service.observe(searched, self._timer() - started_s)
        return [Send(topic(PipelineStep.FACES, message.lane), answer) for message, answer in zip(messages, answers, strict=True)]

    def batch_limit(self, name: str) -> int:
        """Return how large a batch may be that takes a record of this topic."""
        return self._admission.batch_limit(name, self._settings.batch_frames)

    def tick(self, now_s: float) -> list[Output]:  # noqa: ARG002  # nothing is held, so time makes nothing due
        return []

    def on_revoked(self, partitions: frozenset[tuple[str, int]]) -> None:
        """Nothing is held between two batches."""

    def on_refused(self, stream_ids: frozenset[str]) -> None:
        """Nothing is written to the store."""

    def close(self) -> None:
        self._pool.shutdown()

    def _answer(self, message: Message, skip: DropReason | None) -> Message:
        if isinstance(message, End):
            return message
        if not isinstance(message, Frame):
            raise MessageError("unexpected", f"the detector takes frames, not {type(message).__name__}")
        if message.skip is not None:
            return _faces(message, skip=message.skip)
        if skip is not None:
            return self._dropped_frame(message, skip)
        try:
            faces, too_small = self._search(message)
        except ImageError:
            return self._dropped_frame(message, DropReason.CORRUPT)
        self._metrics.faces.labels(_NAME).inc(len(faces))
        if self._on_searched is not None:
            self._on_searched(message, faces)
        return _faces(message, faces, too_small=too_small)

    def _search(self, frame: Frame) -> tuple[tuple[Face, ...], int]:
        """Return the faces of a frame, and how many more are too small."""
        image = decode_jpeg(frame.jpeg)
        if image.shape[:2] != (frame.height, frame.width):
            raise ImageError(f"the image is {image.shape[1]}x{image.shape[0]} px, the message says {frame.width}x{frame.height}")
        detector = self._detectors.get()
        try:
            with self._metrics.model_seconds.labels(_NAME).time():
                found = detector.search(image)
            faces = cut_faces(image, found.faces, detector.square_from, self._settings.max_faces, self._quality)
            return faces, len(found.too_small)
        finally:
            self._detectors.put(detector)

    def _dropped_frame(self, frame: Frame, reason: DropReason) -> Faces:
        self._metrics.frames_skipped.labels(_NAME, frame.lane, reason).inc()
        return _faces(frame, skip=reason)


def _searches(message: Message) -> int:
    """Return how many searches a message asks for."""
    return int(isinstance(message, Frame) and message.skip is None)


def _faces(frame: Frame, faces: tuple[Face, ...] = (), skip: DropReason | None = None, too_small: int = 0) -> Faces:
    return Faces(
        stream_id=frame.stream_id,
        epoch=frame.epoch,
        seq=frame.seq,
        event_time_us=frame.event_time_us,
        captured_at_us=frame.captured_at_us,
        lane=frame.lane,
        width=frame.width,
        height=frame.height,
        faces=faces,
        skip=skip,
        too_small=too_small,
        repeats=frame.repeats,
        repeats_us=frame.repeats_us,
    )
