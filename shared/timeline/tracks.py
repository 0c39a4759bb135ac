"""Stored values of one tracked face: a summary, and a small bucket for each second in which it was seen.

Series `TRACKS_SERIES`, tier 0, index = track id: the summary. Series `track_series(id)`, tier 1, index = second: the
small bucket. Both are sequences of varints (`moodline.shared.timeline.varint`) that begin with format version * 16 + flags.
"""

from operator import add
from typing import Final

import msgspec

from moodline.shared.timeline.bucket import FORMAT_VERSION, NO_SEVEN, Seven, read_header
from moodline.shared.timeline.varint import Numbers, encode_varints, sparse_varints

TRACKS_SERIES: Final = "tracks"
TRACKS_TIER_S: Final = 0
TRACK_TIER_S: Final = 1

_ENDED: Final = 1


def track_series(track_id: int) -> str:
    """Return the series that holds a track's seconds."""
    return f"track/{track_id}"


class TrackBucket(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The emotions of one face in an interval.

    Attributes:
        faces: Frames in which the face was seen.
        smoothed: Sums of its smoothed probabilities, in 1/65535.
        leading: Frames by its leading emotion.
    """

    faces: int = 0
    smoothed: Seven = NO_SEVEN
    leading: Seven = NO_SEVEN


class TrackSummary(msgspec.Struct, frozen=True, gc=False):
    """One tracked face from first to last.

    Attributes:
        first_us: Event time of the first frame with it, microseconds since the Unix epoch.
        last_us: Event time of the last.
        seen: Everything that was seen of it.
        ended: It will not be seen again; the same person coming back gets a new track.
    """

    first_us: int
    last_us: int
    seen: TrackBucket
    ended: bool


def merge_track(a: TrackBucket, b: TrackBucket) -> TrackBucket:
    """Return what both hold together. Exact, associative and commutative; `TrackBucket()` is neutral."""
    return TrackBucket(a.faces + b.faces, tuple(map(add, a.smoothed, b.smoothed)), tuple(map(add, a.leading, b.leading)))


def pack_track_bucket(bucket: TrackBucket) -> bytes:
    """Return the stored form of a track's second, about 25 bytes."""
    return encode_varints((FORMAT_VERSION << 4, bucket.faces, *bucket.smoothed, *sparse_varints(bucket.leading)))


def unpack_track_bucket(data: bytes) -> TrackBucket:
    """Return the bucket of a stored form. Raises `StoreError` when it is damaged or of another format version."""
    numbers = Numbers(data)
    read_header(numbers)
    bucket = _read_bucket(numbers)
    numbers.done()
    return bucket


def pack_track_summary(summary: TrackSummary) -> bytes:
    """Return the stored form of a track's summary, about 40 bytes."""
    header = FORMAT_VERSION << 4 | (_ENDED if summary.ended else 0)
    # Zigzag: times before 1970 are negative, and varints are not.
    first = summary.first_us << 1 if summary.first_us >= 0 else (-summary.first_us << 1) - 1
    seen = summary.seen
    times = (header, first, summary.last_us - summary.first_us)
    return encode_varints((*times, seen.faces, *seen.smoothed, *sparse_varints(seen.leading)))


def unpack_track_summary(data: bytes) -> TrackSummary:
    """Return the summary of a stored form. Raises `StoreError` when it is damaged or of another format version."""
    numbers = Numbers(data)
    flags = read_header(numbers)
    first, length = numbers.many(2)
    first_us = first >> 1 if first & 1 == 0 else -(first + 1 >> 1)
    seen = _read_bucket(numbers)
    numbers.done()
    return TrackSummary(first_us, first_us + length, seen, bool(flags & _ENDED))


def _read_bucket(numbers: Numbers) -> TrackBucket:
    faces = numbers.one()
    smoothed = numbers.many(7)
    return TrackBucket(faces, smoothed, numbers.sparse(7))
