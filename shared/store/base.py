"""The store seam: registry of streams, progress of each, timelines, and small things that all processes share.

Five small protocols that one adapter implements; each worker asks only for the one it needs. Semantics, the same for
every adapter and proved by one contract suite:

- **Registry.** A change names the revision it is based on; a lost race raises `RevisionConflictError`. Removing a stream
  purges everything that is kept of it, and nothing can be written for it afterwards by writers that knew the old one.
- **Progress.** `acquire` raises the stream's epoch (a fencing token larger than any given before, for any stream, also after
  the store lost its last writes). `apply` is the heart of exactly once: in ONE atomic step it compares the stored high-water
  mark with the one the writer last saw and, only if they are equal, writes bucket values (absolute, never increments), the
  opaque aggregator state, the new high-water mark and the bus position that belongs to it. A replayed or fenced writer changes
  nothing.
- **Timeline.** Bucket values are opaque bytes, addressed by (series, tier, index). Series "" is the stream itself; series
  "track/<n>" one tracked face; series "tracks" one bucket value per track summary; series "models" one bucket value per day of
  event time. Reading never sees half an update.
- **Config entries.** Small values by name, such as which model is active. The last writer wins.
- **Versioned entries.** Opaque values by kind and key, such as API keys or alert rules, changed by compare-and-set; and bounded
  logs of
  numbered records, such as the audit log. Kinds and names of logs are fixed words of the code: letters, digits, `-`.
"""

from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import NamedTuple, Protocol

import msgspec

from moodline.shared.bus.base import Position
from moodline.shared.streams import StreamSpec, StreamStatus


class HighWaterMark(NamedTuple):
    """High-water mark of a stream: the last frame that is in the timeline."""

    epoch: int
    seq: int


class Acquisition(msgspec.Struct, frozen=True):
    """The result of acquiring a stream.

    Attributes:
        epoch: The new fencing token.
        next_seq: First sampled frame not yet in the timeline (mark + 1, or 0).
        final: The timeline is complete; there is nothing to read.
    """

    epoch: int
    next_seq: int
    final: bool


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """A stream's progress without what is large: the part of `Progress` that is read often.

    Attributes:
        high_water_mark: Last frame in the timeline, or None before the first.
        final: The content has ended and all of it is in the timeline.
        min_epoch: Epochs below this one belong to a former stream of the same name and must be dropped.
        last_event_time_us: Event time of the high-water mark, or None.
    """

    high_water_mark: HighWaterMark | None = None
    final: bool = False
    min_epoch: int = 0
    last_event_time_us: int | None = None


class Progress(Standing, frozen=True, kw_only=True):
    """A stream's progress, with everything that is needed to continue from there.

    Attributes:
        position: Where on the bus the high-water mark's message was, or None.
        state: The aggregator's state as of the high-water mark; opaque, empty before the first update.
        epoch: Newest epoch that was given out for it, as far as the store knows; 0 before the first.
    """

    position: Position | None = None
    state: bytes = b""
    epoch: int = 0


class FrameFailure(NamedTuple):
    """A frame on which a worker's stage failed, so that it became a dead letter.

    Attributes:
        seq: Number of the frame.
        tries: Epochs under which it failed.
        epoch: The newest of them.
        dead_letter: Who failed and where the frame was on the bus, for people: its dead letter names the same place.
    """

    seq: int
    tries: int
    epoch: int
    dead_letter: str


class BucketValue(NamedTuple):
    """One timeline value. `tier_s` is the bucket's length in s; `index` is its start divided by `tier_s`."""

    series: str
    tier_s: int
    index: int  # type: ignore[assignment]  # the field's standard name; tuple.index is not wanted here
    value: bytes


class BucketValueRange(NamedTuple):
    """Bucket values of one series and tier with `start` <= index < `stop`."""

    stream_id: str
    series: str
    tier_s: int
    start: int
    stop: int


class TimelineUpdate(msgspec.Struct, frozen=True, kw_only=True):
    """One atomic step of one stream.

    Attributes:
        stream_id: The stream.
        expected: The high-water mark the writer last saw (None: no frame yet).
        high_water_mark: The high-water mark after this update.
        final: True when the update closes the stream.
        position: Bus position of the high-water mark's message.
        state: Aggregator state after the update.
        last_event_time_us: Event time of the high-water mark.
        bucket_values: Absolute new values.
    """

    stream_id: str
    expected: HighWaterMark | None
    high_water_mark: HighWaterMark
    final: bool
    position: Position
    state: bytes
    last_event_time_us: int
    bucket_values: tuple[BucketValue, ...] = ()


class ApplyResult(StrEnum):
    """Outcome of one update."""

    APPLIED = "applied"
    STALE = "stale"
    """The stored high-water mark is another one: another writer was there, or the store lost writes. Reload and rewind."""
    GONE = "gone"
    """The stream is not registered any more."""


class RegistryChanges(NamedTuple):
    """The changes of the registry since a version.

    Attributes:
        version: As of now; to be given at the next question.
        stream_ids: Streams that were added, changed or removed since, or are being changed now. None: not known any more.
    """

    version: int
    stream_ids: frozenset[str] | None


class Registry(Protocol):
    """Streams as users registered them."""

    def add(self, spec: StreamSpec) -> StreamSpec:
        """Register a stream and set its minimum epoch above every epoch given so far. Raises `StreamExistsError`."""
        ...

    def get(self, stream_id: str) -> StreamSpec:
        """Return a stream. Raises `StreamNotFoundError`."""
        ...

    def get_many(self, stream_ids: Sequence[str]) -> list[StreamSpec | None]:
        """Return streams, in one round trip; None where one is not registered."""
        ...

    def list_streams(self) -> list[StreamSpec]:
        """Return all streams, ordered by id."""
        ...

    def replace(self, spec: StreamSpec) -> StreamSpec:
        """Store a changed definition and return it with its revision raised.

        `spec.revision` is the one the change is based on. Raises `StreamNotFoundError`, `RevisionConflictError`.
        """
        ...

    def remove(self, stream_id: str) -> None:
        """Remove a stream and purge all data kept of it. Raises `StreamNotFoundError`."""
        ...

    def version(self) -> int:
        """Return a number that changes whenever any definition changes; cheap, for polling."""
        ...

    def changes(self, since: int | None) -> RegistryChanges:
        """Return which definitions have changed since a version that `changes` gave before; cheap, for polling.

        A caller that reads the streams that it names, or all streams where it names none, and asks again with the new version,
        misses no change. A stream may be named although it has not changed.
        """
        ...


class ProgressStore(Protocol):
    """The progress of each stream, and the epoch that may write."""

    def acquire(self, stream_id: str, now_s: float) -> Acquisition:
        """Take a stream for reading and return the new epoch.

        The epoch is max(last given + 1, now in ms), so it grows even when the store lost its newest writes. Raises
        `StreamNotFoundError`.
        """
        ...

    def set_status(self, stream_id: str, epoch: int, status: StreamStatus) -> bool:
        """Record what the reader does. False, and nothing written, when a newer epoch exists or the stream is gone."""
        ...

    def statuses(self, stream_ids: Sequence[str]) -> list[StreamStatus]:
        """Return the last status of each; `StreamStatus()` where there is none."""
        ...

    def add_failure(self, stream_id: str, epoch: int, seq: int, dead_letter: str) -> None:
        """Note that a worker failed on a frame; once for each epoch. Nothing for a stream that is not registered.

        Of each stream the newest `FAILURES_KEPT` frames are kept.
        """
        ...

    def failures(self, stream_id: str) -> list[FrameFailure]:
        """Return the frames of a stream that workers failed on, by number."""
        ...

    def load(self, stream_ids: Sequence[str]) -> list[Progress | None]:
        """Return each stream's progress; None where the stream is not registered."""
        ...

    def standings(self, stream_ids: Sequence[str]) -> list[Standing | None]:
        """Return what `load` does, without what is large."""
        ...

    def apply(self, updates: Sequence[TimelineUpdate]) -> list[ApplyResult]:
        """Write updates, each in one atomic step of its own. At most one update per stream in a call."""
        ...


class TimelineStore(Protocol):
    """Read access to timelines."""

    def read(self, stream_id: str, series: str, tier_s: int, start: int, stop: int) -> list[tuple[int, bytes]]:
        """Return `(index, value)` of stored bucket values with start <= index < stop, ordered. Empty for unknown streams."""
        ...

    def read_many(self, ranges: Sequence[BucketValueRange]) -> list[list[tuple[int, bytes]]]:
        """Return what `read` does for each range, in one round trip. Each is as of one moment, and none before the one before."""
        ...

    def bounds(self, stream_id: str, tier_s: int) -> tuple[int, int] | None:
        """Return first and last stored index of the stream's own series at a tier, or None."""
        ...

    def bounds_many(self, stream_id: str, tiers_s: Sequence[int]) -> list[tuple[int, int] | None]:
        """Return what `bounds` does for each tier, in one round trip."""
        ...

    def prune(self, now_s: float) -> int:
        """Drop bucket values whose retention has passed since they were last written; return how many chunks went.

        Adapters whose server expires by itself return 0.
        """
        ...


class ConfigEntries(Protocol):
    """A few small values that all processes share."""

    def config_entry(self, name: str) -> bytes:
        """Return a value; empty where there is none."""
        ...

    def set_config_entry(self, name: str, value: bytes) -> None:
        """Write a value; an empty one removes it. The last writer wins."""
        ...


class VersionedEntry(NamedTuple):
    """A stored value. `revision` grows with every write of its kind, so that no two values of a key ever share one."""

    key: str
    revision: int
    value: bytes


class VersionedEntries(Protocol):
    """Values that several writers may change, and bounded logs."""

    def put_entry(self, kind: str, key: str, value: bytes, expected: int | None) -> int:
        """Write a value if the stored one has the revision `expected` (None: there is none), and return the new revision.

        Raises `RevisionConflictError` when the stored one has another revision, is there, or is not there.
        """
        ...

    def get_entry(self, kind: str, key: str) -> VersionedEntry | None:
        """Return a value, or None."""
        ...

    def list_entries(self, kind: str) -> list[VersionedEntry]:
        """Return all values of a kind as of one moment, ordered by key."""
        ...

    def remove_entry(self, kind: str, key: str, expected: int | None = None) -> bool:
        """Remove a value; False when there is none.

        Raises `RevisionConflictError` when `expected` is given and the stored one has another revision.
        """
        ...

    def append_record(self, log: str, value: bytes, keep: int) -> int:
        """Append to a log, drop all but its newest `keep` records (at least 1), and return the record's number.

        Numbers grow by one from 1 and are never given twice.
        """
        ...

    def records(
        self, log: str, after: int = 0, limit: int = 100, *, before: int | None = None, newest_first: bool = False
    ) -> list[tuple[int, bytes]]:
        """Return at most `limit` kept records with `after` < number < `before`, by number; from the newest down if asked."""
        ...

    def remove_records(self, log: str, numbers: Sequence[int]) -> None:
        """Remove records of a log; numbers that are not kept are no error. They are not given again."""
        ...


class Store(Registry, ProgressStore, TimelineStore, ConfigEntries, VersionedEntries, Protocol):
    """Everything above, as one adapter."""

    def time_s(self) -> float | None:
        """Return the wall clock of the store's host, s since the Unix epoch; None where that is this machine's own.

        Every process asks the same host. Raises `StoreUnavailableError`.
        """
        ...

    def ping(self) -> None:
        """Raise `StoreUnavailableError` unless the store answers."""
        ...

    def require_writable(self) -> None:
        """Write something small. Raises `StoreUnavailableError` where the store takes nothing: full, read-only or away."""
        ...

    def scrub(self) -> None:
        """Make what was removed unreadable in the store's files, as far as the adapter can: a server's files are its own."""
        ...

    def close(self) -> None:
        """Release the connection. Safe to call twice."""
        ...


class Retention(msgspec.Struct, frozen=True):
    """Time for which bucket values are kept after their last write, by resolution; `tiers` maps resolution in s to seconds."""

    tiers: dict[int, int]

    def seconds(self, tier_s: int) -> int:
        """Return the retention of a tier, in s; of an unlisted tier, the longest."""
        return self.tiers.get(tier_s, max(self.tiers.values()))


FAILURES_KEPT = 32
"""Frames of a stream whose failures are remembered."""

CHUNK_VALUES = 60
"""Bucket values of one series and tier are kept in chunks of this many neighbours."""


def dump(store: TimelineStore, stream_id: str, tiers: Iterable[int]) -> bytes:
    """Return a stream's whole timeline as canonical bytes, for comparing two timelines byte for byte."""
    lines: list[tuple[str, int, int, bytes]] = []
    for tier_s in tiers:
        found = store.bounds(stream_id, tier_s)
        if found is not None:
            lines += [("", tier_s, index, value) for index, value in store.read(stream_id, "", tier_s, found[0], found[1] + 1)]
    lines += [("models", 86_400, index, value) for index, value in store.read(stream_id, "models", 86_400, -(2**53), 2**53)]
    tracks = store.read(stream_id, "tracks", 0, 0, 2**53)
    lines += [("tracks", 0, index, value) for index, value in tracks]
    for track_id, _ in tracks:
        bucket_values = store.read(stream_id, f"track/{track_id}", 1, 0, 2**53)
        lines += [(f"track/{track_id}", 1, index, value) for index, value in bucket_values]
    return msgspec.msgpack.encode(lines)
