"""A timeline's bucket: what was seen in one stretch of event time, as integers that add up exactly.

Tiers are nested (each divides the next), so a coarse bucket is exactly the merge of the finer ones in it, and tiers never
disagree. The leading emotion of a face ("top-1") is taken from its smoothed probabilities: raw ones flicker from frame to
frame, and what a person sees as the leading emotion does not.

Packed form, a sequence of varints (`moodline.shared.timeline.varint`); parts whose flag is not set are left out:

| part | flag | values |
| --- | --- | --- |
| header | | format version * 16 + flags |
| frames | | sampled |
| unreadable | | from version 2 on: unreadable faces, of these those that are too small |
| skips | 2 | mask of reasons, then a count for each named one |
| faces | 4 | frames with faces, faces, 7 raw sums, 7 smoothed sums, mask of leading emotions, then a count for each named one |
| tracks | 8 | tracks begun |

Flag 1 says that the bucket is final. A bucket without unreadable faces is written in version 1.
"""

from collections.abc import Iterable
from functools import reduce
from operator import add
from typing import Final

import msgspec

from moodline.shared.emotions import EMOTIONS
from moodline.shared.errors import StoreError
from moodline.shared.messages import DropReason
from moodline.shared.timeline.varint import Numbers, encode_varints, sparse_varints

TIERS_S: Final = (1, 10, 60, 600, 3600)
"""Lengths of the stored buckets, in s; each divides the next."""

SECOND_US: Final = 1_000_000

Seven = tuple[int, ...]
"""Seven integers in the order of `EMOTIONS`."""

Drops = tuple[int, ...]
"""Counts in the order of `DropReason`."""

DROP_REASONS: Final = tuple(DropReason)
CORRUPT_AT: Final = DROP_REASONS.index(DropReason.CORRUPT)
NO_SEVEN: Final[Seven] = (0,) * len(EMOTIONS)
NO_DROPS: Final[Drops] = (0,) * len(DROP_REASONS)

FORMAT_VERSION: Final = 1
UNREADABLE_VERSION: Final = 2
"""Version 1, and two counts."""
_FINAL, DROPS, FACES, TRACKS = 1, 2, 4, 8


class Bucket(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The content of one interval of event time.

    Attributes:
        sampled: Frames sampled, skipped ones included.
        skipped: Of these, frames that carry no result, by reason.
        frames_with_faces: Of these, frames with at least one face that could be read.
        faces: Faces over all frames that could be read; all emotions are theirs.
        raw: Sums of the faces' probabilities as the model gave them, in 1/65535.
        smoothed: Sums of the faces' smoothed probabilities, in 1/65535.
        leading: Faces by their leading emotion, the largest smoothed probability (the first of equals).
        tracks_begun: Faces read for the first time.
        final: Nothing will be added any more.
        unreadable: Faces over all frames from which no expression can be read; none of them is in `faces`.
        too_small: Of these, faces below the detector's least width.
    """

    sampled: int = 0
    skipped: Drops = NO_DROPS
    frames_with_faces: int = 0
    faces: int = 0
    raw: Seven = NO_SEVEN
    smoothed: Seven = NO_SEVEN
    leading: Seven = NO_SEVEN
    tracks_begun: int = 0
    final: bool = False
    unreadable: int = 0
    too_small: int = 0

    @property
    def classified(self) -> int:
        """Frames that were looked at, with or without faces: sampled less every counted skip."""
        return self.sampled - sum(self.skipped)


NOTHING: Final = Bucket(final=True)
"""The neutral element of `merge`."""


def merge(a: Bucket, b: Bucket) -> Bucket:
    """Return what both hold together. Exact, associative and commutative; final when both are."""
    return Bucket(
        a.sampled + b.sampled,
        tuple(map(add, a.skipped, b.skipped)),
        a.frames_with_faces + b.frames_with_faces,
        a.faces + b.faces,
        tuple(map(add, a.raw, b.raw)),
        tuple(map(add, a.smoothed, b.smoothed)),
        tuple(map(add, a.leading, b.leading)),
        a.tracks_begun + b.tracks_begun,
        a.final and b.final,
        a.unreadable + b.unreadable,
        a.too_small + b.too_small,
    )


def merge_all(buckets: Iterable[Bucket]) -> Bucket:
    """Return what all hold together; `NOTHING` when there is none."""
    return reduce(merge, buckets, NOTHING)


def pack(bucket: Bucket) -> bytes:
    """Return the stored form. A second of 5 frames with one face takes about 45 bytes."""
    flags = _FINAL if bucket.final else 0
    values = [0, bucket.sampled]
    version = FORMAT_VERSION
    if bucket.unreadable:
        version = UNREADABLE_VERSION
        values += (bucket.unreadable, bucket.too_small)
    if any(bucket.skipped):
        flags |= DROPS
        values += sparse_varints(bucket.skipped)
    if bucket.faces:
        flags |= FACES
        values += (bucket.frames_with_faces, bucket.faces, *bucket.raw, *bucket.smoothed)
        values += sparse_varints(bucket.leading)
    if bucket.tracks_begun:
        flags |= TRACKS
        values.append(bucket.tracks_begun)
    values[0] = version << 4 | flags
    return encode_varints(values)


def unpack(data: bytes) -> Bucket:
    """Return the bucket of a stored form.

    Raises:
        StoreError: the bytes are damaged or of another format version.
    """
    numbers = Numbers(data)
    version, flags = _read_version(numbers, UNREADABLE_VERSION)
    sampled = numbers.one()
    unreadable, too_small = numbers.many(2) if version == UNREADABLE_VERSION else (0, 0)
    skipped = numbers.sparse(len(DROP_REASONS)) if flags & DROPS else NO_DROPS
    frames_with_faces = faces = tracks_begun = 0
    raw = smoothed = leading = NO_SEVEN
    if flags & FACES:
        frames_with_faces, faces = numbers.many(2)
        raw, smoothed = numbers.many(7), numbers.many(7)
        leading = numbers.sparse(7)
    if flags & TRACKS:
        tracks_begun = numbers.one()
    numbers.done()
    is_final = bool(flags & _FINAL)
    return Bucket(
        sampled, skipped, frames_with_faces, faces, raw, smoothed, leading, tracks_begun, is_final, unreadable, too_small
    )


def read_header(numbers: Numbers) -> int:
    """Return the flags of a packed value.

    Raises:
        StoreError: the value is of a format version that this process does not read.
    """
    return _read_version(numbers, FORMAT_VERSION)[1]


def _read_version(numbers: Numbers, newest: int) -> tuple[int, int]:
    """Return the version, at most `newest`, and the flags of a packed value; raises as `read_header`."""
    header = numbers.one()
    version = header >> 4
    if not FORMAT_VERSION <= version <= newest:
        raise StoreError(
            f"a stored timeline value has format version {version}, this process reads up to {newest}; upgrade the older side"
        )
    return version, header & 0xF
