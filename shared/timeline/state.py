"""The aggregator's saved state: what a stream's timeline needs in order to continue, and the faces that are in the picture now.

One version byte and MessagePack arrays; integers only. The store keeps it with the stream's high-water mark without looking
into it. Only the aggregator writes it; live views read from it which faces are there, and where.
"""

from typing import Final, NamedTuple, TypeVar

import msgspec

from moodline.shared.errors import StoreError
from moodline.shared.timeline.bucket import TIERS_S, Bucket
from moodline.shared.timeline.faces import SeenFrame
from moodline.shared.timeline.models import ModelDay
from moodline.shared.timeline.points import Shares
from moodline.shared.timeline.tracks import TrackBucket

STATE_VERSION: Final = 3
_READABLE: Final = (1, 2, 3)
"""Version 1 did not know of models, nor version 2 of faces that cannot be read; their arrays are shorter, and what is missing
has a default."""

BOX_SCALE: Final = 65_536
"""Boxes are in this many parts of the image's width and height."""

Box = tuple[int, int, int, int]
"""Left, top, right, bottom."""


class ActiveTrack(msgspec.Struct, array_like=True):
    """A face that may be seen again.

    Attributes:
        track_id: Counts from 1 in each stream.
        box: Where it was last seen.
        last_us: Event time when it was last seen.
        smooth: State of its smoothing; zeros as long as it could not be read.
        read_us: Event time when it was last read; None before that, and in a state of version 2, where it is `last_us`.
    """

    track_id: int
    box: Box
    last_us: int
    smooth: tuple[int, ...]
    read_us: int | None = None

    @property
    def last_read_us(self) -> int | None:
        """Event time when it was last read, or None before that."""
        return self.last_us if self.read_us is None and any(self.smooth) else self.read_us


class TrackerState(msgspec.Struct, array_like=True):
    """All that a tracker remembers. Integers only.

    Attributes:
        next_id: Id of the next new track.
        now_us: Event time of the last frame, or None before the first.
        tracks: Active tracks, oldest first.
    """

    next_id: int = 1
    now_us: int | None = None
    tracks: list[ActiveTrack] = []


class OpenTrack(msgspec.Struct, array_like=True):
    """The sums of an active track: its closed seconds, and the open second with its index."""

    first_us: int
    last_us: int
    second: int
    closed: TrackBucket
    open: TrackBucket


class SavedState(msgspec.Struct, array_like=True):
    """The state as stored. `indexes` and `parts` are those of the open buckets, by tier; empty before the first frame.

    New fields come last, with a default.
    """

    tracker: TrackerState
    tracks: dict[int, OpenTrack] = {}
    indexes: list[int] = []
    parts: list[Bucket] = []
    models: ModelDay | None = None
    seen: list[SeenFrame] = []
    """The frames of the open bucket value of faces, where faces are kept."""


class _Present(msgspec.Struct, array_like=True):
    """The part of the state that tells what is there now; the rest is not decoded."""

    tracker: TrackerState
    tracks: msgspec.Raw = msgspec.Raw()
    indexes: msgspec.Raw = msgspec.Raw()
    parts: msgspec.Raw = msgspec.Raw()
    models: ModelDay | None = None


class PresentFace(NamedTuple):
    """A face that is in the picture, or was a moment ago.

    Attributes:
        track_id: Counts from 1 in each stream.
        box: Left, top, right and bottom, each 0 to 1, of the whole image.
        last_us: Event time when it was last seen, microseconds since the Unix epoch.
        smoothed: Its smoothed probabilities, or None where no expression could be read from it when it was last seen.
    """

    track_id: int
    box: tuple[float, float, float, float]
    last_us: int
    smoothed: Shares | None


class Present(NamedTuple):
    """The faces of a stream as of its high-water mark.

    Attributes:
        now_us: Event time of the last frame, or None where that is not known.
        faces: Who is there, by track.
        models: Which models looked at the frames of the day of `now_us`, or None where none did.
    """

    now_us: int | None = None
    faces: tuple[PresentFace, ...] = ()
    models: ModelDay | None = None


_State = TypeVar("_State", bound=msgspec.Struct)

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(SavedState)
_present_decoder = msgspec.msgpack.Decoder(_Present)


def save_state(saved: SavedState) -> bytes:
    """Return the stored form."""
    return bytes((STATE_VERSION,)) + _encoder.encode(saved)


def load_state(state: bytes) -> SavedState:
    """Return what was stored.

    Raises:
        StoreError: the state is damaged or of another version.
    """
    saved = _decode(_decoder, state)
    if len(saved.indexes) != len(saved.parts) or len(saved.indexes) not in (0, len(TIERS_S)):
        raise StoreError("a stored aggregator state is damaged: it has other levels")
    return saved


def present_of(state: bytes) -> Present:
    """Return what a stored state tells of the present; nothing for the empty state of a stream that has not begun or has ended.

    Raises:
        StoreError: the state is damaged or of another version.
    """
    if not state:
        return Present()
    saved = _decode(_present_decoder, state)
    return Present(saved.tracker.now_us, tuple(map(_face, saved.tracker.tracks)), saved.models)


def _face(track: ActiveTrack) -> PresentFace:
    left, top, right, bottom = (edge / BOX_SCALE for edge in track.box)
    total = sum(track.smooth)
    smoothed = tuple(part / total for part in track.smooth) if total and track.last_read_us == track.last_us else None
    return PresentFace(track.track_id, (left, top, right, bottom), track.last_us, smoothed)


def _decode(decoder: "msgspec.msgpack.Decoder[_State]", state: bytes) -> _State:
    if not state:
        raise StoreError("a stored aggregator state is damaged: it is empty")
    if state[0] not in _READABLE:
        raise StoreError(
            f"a stored aggregator state has version {state[0]}, this worker reads {STATE_VERSION}; upgrade the older side"
        )
    try:
        return decoder.decode(memoryview(state)[1:])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise StoreError(f"a stored aggregator state is damaged: {error}") from None
