"""Checks whether a message can be one of ours, as far as the codec cannot: it sees neither the topic nor the stream.

Whoever may write to a topic can send anything that decodes. What is refused here becomes a dead letter before a stage works on
it, so it costs what decoding costs. Values that a worker of ours can send always pass.
"""

import re
from typing import Final

from moodline.shared.bus.base import Record
from moodline.shared.errors import MessageError
from moodline.shared.messages import Emotions, End, Faces, Frame, Message, PipelineStep, StreamClass, stream_class_of, topic
from moodline.shared.streams import STREAM_ID_PATTERN

FACES_LIMIT: Final = 1000
"""Most faces of a frame that the detector can be set to."""
REPEATED_FACES_LIMIT: Final = 20_000 * 64
"""Most faces of a frame times how often it is counted: each is followed each time."""
MODEL_NAME: Final = re.compile(r"[\w.-]{0,200}")

_STREAM_ID: Final = re.compile(STREAM_ID_PATTERN)
_KIND_OF_STEP: Final = {PipelineStep.FRAMES: Frame, PipelineStep.FACES: Faces, PipelineStep.EMOTIONS: Emotions}
_KIND_OF_TOPIC: Final = {topic(step, lane): kind for step, kind in _KIND_OF_STEP.items() for lane in StreamClass}


def check_plausible(message: Message, record: Record) -> None:
    """Refuse a message that no worker of ours sends where it was found.

    Raises:
        MessageError: with reason `misplaced` (another pipeline step's or lane's topic, another stream's key) or `implausible`.
    """
    _check_place(message, record)
    if not _STREAM_ID.fullmatch(message.stream_id):
        raise MessageError("implausible", "no stream can have this id")
    if isinstance(message, End):
        if message.lane is StreamClass.LIVE:
            raise MessageError("implausible", "a live stream has no end")
        return
    if message.repeats and message.lane is StreamClass.LIVE:
        raise MessageError("implausible", "frames of a live stream are not repeated")
    if not isinstance(message, Frame):
        _check_faces(len(message.faces), message.repeats)
    if isinstance(message, Emotions) and not MODEL_NAME.fullmatch(message.model):
        raise MessageError("implausible", "no model can have this name")


def _check_place(message: Message, record: Record) -> None:
    name = record.position.topic
    kind = _KIND_OF_TOPIC.get(name)
    if kind is not None and not isinstance(message, kind | End):
        raise MessageError("misplaced", f"{type(message).__name__} does not belong to {name}")
    if stream_class_of(name) not in (None, message.lane):
        raise MessageError("misplaced", f"a message of the other lane was in {name}")
    if record.key != message.stream_id.encode():
        raise MessageError("misplaced", "the record's key is not the message's stream")


def _check_faces(faces: int, repeats: int) -> None:
    if faces > FACES_LIMIT or faces * (repeats + 1) > REPEATED_FACES_LIMIT:
        raise MessageError("implausible", f"a frame cannot have {faces} faces, counted {repeats + 1} times")
