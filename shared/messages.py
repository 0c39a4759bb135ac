"""Messages between workers, topic names, and the codec. Nothing else in Moodline knows bytes.

A frame is `(stream_id, epoch, seq)`. Every topic carries exactly one message per sampled frame, in order of `seq`
within a stream, also when the frame has no face or was skipped, so the sequence has no silent holes. `End` closes a
finite stream and takes the next `seq` itself.

Encoding is MessagePack maps by msgspec. Every message has a schema version `v`. Readers ignore unknown fields, so a
field with a default may be added within a version; any other change raises `SCHEMA_VERSION`.
"""

from enum import StrEnum
from typing import Final

import msgspec

from moodline.shared.emotions import CROP_SIDE_PX, EMOTIONS
from moodline.shared.errors import MessageError

SCHEMA_VERSION: Final = 1


class StreamClass(StrEnum):
    """Files and live cameras travel on separate topics: retention differs, and a backlog of files must not age a camera."""

    FILE = "file"
    LIVE = "live"


class PipelineStep(StrEnum):
    """The three pipeline steps of a frame between workers; each has one topic per stream class."""

    FRAMES = "frames"
    FACES = "faces"
    EMOTIONS = "emotions"


class DropReason(StrEnum):
    """The reasons for which a sampled frame has no result. Timelines store counts by position: append only."""

    EXPIRED = "expired"
    OVERLOADED = "overloaded"
    CORRUPT = "corrupt"
    LOST = "lost"


REPEATS_LIMIT: Final = 20_000
"""Most repeats of one frame: an hour of a still picture at 5 frames per second has 18,000."""
REPEATS_LIMIT_US: Final = 24 * 3600 * 1_000_000

TOPIC_PREFIX: Final = "moodline"
STREAMS_TOPIC: Final = f"{TOPIC_PREFIX}.streams.v1"
"""Carries no records: its partitions are the shards of streams, assigned to ingest workers by the group protocol."""
DLQ_TOPIC: Final = f"{TOPIC_PREFIX}.dlq.v1"


def topic(step: PipelineStep, lane: StreamClass) -> str:
    """Return the topic of one pipeline step and stream class, e.g. `moodline.frames.file.v1`."""
    return f"{TOPIC_PREFIX}.{step}.{lane}.v1"


ALL_TOPICS: Final[tuple[str, ...]] = (
    *(topic(step, lane) for step in PipelineStep for lane in StreamClass),
    STREAMS_TOPIC,
    DLQ_TOPIC,
)


def stream_class_of(topic_name: str) -> StreamClass | None:
    """Return the stream class of a pipeline step's topic, or None for the other topics."""
    for lane in StreamClass:
        if topic_name.endswith(f".{lane}.v1"):
            return lane
    return None


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """The fields that every message of a stream has.

    Attributes:
        v: Schema version.
        stream_id: The stream; also the key on every topic.
        epoch: fencing token of the acquisition under which the frame was read, 0 to 2**53 - 1. Larger is newer, over all streams.
        seq: Number of the sampled frame, 0 to 2**53 - 1: from the start of the content for files, of the epoch for live
            sources.
        event_time_us: Position on the timeline, microseconds since the Unix epoch, UTC. Never decreases in a stream.
        captured_at_us: Wall clock when ingest read the frame, microseconds since the Unix epoch. Only for latency and
            age; never part of a timeline.
        lane: File or live.
    """

    v: int = SCHEMA_VERSION
    stream_id: str
    epoch: int = msgspec.field(name="session")
    seq: int
    event_time_us: int
    captured_at_us: int
    lane: StreamClass


class Frame(Header, frozen=True, kw_only=True, tag_field="kind", tag="frame"):
    """A sampled frame on its way to the detector.

    Attributes:
        width: Width of the image in px, 0 to 65535; 0 when the frame was skipped before it had one.
        height: Height of the image in px, as `width`.
        jpeg: The JPEG image, 8-bit colour; empty when the frame was skipped.
        skip: Why there is no image.
        repeats: How often more it is counted: a picture that stays is looked at once, and counts for as long as it is shown.
        repeats_us: Time from this frame to the last of its repeats, which are spread evenly, in microseconds.
    """

    width: int
    height: int
    jpeg: bytes = b""
    skip: DropReason | None = None
    repeats: int = 0
    repeats_us: int = 0


class Face(msgspec.Struct, frozen=True):
    """One detected face.

    Attributes:
        box: x1, y1, x2, y2 in 1/65536 of the image's width (x) and height (y), 0 to 65536, x1 < x2 and y1 < y2.
        score: Detector's score as an integer, 0 to 65535.
        crop: 48x48 grey image, row-major, 2,304 bytes.
        quality: How well an expression can be read from the crop, 0 to 65535; the most where it was not judged.
    """

    box: tuple[int, int, int, int]
    score: int
    crop: bytes
    quality: int = 65_535


class Faces(Header, frozen=True, kw_only=True, tag_field="kind", tag="faces"):
    """The faces of one frame on their way to the classifier; empty when there is none or the frame was skipped.

    Attributes:
        too_small: Faces that are narrower than the detector's least width; they are counted, nothing else.
        repeats, repeats_us: As in `Frame`.
    """

    width: int
    height: int
    faces: tuple[Face, ...] = ()
    skip: DropReason | None = None
    too_small: int = 0
    repeats: int = 0
    repeats_us: int = 0


class FaceEmotion(msgspec.Struct, frozen=True):
    """One classified face.

    Attributes:
        box: As in `Face`.
        score: As in `Face`.
        probabilities: Seven integers in the order of `EMOTIONS`, 0 to 65535, that sum to exactly 65535.
        quality: As in `Face`.
    """

    box: tuple[int, int, int, int]
    score: int
    probabilities: tuple[int, int, int, int, int, int, int]
    quality: int = 65_535


class Emotions(Header, frozen=True, kw_only=True, tag_field="kind", tag="emotions"):
    """The emotions of one frame on their way to the aggregator.

    Attributes:
        model: Name of the classifier model that made the probabilities; empty when the frame was skipped.
        too_small: As in `Faces`.
        repeats, repeats_us: As in `Frame`.
    """

    width: int
    height: int
    faces: tuple[FaceEmotion, ...] = ()
    skip: DropReason | None = None
    model: str = ""
    too_small: int = 0
    repeats: int = 0
    repeats_us: int = 0


class End(Header, frozen=True, kw_only=True, tag_field="kind", tag="end"):
    """The end of a finite stream, passed on unchanged by every stage. `event_time_us` is that of the last frame's end."""


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="dead"):
    """A record that a worker could not decode.

    Attributes:
        reason: Short fixed word, as in `MessageError.reason`.
        detail: What the decoder said; never the content.
        topic, partition, offset: Where the record was.
        worker: Name of the stage that gave up on it.
        failed_at_us: Wall clock, microseconds since the Unix epoch.
        value: The record's bytes, cut to 64 KiB.
    """

    v: int = SCHEMA_VERSION
    reason: str
    detail: str
    topic: str
    partition: int
    offset: int
    worker: str
    failed_at_us: int
    key: bytes
    value: bytes


Message = Frame | Faces | Emotions | End
"""The messages on the topics of the pipeline steps."""

AnyMessage = Message | DeadLetter

DEAD_LETTER_VALUE_LIMIT_BYTES: Final = 64 * 1024

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)
_dead_letter_decoder = msgspec.msgpack.Decoder(DeadLetter)
_UNDECODABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""Errors of the decoder on bytes that are no message; the last two on broken text and on endless nesting."""

_CROP_BYTES: Final = CROP_SIDE_PX * CROP_SIDE_PX
_FIXED_ONE: Final = 65_536
_MOST: Final = 65_535
_NUMBER_LIMIT: Final = 2**53
_EARLIEST_US: Final = -62_135_596_800_000_000
_LATEST_US: Final = 253_402_300_800_000_000


class _Envelope(msgspec.Struct):
    v: int


_envelope_decoder = msgspec.msgpack.Decoder(_Envelope)


def encode(message: AnyMessage) -> bytes:
    """Encode a message."""
    return _encoder.encode(message)


def decode(value: bytes) -> Message:
    """Decode a message of a pipeline step.

    Raises:
        MessageError: with reason `malformed` (not a message), `version` (of another schema version) or `invalid` (a field
            is out of range).
    """
    _check_version(value)
    try:
        message = _decoder.decode(value)
    except _UNDECODABLE as error:
        raise MessageError("malformed", str(error)) from None
    _check_content(message)
    return message


def decode_dead_letter(value: bytes) -> DeadLetter:
    """Decode a record of the dead-letter topic. Raises `MessageError` as `decode` does."""
    _check_version(value)
    try:
        return _dead_letter_decoder.decode(value)
    except _UNDECODABLE as error:
        raise MessageError("malformed", str(error)) from None


def _check_version(value: bytes) -> None:
    try:
        version = _envelope_decoder.decode(value).v
    except _UNDECODABLE as error:
        raise MessageError("malformed", str(error)) from None
    if version != SCHEMA_VERSION:
        raise MessageError("version", f"schema version {version}, this worker reads {SCHEMA_VERSION}; upgrade the older side")


def _check_content(message: Message) -> None:
    _check_header(message)
    if not isinstance(message, End):
        _check_repeats(message.repeats, message.repeats_us)
    if isinstance(message, Frame):
        _check_size(message.width, message.height)
    elif isinstance(message, Faces):
        _check_size(message.width, message.height)
        _check_count(message.too_small)
        for face in message.faces:
            if len(face.crop) != _CROP_BYTES:
                raise MessageError("invalid", f"a crop has {len(face.crop)} bytes, not {_CROP_BYTES}")
            _check_detection(face.box, face.score, face.quality)
    elif isinstance(message, Emotions):
        _check_size(message.width, message.height)
        _check_count(message.too_small)
        for emotion in message.faces:
            _check_detection(emotion.box, emotion.score, emotion.quality)
            if min(emotion.probabilities) < 0 or sum(emotion.probabilities) != _MOST:
                raise MessageError("invalid", f"the probabilities of a face are not {len(EMOTIONS)} shares of {_MOST}")


def _check_header(message: Message) -> None:
    if not message.stream_id:
        raise MessageError("invalid", "stream_id must not be empty")
    if not (0 <= message.seq < _NUMBER_LIMIT and 0 <= message.epoch < _NUMBER_LIMIT):
        raise MessageError("invalid", "seq and session must be 0 to 2**53 - 1")
    if not (_EARLIEST_US <= message.event_time_us < _LATEST_US and _EARLIEST_US <= message.captured_at_us < _LATEST_US):
        raise MessageError("invalid", "a time lies outside the years 1 to 9999")


def _check_repeats(repeats: int, repeats_us: int) -> None:
    if not (0 <= repeats <= REPEATS_LIMIT and 0 <= repeats_us <= REPEATS_LIMIT_US):
        raise MessageError("invalid", f"a frame cannot be counted {repeats} times more, over {repeats_us} us")


def _check_size(width: int, height: int) -> None:
    if not (0 <= width < _FIXED_ONE and 0 <= height < _FIXED_ONE):
        raise MessageError("invalid", f"an image cannot have {width}x{height} px")


def _check_count(too_small: int) -> None:
    if not 0 <= too_small < _FIXED_ONE:
        raise MessageError("invalid", f"a frame cannot have {too_small} faces that are too small")


def _check_detection(box: tuple[int, int, int, int], score: int, quality: int) -> None:
    x1, y1, x2, y2 = box
    if not (0 <= x1 < x2 <= _FIXED_ONE and 0 <= y1 < y2 <= _FIXED_ONE):
        raise MessageError("invalid", f"box {box} is not inside the image")
    if not 0 <= score <= _MOST:
        raise MessageError("invalid", f"score {score} is not 0 to {_MOST}")
    if not 0 <= quality <= _MOST:
        raise MessageError("invalid", f"quality {quality} is not 0 to {_MOST}")
