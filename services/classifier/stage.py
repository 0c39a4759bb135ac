"""The classifier's core: faces in, emotions out, one message for one message."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeAlias, cast

import numpy as np
from msgspec.structs import replace

from moodline.services.classifier.mirror import views_of
from moodline.services.classifier.model import Model
from moodline.services.classifier.quantise import quantised
from moodline.shared.emotions import CROP_SIDE_PX
from moodline.shared.errors import MessageError, ModelError
from moodline.shared.messages import Emotions, End, FaceEmotion, Faces, Message, PipelineStep, StreamClass, topic
from moodline.shared.metrics import Metrics
from moodline.shared.pipeline.admission import BatchAdmission
from moodline.shared.pipeline.stage import Output, Received, Send
from moodline.shared.settings import ClassifierSettings

log = logging.getLogger("moodline.classifier")

_NAME = "classifier"
_BUDGET_SHARE = 0.9
"""Share of the age budget that may be used here; the rest is for the way to the timeline."""
_NEWEST_SHARE = 0.1
_Integers: TypeAlias = tuple[int, int, int, int, int, int, int]


class ModelReplacement(Protocol):
    """Supplies another model while the stage works."""

    def take(self) -> Model | None:
        """Return, once, a model that is ready to replace the present one; may not block."""
        ...

    def close(self) -> None:
        """Release what was not taken."""
        ...


class ClassifierStage:
    """Classifies the crops of all messages of a batch together, whichever streams they are of.

    Live messages whose faces cannot be classified in time lose them and are marked with the reason; files' never are, nor are
    messages without faces, which take no time.

    Args:
        model: The network; closed with the stage.
        settings: The fixed batch size, for the fill ratio, and the age budget of live frames.
        metrics: Where faces, skips, fill and the time of the network are counted.
        replacement: Asked between two batches for a model that replaces the present one; closed with the stage.
        timer: Returns seconds; what the network takes is measured with it.
        on_classified: Called with each answer; must be quick and raise nothing.
    """

    def __init__(
        self,
        model: Model,
        settings: ClassifierSettings,
        metrics: Metrics,
        timer: Callable[[], float] = time.perf_counter,
        replacement: ModelReplacement | None = None,
        on_classified: Callable[[Emotions], None] | None = None,
    ) -> None:
        self._on_classified = on_classified
        self._model = model
        self._settings = settings
        self._metrics = metrics
        self._timer = timer
        self._replacement = replacement
        self._faces_per_message = 1.0
        live = topic(PipelineStep.FACES, StreamClass.LIVE)
        self._admission = BatchAdmission(live, settings.age_budget_s, _BUDGET_SHARE, self._faces_per_call(), timer)
        metrics.model_active.labels(model.name).set(1)

    def process(self, batch: Sequence[Received], now_s: float) -> list[Output]:
        self._take_replacement()
        messages = self._admitted([_checked(received.message) for received in batch], now_s)
        crops = [face.crop for message in messages if isinstance(message, Faces) for face in message.faces]
        probabilities = iter(self._classified(crops))
        self._admission.idle()
        return [Send(topic(PipelineStep.EMOTIONS, message.lane), self._answer(message, probabilities)) for message in messages]

    def batch_limit(self, name: str) -> int:
        """Return how large a batch may be that takes a record of this topic."""
        return self._admission.batch_limit(name, self._settings.batch_messages, self._faces_per_message)

    def tick(self, now_s: float) -> list[Output]:  # noqa: ARG002  # no message is held, so time makes nothing due
        self._take_replacement()
        return []

    def on_revoked(self, partitions: frozenset[tuple[str, int]]) -> None:
        """Nothing is held between two batches."""

    def on_refused(self, stream_ids: frozenset[str]) -> None:
        """Nothing is written to the store."""

    def close(self) -> None:
        if self._replacement is not None:
            self._replacement.close()
        self._model.close()

    def _take_replacement(self) -> None:
        """Go on with another model, if one is ready. All messages of a batch are answered by one model."""
        model = self._replacement.take() if self._replacement is not None else None
        if model is not None:
            former, self._model = self._model, model
            self._metrics.model_active.labels(former.name).set(0)
            self._metrics.model_active.labels(model.name).set(1)
            log.info("model.changed", extra={"former": former.name, "model": model.name})
            former.close()
            self._admission.service.width = self._faces_per_call()

    def _faces_per_call(self) -> int:
        """Return how many faces one call of the network answers for, at least 1."""
        return max(1, self._settings.batch_size // views_of(self._model))

    def _admitted(self, messages: Sequence[Faces | End], now_s: float) -> list[Faces | End]:
        """Return the messages; without their faces and marked, those that are not worth the network's time."""
        for message in messages:
            if isinstance(message, Faces):
                # A few faces in one message or another say little; a batch of file messages is sized by their mean.
                self._faces_per_message += _NEWEST_SHARE * (max(1, len(message.faces)) - self._faces_per_message)
        admitted = list(messages)
        for index, reason in enumerate(self._admission.drops(messages, _faces_in, now_s)):
            message = admitted[index]
            if reason is not None and isinstance(message, Faces):
                self._metrics.frames_skipped.labels(_NAME, message.lane, reason).inc()
                admitted[index] = replace(message, faces=(), skip=reason)
        return admitted

    def _classified(self, crops: Sequence[bytes]) -> list[_Integers]:
        if not crops:
            return []
        started_s = self._timer()
        stacked = np.frombuffer(b"".join(crops), np.uint8).reshape(-1, CROP_SIDE_PX, CROP_SIDE_PX)
        with self._metrics.model_seconds.labels(_NAME).time():
            probabilities = quantised(self._model.predict(stacked))
        if len(probabilities) != len(crops):
            raise ModelError(f"the model answered {len(probabilities)} of {len(crops)} crops")
        self._admission.service.observe(len(crops), self._timer() - started_s)
        views = len(crops) * views_of(self._model)
        calls = -(-views // self._settings.batch_size)
        self._metrics.model_batch_fill.observe(views / (calls * self._settings.batch_size))
        self._metrics.faces.labels(_NAME).inc(len(crops))
        return [cast(_Integers, tuple(row)) for row in probabilities.tolist()]

    def _answer(self, message: Faces | End, probabilities: Iterator[_Integers]) -> Message:
        if isinstance(message, End):
            return message
        answer = Emotions(
            stream_id=message.stream_id,
            epoch=message.epoch,
            seq=message.seq,
            event_time_us=message.event_time_us,
            captured_at_us=message.captured_at_us,
            lane=message.lane,
            width=message.width,
            height=message.height,
            faces=tuple(FaceEmotion(face.box, face.score, next(probabilities), face.quality) for face in message.faces),
            skip=message.skip,
            model=self._model.name if message.skip is None else "",
            too_small=message.too_small if message.skip is None else 0,
            repeats=message.repeats,
            repeats_us=message.repeats_us,
        )
        if self._on_classified is not None:
            self._on_classified(answer)
        return answer


def _faces_in(message: Message) -> int:
    """Return how many faces a message holds that are to be classified."""
    return len(message.faces) if isinstance(message, Faces) and message.skip is None else 0


def _checked(message: Message) -> Faces | End:
    if not isinstance(message, Faces | End):
        raise MessageError("unexpected", f"the classifier takes faces, not {type(message).__name__}")
    return message
