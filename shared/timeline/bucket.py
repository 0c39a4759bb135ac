"""A timeline's bucket: what was seen in one stretch of event time, as integers that add up exactly.

Levels are nested (each divides the next), so a coarse bucket is exactly the merge of the finer ones in it, and levels never
disagree. The leading emotion of a face ("top-1") is taken from its smoothed probabilities: raw ones flicker from frame to
frame, and what a person sees as the leading emotion does not.

Packed form, a sequence of varints (`moodline.shared.timeline.varint`); parts whose flag is not set are left out:

| part | flag | values |
| --- | --- | --- |
| header | | format version * 16 + flags |
| frames | | sampled |
| skips | 2 | mask of reasons, then a count for each named one |
| faces | 4 | frames with faces, faces, 7 raw sums, 7 smoothed sums, mask of leading emotions, then a count for each named one |
| tracks | 8 | tracks begun |

Flag 1 says that the bucket is final.
"""

from collections.abc import Iterable
from functools import reduce
from operator import add
from typing import Final

import msgspec

from moodline.shared.emotions import EMOTIONS
from moodline.shared.errors import StoreError
from moodline.shared.messages import SkipReason
from moodline.shared.timeline.varint import Numbers, encode_varints, sparse_varints

LEVELS_S: Final = (1, 10, 60, 600, 3600)
"""Lengths of the stored buckets, in s; each divides the next."""

SECOND_US: Final = 1_000_000

Seven = tuple[int, ...]
"""Seven integers in the order of `EMOTIONS`."""

Skips = tuple[int, ...]
"""Counts in the order of `SkipReason`."""

SKIP_REASONS: Final = tuple(SkipReason)
NO_SEVEN: Final[Seven] = (0,) * len(EMOTIONS)
NO_SKIPS: Final[Skips] = (0,) * len(SKIP_REASONS)

FORMAT_VERSION: Final = 1
_FINAL, SKIPS, FACES, TRACKS = 1, 2, 4, 8


class Bucket(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The content of one interval of event time.

    Attributes:
        sampled: Frames sampled, skipped ones included.
        skipped: Of these, frames that carry no result, by reason.
        frames_with_faces: Of these, frames with at least one face.
        faces: Faces over all frames.
        raw: Sums of the faces' probabilities as the model gave them, in 1/65535.
        smoothed: Sums of the faces' smoothed probabilities, in 1/65535.
        leading: Faces by their leading emotion, the largest smoothed probability (the first of equals).
        tracks_begun: Faces seen for the first time.
        final: Nothing will be added any more.
    """

    sampled: int = 0
    skipped: Skips = NO_SKIPS
    frames_with_faces: int = 0
    faces: int = 0
    raw: Seven = NO_SEVEN
    smoothed: Seven = NO_SEVEN
    leading: Seven = NO_SEVEN
    tracks_begun: int = 0
    final: bool = False

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
    )


def merge_all(buckets: Iterable[Bucket]) -> Bucket:
    """Return what all hold together; `NOTHING` when there is none."""
    return reduce(merge, buckets, NOTHING)


def pack(bucket: Bucket) -> bytes:
    """Return the stored form. A second of 5 frames with one face takes about 45 bytes."""
    flags = _FINAL if bucket.final else 0
    values = [0, bucket.sampled]
    if any(bucket.skipped):
        flags |= SKIPS
        values += sparse_varints(bucket.skipped)
    if bucket.faces:
        flags |= FACES
        values += (bucket.frames_with_faces, bucket.faces, *bucket.raw, *bucket.smoothed)
        values += sparse_varints(bucket.leading)
    if bucket.tracks_begun:
        flags |= TRACKS
        values.append(bucket.tracks_begun)
    values[0] = FORMAT_VERSION << 4 | flags
    return encode_varints(values)


def unpack(data: bytes) -> Bucket:
    """Return the bucket of a stored form.

    Raises:
        StoreError: the bytes are damaged or of another format version.
    """
    numbers = Numbers(data)
    flags = read_header(numbers)
    sampled = numbers.one()
    skipped = numbers.sparse(len(SKIP_REASONS)) if flags & SKIPS else NO_SKIPS
    frames_with_faces = faces = tracks_begun = 0
    raw = smoothed = leading = NO_SEVEN
    if flags & FACES:
        frames_with_faces, faces = numbers.many(2)
        raw, smoothed = numbers.many(7), numbers.many(7)
        leading = numbers.sparse(7)
    if flags & TRACKS:
        tracks_begun = numbers.one()
    numbers.done()
    return Bucket(sampled, skipped, frames_with_faces, faces, raw, smoothed, leading, tracks_begun, final=bool(flags & _FINAL))


def read_header(numbers: Numbers) -> int:
    """Return the flags of a packed value.

    Raises:
        StoreError: the value is of a format version that this process does not read.
    """
    header = numbers.one()
    if header >> 4 != FORMAT_VERSION:
        raise StoreError(
            f"a stored timeline value has format version {header >> 4}, this process reads {FORMAT_VERSION}; "
            "upgrade the older side"
        )
    return header & 0xF
