"""The classifier's core: faces in, emotions out, one message for one message."""

from collections.abc import Iterator, Sequence
from typing import TypeAlias, cast

import numpy as np
from msgspec.structs import replace

from services.classifier.model import Model
from services.classifier.quantise import quantised
from shared.emotions import CROP_SIDE_PX
from shared.errors import MessageError, ModelError
from shared.messages import Emotions, End, FaceEmotion, Faces, Hop, Lane, Message, SkipReason, topic
from shared.metrics import Metrics
from shared.settings import ClassifierSettings
from shared.stage import Output, Received, Send

_NAME = "classifier"
_Integers: TypeAlias = tuple[int, int, int, int, int, int, int]


class ClassifierStage:
    """Classifies the crops of all messages of a batch together, whichever streams they are of.

    Args:
        model: The network; closed with the stage.
        settings: The fixed batch size, for the fill ratio, and the age budget of live frames.
        metrics: Where faces, skips, fill and the time of the network are counted.
    """

    def __init__(self, model: Model, settings: ClassifierSettings, metrics: Metrics) -> None:
        self._model = model
        self._settings = settings
        self._metrics = metrics

    def process(self, batch: Sequence[Received], now_s: float) -> list[Output]:
        messages = [self._admitted(received.message, now_s) for received in batch]
        crops = [face.crop for message in messages if isinstance(message, Faces) for face in message.faces]
        probabilities = iter(self._classified(crops))
        return [Send(topic(Hop.EMOTIONS, message.lane), self._answer(message, probabilities)) for message in messages]

    def tick(self, now_s: float) -> list[Output]:  # noqa: ARG002  # nothing is held, so time makes nothing due
        return []

    def on_revoked(self, partitions: frozenset[tuple[str, int]]) -> None:
        """Nothing is held between two batches."""

    def close(self) -> None:
        self._model.close()

    def _admitted(self, message: Message, now_s: float) -> Faces | End:
        """Return the message; without its faces and marked, where they are too old to be worth the network's time."""
        if isinstance(message, End):
            return message
        if not isinstance(message, Faces):
            raise MessageError("unexpected", f"the classifier takes faces, not {type(message).__name__}")
        age_s = now_s - message.captured_at_us / 1e6
        if message.lane is Lane.LIVE and message.faces and message.skip is None and age_s > self._settings.age_budget_s:
            self._metrics.frames_skipped.labels(_NAME, message.lane, SkipReason.EXPIRED).inc()
            return replace(message, faces=(), skip=SkipReason.EXPIRED)
        return message

    def _classified(self, crops: Sequence[bytes]) -> list[_Integers]:
        if not crops:
            return []
        stacked = np.frombuffer(b"".join(crops), np.uint8).reshape(-1, CROP_SIDE_PX, CROP_SIDE_PX)
        with self._metrics.model_seconds.labels(_NAME).time():
            probabilities = quantised(self._model.predict(stacked))
        if len(probabilities) != len(crops):
            raise ModelError(f"the model answered {len(probabilities)} of {len(crops)} crops")
        calls = -(-len(crops) // self._settings.batch_size)
        self._metrics.model_batch_fill.observe(len(crops) / (calls * self._settings.batch_size))
        self._metrics.faces.labels(_NAME).inc(len(crops))
        return [cast(_Integers, tuple(row)) for row in probabilities.tolist()]

    def _answer(self, message: Faces | End, probabilities: Iterator[_Integers]) -> Message:
        if isinstance(message, End):
            return message
        return Emotions(
            stream_id=message.stream_id,
            session=message.session,
            seq=message.seq,
            event_time_us=message.event_time_us,
            captured_at_us=message.captured_at_us,
            lane=message.lane,
            width=message.width,
            height=message.height,
            faces=tuple(FaceEmotion(face.box, face.score, next(probabilities)) for face in message.faces),
            skip=message.skip,
            model=self._model.name if message.skip is None else "",
        )
