"""`sqlite:///path`: the store in one file, for one machine. Standard library, write-ahead log, no server."""

import math
import sqlite3
from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path
from typing import Final

import msgspec

from moodline.shared.bus.base import Position
from moodline.shared.clock import Clock, SystemClock
from moodline.shared.errors import RevisionConflictError, SettingsError, StreamExistsError, StreamNotFoundError
from moodline.shared.store.base import (
    CHUNK_VALUES,
    FAILURES_KEPT,
    Acquisition,
    ApplyResult,
    BucketValueRange,
    FrameFailure,
    HighWaterMark,
    Progress,
    RegistryChanges,
    Retention,
    Standing,
    TimelineUpdate,
)
from moodline.shared.store.bucket_values import chunk_of, clamp, epoch_floor_ms, kept_s
from moodline.shared.store.records import decode_spec, decode_status, encode_record
from moodline.shared.store.sqlite_entries import SqliteEntries
from moodline.shared.store.sqlite_file import SqliteFile
from moodline.shared.streams import StreamSpec, StreamStatus

_BUSY_TIMEOUT_S: Final = 10.0
_PRUNE_CHUNKS: Final = 500
_CHANGES_KEPT: Final = 5000

_PROGRESS: Final = """
    SELECT mark_session, mark_seq, final, topic, partition, offset, state, fence, last_event_time_us, session
    FROM stream WHERE stream_id = ?"""
_STANDING: Final = """
    SELECT mark_session, mark_seq, final, fence, last_event_time_us FROM stream WHERE stream_id = ?"""
_FAILED: Final = """
    INSERT INTO frame_failure (stream, seq, tries, session, letter) VALUES (?, ?, 1, ?, ?)
    ON CONFLICT DO UPDATE SET tries = tries + 1, session = excluded.session, letter = excluded.letter
        WHERE excluded.session > session"""
_FORGET_FAILED: Final = """
    DELETE FROM frame_failure WHERE stream = ? AND seq NOT IN (
        SELECT seq FROM frame_failure WHERE stream = ? ORDER BY session DESC, seq DESC LIMIT ?)"""
_APPLY_GET: Final = "SELECT key, fence, mark_session, mark_seq, topic, partition, offset FROM stream WHERE stream_id = ?"
_APPLY_SET: Final = """
    UPDATE stream SET mark_session = ?, mark_seq = ?, final = ?, topic = ?, partition = ?, offset = ?,
        last_event_time_us = ?, state = ? WHERE key = ?"""
_PUT_VALUE: Final = """
    INSERT INTO cell VALUES (?, ?, ?, ?, ?, ?)
    ON CONFLICT DO UPDATE SET value = excluded.value, written_s = excluded.written_s"""
_READ: Final = """
    SELECT idx, value FROM cell WHERE stream = ? AND series = ? AND level_s = ? AND idx >= ? AND idx < ? ORDER BY idx"""
# Two searches from the ends of the key: min() and max() together would walk through all of it.
_FIRST: Final = "SELECT idx FROM cell WHERE stream = ? AND series = '' AND level_s = ? ORDER BY idx LIMIT 1"
_LAST: Final = "SELECT idx FROM cell WHERE stream = ? AND series = '' AND level_s = ? ORDER BY idx DESC LIMIT 1"
_DUE: Final = "SELECT stream, series, level_s, number FROM block WHERE due_s <= ? LIMIT ?"
_LAST_WRITTEN: Final = """
    SELECT max(written_s) FROM cell WHERE stream = ? AND series = ? AND level_s = ? AND idx >= ? AND idx < ?"""
_POSTPONE: Final = "UPDATE block SET due_s = ? WHERE stream = ? AND series = ? AND level_s = ? AND number = ?"
_DELETE_VALUES: Final = "DELETE FROM cell WHERE stream = ? AND series = ? AND level_s = ? AND idx >= ? AND idx < ?"
_DELETE_CHUNK: Final = "DELETE FROM block WHERE stream = ? AND series = ? AND level_s = ? AND number = ?"


class SqliteStore(SqliteEntries):
    """The `Store` protocol on one SQLite file.

    Thread-safe, and several processes may have the same file open. A committed update survives `kill -9`; a power failure
    may lose the last moments, never half an update.
    """

    def __init__(
        self, url: str, retention: Retention, *, clock: Clock | None = None, busy_timeout_s: float = _BUSY_TIMEOUT_S
    ) -> None:
        """Open the file that the URL names, and create it and its folder where missing.

        Args:
            url: `sqlite:///relative.db` or `sqlite:////absolute.db`.
            retention: How long bucket values are kept; `prune` drops what is older.
            clock: Says when a bucket value was written; the machine's clock unless given.
            busy_timeout_s: How long to wait for a writer of another process.

        Raises:
            SettingsError: the URL names no file.
            StoreUnavailableError: the file cannot be opened or stays locked.
            StoreError: the file is damaged, not Moodline's, or of a newer version.
        """
        path = url.removeprefix("sqlite:///")
        if path == url or path in ("", "/", ":memory:"):
            raise SettingsError("the store URL names no file; use sqlite:///relative.db or sqlite:////absolute.db")
        self._kept_s = cache(partial(kept_s, retention))
        self._clock = clock or SystemClock()
        super().__init__(SqliteFile(Path(path), self._clock, busy_timeout_s))

    def __repr__(self) -> str:
        return f"SqliteStore({str(self._file.path)!r})"

    # Registry

    def add(self, spec: StreamSpec) -> StreamSpec:
        with self._file.write() as db:
            if _key(db, spec.stream_id) is not None:
                raise StreamExistsError(f"stream {spec.stream_id!r} is registered already")
            min_epoch = _draw_epoch(db, spec.created_at_us // 1000)
            db.execute(
                "INSERT INTO stream (stream_id, spec, revision, fence) VALUES (?, ?, ?, ?)",
                (spec.stream_id, encode_record(spec), spec.revision, min_epoch),
            )
            _raise_version(db, spec.stream_id)
        return spec

    def get(self, stream_id: str) -> StreamSpec:
        with self._file.read() as db:
            row = db.execute("SELECT spec FROM stream WHERE stream_id = ?", (stream_id,)).fetchone()
        if row is None:
            raise _not_found(stream_id)
        return decode_spec(row[0])

    def get_many(self, stream_ids: Sequence[str]) -> list[StreamSpec | None]:
        with self._file.read() as db:
            rows = [db.execute("SELECT spec FROM stream WHERE stream_id = ?", (name,)).fetchone() for name in stream_ids]
        return [None if row is None else decode_spec(row[0]) for row in rows]

    def list_streams(self) -> list[StreamSpec]:
        with self._file.read() as db:
            rows = db.execute("SELECT spec FROM stream ORDER BY stream_id").fetchall()
        return [decode_spec(row[0]) for row in rows]

    def replace(self, spec: StreamSpec) -> StreamSpec:
        changed = msgspec.structs.replace(spec, revision=spec.revision + 1)
        with self._file.write() as db:
            row = db.execute("SELECT key, revision FROM stream WHERE stream_id = ?", (spec.stream_id,)).fetchone()
            if row is None:
                raise _not_found(spec.stream_id)
            if row[1] != spec.revision:
                raise RevisionConflictError(f"stream {spec.stream_id!r} was changed since revision {spec.revision} was read")
            db.execute(
                "UPDATE stream SET spec = ?, revision = ? WHERE key = ?", (encode_record(changed), changed.revision, row[0])
            )
            _raise_version(db, spec.stream_id)
        return changed

    def remove(self, stream_id: str) -> None:
        with self._file.write() as db:
            key = _key(db, stream_id)
            if key is None:
                raise _not_found(stream_id)
            db.execute("DELETE FROM cell WHERE stream = ?", (key,))
            db.execute("DELETE FROM block WHERE stream = ?", (key,))
            db.execute("DELETE FROM frame_failure WHERE stream = ?", (key,))
            db.execute("DELETE FROM stream WHERE key = ?", (key,))
            _raise_version(db, stream_id)

    def version(self) -> int:
        with self._file.read() as db:
            return _version(db)

    def changes(self, since: int | None) -> RegistryChanges:
        with self._file.read() as db:
            version = _version(db)
            if since is None or since > version:
                return RegistryChanges(version, None)
            rows = db.execute("SELECT stream_id FROM registry_change WHERE version > ?", (since,)).fetchall()
        # Fewer rows than versions: some are not kept any more, or a process of an older Moodline wrote none.
        is_known = len(rows) == version - since
        return RegistryChanges(version, frozenset(row[0] for row in rows) if is_known else None)

    # Progress

    def acquire(self, stream_id: str, now_s: float) -> Acquisition:
        with self._file.write() as db:
            row = db.execute(
                "SELECT key, mark_session, mark_seq, final, session, fence FROM stream WHERE stream_id = ?", (stream_id,)
            ).fetchone()
            if row is None:
                raise _not_found(stream_id)
            key, high_water_epoch, high_water_seq, final, known, min_epoch = row
            floor = max(known, min_epoch, high_water_epoch or 0) + 1
            epoch = _draw_epoch(db, max(epoch_floor_ms(now_s), floor))
            db.execute("UPDATE stream SET session = ? WHERE key = ?", (epoch, key))
        return Acquisition(epoch, 0 if high_water_seq is None else high_water_seq + 1, bool(final))

    def set_status(self, stream_id: str, epoch: int, status: StreamStatus) -> bool:
        with self._file.write() as db:
            changed = db.execute(
                "UPDATE stream SET session = ?, status = ? WHERE stream_id = ? AND session <= ? AND fence <= ?",
                (epoch, encode_record(status), stream_id, epoch, epoch),
            )
            return changed.rowcount == 1

    def statuses(self, stream_ids: Sequence[str]) -> list[StreamStatus]:
        with self._file.read() as db:
            rows = [db.execute("SELECT status FROM stream WHERE stream_id = ?", (name,)).fetchone() for name in stream_ids]
        return [decode_status(row[0]) if row and row[0] else StreamStatus() for row in rows]

    def add_failure(self, stream_id: str, epoch: int, seq: int, dead_letter: str) -> None:
        with self._file.write() as db:
            row = db.execute("SELECT key FROM stream WHERE stream_id = ? AND fence <= ?", (stream_id, epoch)).fetchone()
            if row is None:
                return
            db.execute(_FAILED, (row[0], seq, epoch, dead_letter))
            db.execute(_FORGET_FAILED, (row[0], row[0], FAILURES_KEPT))

    def failures(self, stream_id: str) -> list[FrameFailure]:
        query = "SELECT seq, tries, session, letter FROM frame_failure WHERE stream = ? ORDER BY seq"
        with self._file.read() as db:
            return [FrameFailure(*row) for row in db.execute(query, (_key(db, stream_id),))]

    def load(self, stream_ids: Sequence[str]) -> list[Progress | None]:
        with self._file.read() as db:
            rows = [db.execute(_PROGRESS, (name,)).fetchone() for name in stream_ids]
        return [None if row is None else _progress(row) for row in rows]

    def standings(self, stream_ids: Sequence[str]) -> list[Standing | None]:
        with self._file.read() as db:
            rows = [db.execute(_STANDING, (name,)).fetchone() for name in stream_ids]
        return [None if row is None else _standing(*row) for row in rows]

    def apply(self, updates: Sequence[TimelineUpdate]) -> list[ApplyResult]:
        if not updates:
            return []
        # Rounded up: a bucket value is never dropped before its time.
        now_s = math.ceil(self._clock.now_s())
        with self._file.write() as db:
            return [self._apply_one(db, update, now_s) for update in updates]

    def _apply_one(self, db: sqlite3.Connection, update: TimelineUpdate, now_s: int) -> ApplyResult:
        row = db.execute(_APPLY_GET, (update.stream_id,)).fetchone()
        if row is None or update.high_water_mark.epoch < row[1]:
            return ApplyResult.GONE
        stored = None if row[2] is None else (row[2], row[3])
        if stored != update.expected:
            # This very update is in already: its answer was lost, or another worker did the same step. Both computed it from
            # the same state and the same record, so the bucket values are the same too.
            replayed = stored == update.high_water_mark and row[4:7] == update.position
            return ApplyResult.APPLIED if replayed else ApplyResult.STALE
        key = row[0]
        self._put_bucket_values(db, key, update, now_s)
        values = (*update.high_water_mark, update.final, *update.position, update.last_event_time_us, update.state, key)
        db.execute(_APPLY_SET, values)
        return ApplyResult.APPLIED

    def _put_bucket_values(self, db: sqlite3.Connection, key: int, update: TimelineUpdate, now_s: int) -> None:
        chunks = {
            (bucket_value.series, bucket_value.tier_s, chunk_of(bucket_value.index)) for bucket_value in update.bucket_values
        }
        db.executemany(_PUT_VALUE, ((key, *bucket_value, now_s) for bucket_value in update.bucket_values))
        db.executemany(
            "INSERT OR IGNORE INTO block VALUES (?, ?, ?, ?, ?)",
            ((key, *chunk, now_s + self._kept_s(chunk[1])) for chunk in chunks),
        )

    # Timeline

    def read(self, stream_id: str, series: str, tier_s: int, start: int, stop: int) -> list[tuple[int, bytes]]:
        return self.read_many([BucketValueRange(stream_id, series, tier_s, start, stop)])[0]

    def read_many(self, ranges: Sequence[BucketValueRange]) -> list[list[tuple[int, bytes]]]:
        with self._file.read() as db:
            return [
                db.execute(_READ, (_key(db, each.stream_id), *each[1:3], clamp(each.start), clamp(each.stop))).fetchall()
                for each in ranges
            ]

    def bounds(self, stream_id: str, tier_s: int) -> tuple[int, int] | None:
        return self.bounds_many(stream_id, (tier_s,))[0]

    def bounds_many(self, stream_id: str, tiers_s: Sequence[int]) -> list[tuple[int, int] | None]:
        with self._file.read() as db:
            key = _key(db, stream_id)
            places = [(key, tier_s) for tier_s in tiers_s]
            found = [(db.execute(_FIRST, place).fetchone(), db.execute(_LAST, place).fetchone()) for place in places]
        return [None if first is None else (first[0], last[0]) for first, last in found]

    def prune(self, now_s: float) -> int:
        dropped = 0
        while True:
            # Some chunks at a time, so that writers wait only briefly.
            with self._file.write() as db:
                due = db.execute(_DUE, (now_s, _PRUNE_CHUNKS)).fetchall()
                dropped += sum(self._delete_if_old(db, chunk, now_s) for chunk in due)
            if len(due) < _PRUNE_CHUNKS:
                return dropped

    def _delete_if_old(self, db: sqlite3.Connection, chunk: tuple[int, str, int, int], now_s: float) -> bool:
        stream, series, tier_s, number = chunk
        bucket_values = (stream, series, tier_s, number * CHUNK_VALUES, (number + 1) * CHUNK_VALUES)
        written_s = db.execute(_LAST_WRITTEN, bucket_values).fetchone()[0]
        due_s = (written_s or 0) + self._kept_s(tier_s)
        if due_s > now_s:
            db.execute(_POSTPONE, (due_s, *chunk))
            return False
        db.execute(_DELETE_VALUES, bucket_values)
        db.execute(_DELETE_CHUNK, chunk)
        return True

    # Notes

    def config_entry(self, name: str) -> bytes:
        with self._file.read() as db:
            row = db.execute("SELECT value FROM note WHERE name = ?", (name,)).fetchone()
        return b"" if row is None else bytes(row[0])

    def set_config_entry(self, name: str, value: bytes) -> None:
        with self._file.write() as db:
            db.execute("DELETE FROM note WHERE name = ?", (name,))
            if value:
                db.execute("INSERT INTO note VALUES (?, ?)", (name, value))

    # The adapter itself

    def time_s(self) -> float | None:
        return None

    def ping(self) -> None:
        self.version()

    def require_writable(self) -> None:
        with self._file.write() as db:
            db.execute("INSERT INTO meta VALUES ('writable', 1) ON CONFLICT DO UPDATE SET value = value + 1")
        self._file.require_room()

    def scrub(self) -> None:
        self._file.empty_log()

    def close(self) -> None:
        self._file.close()


def _not_found(stream_id: str) -> StreamNotFoundError:
    return StreamNotFoundError(f"no stream {stream_id!r} is registered")


def _key(db: sqlite3.Connection, stream_id: str) -> int | None:
    row = db.execute("SELECT key FROM stream WHERE stream_id = ?", (stream_id,)).fetchone()
    return None if row is None else int(row[0])


def _draw_epoch(db: sqlite3.Connection, least: int) -> int:
    """Return an epoch that was never given before, at least `least`."""
    query = "UPDATE meta SET value = max(value + 1, ?) WHERE name = 'sessions' RETURNING value"
    return int(db.execute(query, (least,)).fetchall()[0][0])


def _version(db: sqlite3.Connection) -> int:
    return int(db.execute("SELECT value FROM meta WHERE name = 'version'").fetchone()[0])


def _raise_version(db: sqlite3.Connection, stream_id: str) -> None:
    db.execute("UPDATE meta SET value = value + 1 WHERE name = 'version'")
    version = _version(db)
    db.execute("INSERT OR REPLACE INTO registry_change VALUES (?, ?)", (version, stream_id))
    db.execute("DELETE FROM registry_change WHERE version <= ?", (version - _CHANGES_KEPT,))


def _standing(
    high_water_epoch: int | None, high_water_seq: int, final: int, min_epoch: int, last_event_time_us: int | None
) -> Standing:
    if high_water_epoch is None:
        return Standing(min_epoch=min_epoch)
    high_water_mark = HighWaterMark(high_water_epoch, high_water_seq)
    return Standing(
        high_water_mark=high_water_mark, final=bool(final), min_epoch=min_epoch, last_event_time_us=last_event_time_us
    )


def _progress(row: tuple[int | None, int, int, str, int, int, bytes, int, int, int]) -> Progress:
    high_water_epoch, high_water_seq, final, topic, partition, offset, state, min_epoch, last_event_time_us, epoch = row
    if high_water_epoch is None:
        return Progress(min_epoch=min_epoch, epoch=epoch)
    return Progress(
        high_water_mark=HighWaterMark(high_water_epoch, high_water_seq),
        final=bool(final),
        position=Position(topic, partition, offset),
        state=state,
        min_epoch=min_epoch,
        last_event_time_us=last_event_time_us,
        epoch=epoch,
    )
