"""Many buckets at once, as arrays: the values of `moodline.shared.timeline.bucket`, some 20 times as fast."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from moodline.shared.emotions import EMOTIONS
from moodline.shared.timeline.bucket import (
    DROP_REASONS,
    DROPS,
    FACES,
    FORMAT_VERSION,
    TRACKS,
    UNREADABLE_VERSION,
    Bucket,
    unpack,
)

Numbers = npt.NDArray[np.int64]
_LONGEST: Final = 9
"""Bytes of the longest number that fits into 64 bits with a sign."""


@dataclass(frozen=True, slots=True)
class Columns:
    """`n` buckets; what is named as in `Bucket`, is what it is there.

    Attributes:
        sampled: Shape (n,).
        skipped: Shape (n, 4), in the order of `DropReason`.
        frames_with_faces: Shape (n,).
        faces: Shape (n,).
        raw: Shape (n, 7), in the order of `EMOTIONS`.
        smoothed: Shape (n, 7).
        leading: Shape (n, 7).
        tracks_begun: Shape (n,).
        unreadable: Shape (n,).
        too_small: Shape (n,).
    """

    sampled: Numbers
    skipped: Numbers
    frames_with_faces: Numbers
    faces: Numbers
    raw: Numbers
    smoothed: Numbers
    leading: Numbers
    tracks_begun: Numbers
    unreadable: Numbers
    too_small: Numbers

    @property
    def classified(self) -> Numbers:
        """Frames that were looked at, shape (n,)."""
        return np.asarray(self.sampled - self.skipped.sum(axis=1))

    def placed(self, at: Numbers, length: int) -> "Columns":
        """Return `length` buckets: those of each number in `at`, which never falls, added up; nothing elsewhere."""
        starts = np.flatnonzero(np.diff(at, prepend=-1)) if len(at) else at
        places = at[starts]

        def place(values: Numbers) -> Numbers:
            target = np.zeros((length, *values.shape[1:]), np.int64)
            if len(starts) == len(at):
                target[places] = values
            else:
                target[places] = np.add.reduceat(values, starts, axis=0)
            return target

        return Columns(*(place(values) for values in self._all()))

    def total(self, *, final: bool) -> Bucket:
        """Return what all hold together."""
        sampled, skipped, with_faces, faces, raw, smoothed, leading, begun, unreadable, small = (
            values.sum(axis=0).tolist() for values in self._all()
        )
        sevens = tuple(raw), tuple(smoothed), tuple(leading)
        return Bucket(sampled, tuple(skipped), with_faces, faces, *sevens, begun, final, unreadable, small)

    def _all(self) -> tuple[Numbers, ...]:
        return (
            self.sampled,
            self.skipped,
            self.frames_with_faces,
            self.faces,
            self.raw,
            self.smoothed,
            self.leading,
            self.tracks_begun,
            self.unreadable,
            self.too_small,
        )


def unpack_columns(values: Sequence[bytes]) -> Columns:
    """Return the buckets of stored forms.

    Raises:
        StoreError: one of them is damaged or of another format version.
    """
    columns = _unpack(values) if values else _of([])
    # One by one where the quick way does not fit: it says what is wrong, and reads numbers of any length.
    return _of([unpack(value) for value in values]) if columns is None else columns


def _of(buckets: Sequence[Bucket]) -> Columns:
    def column(name: str, *width: int) -> Numbers:
        return np.array([getattr(bucket, name) for bucket in buckets], np.int64).reshape(len(buckets), *width)

    return Columns(
        column("sampled"),
        column("skipped", len(DROP_REASONS)),
        column("frames_with_faces"),
        column("faces"),
        column("raw", len(EMOTIONS)),
        column("smoothed", len(EMOTIONS)),
        column("leading", len(EMOTIONS)),
        column("tracks_begun"),
        column("unreadable"),
        column("too_small"),
    )


class _Reader:
    """Reads the next number of each value that is asked for."""

    def __init__(self, numbers: Numbers, at: Numbers) -> None:
        self._numbers = numbers
        self.at = at

    def one(self, rows: Numbers) -> Numbers:
        found = self._numbers[self.at[rows]]
        self.at[rows] += 1
        return np.asarray(found)

    def many(self, rows: Numbers, count: int) -> Numbers:
        found = self._numbers[self.at[rows][:, None] + np.arange(count)]
        self.at[rows] += count
        return np.asarray(found)

    def sparse(self, rows: Numbers, target: Numbers) -> bool:
        """Read what a bit mask names into `target[rows]`; return whether the mask names nothing else."""
        masks = self.one(rows)
        for place in range(target.shape[1]):
            named = rows[(masks >> place & 1).astype(bool)]
            target[named, place] = self.one(named)
        return not bool((masks >> target.shape[1]).any())


def _unpack(values: Sequence[bytes]) -> Columns | None:
    """Return the buckets, or None where a value is damaged or holds a number that is too long."""
    numbers, starts, stops = _decode(values) or (None, None, None)
    if numbers is None or starts is None or stops is None:
        return None
    count = len(values)
    # Reading past the end of a damaged value meets these zeros, and `stops` shows it.
    reader = _Reader(np.concatenate([numbers, np.zeros(64, np.int64)]), starts.copy())
    everyone = np.arange(count)
    headers = reader.one(everyone)
    flags, versions = headers & 0xF, headers >> 4
    sampled = reader.one(everyone)
    unreadable = np.zeros((count, 2), np.int64)
    with_unreadable = np.flatnonzero(versions == UNREADABLE_VERSION)
    unreadable[with_unreadable] = reader.many(with_unreadable, 2)
    skipped, raw, smoothed, leading = (np.zeros((count, width), np.int64) for width in (len(DROP_REASONS), 7, 7, 7))
    pair, tracks_begun = np.zeros((count, 2), np.int64), np.zeros(count, np.int64)
    is_known = reader.sparse(np.flatnonzero(flags & DROPS), skipped)
    with_faces = np.flatnonzero(flags & FACES)
    for target in (pair, raw, smoothed):
        target[with_faces] = reader.many(with_faces, target.shape[1])
    is_known &= reader.sparse(with_faces, leading)
    with_tracks = np.flatnonzero(flags & TRACKS)
    tracks_begun[with_tracks] = reader.one(with_tracks)
    if not is_known or ((versions < FORMAT_VERSION) | (versions > UNREADABLE_VERSION)).any() or (reader.at != stops).any():
        return None
    seen = pair[:, 0], pair[:, 1], raw, smoothed, leading, tracks_begun
    return Columns(sampled, skipped, *seen, unreadable[:, 0], unreadable[:, 1])


def _decode(values: Sequence[bytes]) -> tuple[Numbers, Numbers, Numbers] | None:
    """Return the numbers of all values, and where each value's first one and the one after its last are among them."""
    lengths = np.fromiter(map(len, values), np.int64, len(values))
    data = np.frombuffer(b"".join(values), np.uint8)
    last_bytes = lengths.cumsum() - 1
    ends_number = data < 0x80
    if not lengths.all() or not ends_number[last_bytes].all():
        return None
    ends = np.flatnonzero(ends_number)
    sizes = np.diff(ends, prepend=-1)
    if sizes.max() > _LONGEST:
        return None
    numbers = data[ends].astype(np.int64)
    for back in range(1, int(sizes.max())):
        longer = np.flatnonzero(sizes > back)
        numbers[longer] = numbers[longer] << 7 | (data[ends[longer] - back] & 0x7F)
    stops = np.searchsorted(ends, last_bytes, side="right")
    return numbers, np.concatenate([[0], stops[:-1]]), stops
