"""The faces of each sampled frame, as the store keeps them: disabled unless they have a retention of their own.

A bucket value holds all frames of two seconds of event time, one byte of version and MessagePack arrays. A frame without a
face, and one that was not analysed, has its place too, so that nothing is missing in silence.
"""

from typing import Final

import msgspec

from moodline.shared.errors import StoreError
from moodline.shared.messages import DropReason, Emotions
from moodline.shared.store.base import TimelineStore
from moodline.shared.timeline.bucket import SECOND_US

FACES_SERIES: Final = "faces"
FACES_TIER_S: Final = 2
"""Length of a bucket value in s; no timeline has this tier, so its retention is that of faces alone."""
MOST_LOST: Final = 1000
"""Most lost frames that are listed one by one at a time."""
_VERSION: Final = 1


class SeenFace(msgspec.Struct, frozen=True, array_like=True):
    """One face: its track, the box and score as in `FaceEmotion`, seven integers as the model gave them, seven smoothed ones.

    `quality` is 0 to 65535, None where none was told.
    """

    track: int
    box: tuple[int, int, int, int]
    score: int
    raw: tuple[int, ...]
    smoothed: tuple[int, ...]
    quality: int | None = None


class SeenFrame(msgspec.Struct, frozen=True, array_like=True):
    """One sampled frame.

    Attributes:
        frame: Its number, as `Header.seq`.
        time_us: Place on the timeline, microseconds since the Unix epoch.
        width, height: Of the picture that was searched, in px; 0 where there was none.
        model: Name of the classifier's model; empty where nothing was looked at.
        skipped: Why it was not looked at; None where it was.
        faces: Who was there.
    """

    frame: int
    time_us: int
    width: int = 0
    height: int = 0
    model: str = ""
    skipped: DropReason | None = None
    faces: tuple[SeenFace, ...] = ()


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[SeenFrame])


def seen_frame(message: Emotions, time_us: int, tracked: list[tuple[int, tuple[int, ...]]]) -> SeenFrame:
    """Return what is kept of a frame; `tracked` has track and smoothed integers of each face, in the order of its faces."""
    faces = tuple(
        SeenFace(track, face.box, face.score, face.probabilities, smoothed, getattr(face, "quality", None))
        for face, (track, smoothed) in zip(message.faces, tracked, strict=False)
    )
    return SeenFrame(message.seq, time_us, message.width, message.height, message.model, message.skip, faces)


def faces_index(time_us: int) -> int:
    """Return the index of the bucket value that a time lies in."""
    return time_us // (FACES_TIER_S * SECOND_US)


def pack_frames(frames: list[SeenFrame]) -> bytes:
    """Return the stored form of a bucket value."""
    return bytes((_VERSION,)) + _encoder.encode(frames)


def read_frames(store: TimelineStore, stream_id: str, start_us: int, stop_us: int) -> list[SeenFrame]:
    """Return the frames with `start_us` <= time < `stop_us`, in order. Blocks on the store.

    Raises:
        StoreError: a stored value is damaged or of another version.
    """
    bucket_values = store.read(stream_id, FACES_SERIES, FACES_TIER_S, faces_index(start_us), faces_index(stop_us - 1) + 1)
    frames = [frame for _, value in bucket_values for frame in _unpack(value)]
    return [frame for frame in frames if start_us <= frame.time_us < stop_us]


def _unpack(value: bytes) -> list[SeenFrame]:
    if value[:1] != bytes((_VERSION,)):
        raise StoreError("stored faces are of another version than this process reads; upgrade the older side")
    try:
        return _decoder.decode(memoryview(value)[1:])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise StoreError(f"stored faces are damaged: {error}") from None
