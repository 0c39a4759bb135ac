"""`redis://host:port/db`: the store on a Redis server, behind Sentinel or as a cluster, shared by any number of machines."""

import logging
import secrets
from collections.abc import Sequence
from functools import cache, partial
from typing import Any, Final

import msgspec

from moodline.shared.clock import Clock, SystemClock
from moodline.shared.errors import (
    RevisionConflictError,
    StoreError,
    StoreUnavailableError,
    StreamExistsError,
    StreamNotFoundError,
)
from moodline.shared.store.base import (
    CHUNK_VALUES,
    FAILURES_KEPT,
    Acquisition,
    ApplyResult,
    BucketValueRange,
    FrameFailure,
    Progress,
    RegistryChanges,
    Retention,
    Standing,
    TimelineUpdate,
)
from moodline.shared.store.bucket_values import clamp, epoch_floor_ms, kept_s
from moodline.shared.store.records import decode_spec, encode_record
from moodline.shared.store.redis_entries import RedisEntries
from moodline.shared.store.redis_layout import (
    CONFIG_ENTRIES_KEY,
    SHARED_KEYS,
    chunk_name,
    chunk_prefix,
    group_bucket_values,
    pack_bucket_values,
    stream_keys,
)
from moodline.shared.store.redis_link import Argument, Call, RedisLink, Script
from moodline.shared.store.redis_replies import (
    bounds_of,
    bucket_values_of,
    failures_of,
    high_water_mark_of,
    high_water_mark_text,
    pairs_of,
    progress_of,
    readable,
    spec_of,
    standing_of,
    status_of,
)
from moodline.shared.streams import StreamSpec, StreamStatus

log = logging.getLogger("moodline.store")

SCHEMA_VERSION: Final = 1
_RETRY_S: Final = 5.0
_CHANGE_LIMIT_MS: Final = 60_000
"""A change of the registry that takes longer was left by a process that died."""
_WRITABLE: Final = "writable"
_PURGE_CHUNKS: Final = 500
"""Chunks deleted in one step; Redis answers others in between."""
_ATTEMPTS: Final = 200
"""Attempts of a step. It loses a race only when another process wins it."""

_registry = Script("registry")
_stream = Script("stream")
_apply = Script("apply")
_read = Script("read")
_bounds = Script("bounds")


class RedisStore(RedisEntries):
    """The `Store` protocol on plain Redis, 7.0 or later: alone, behind Sentinel, or as a cluster.

    Thread-safe. Connects at the first use. While Redis is unavailable, starting, or out of memory, a call is repeated for
    some seconds and then raises `StoreUnavailableError`; repeating is safe for every call, also when only the answer was
    lost. Chunks of bucket values expire by themselves.
    """

    def __init__(self, url: str, retention: Retention, *, clock: Clock | None = None, retry_s: float = _RETRY_S) -> None:
        """Remember where Redis is.

        Args:
            url: Where Redis is; its forms are in `moodline.shared.store.redis_address`.
            retention: How long bucket values are kept after they were last written.
            clock: Waits between attempts; the machine's clock unless given.
            retry_s: How long to repeat a call while Redis is unavailable.

        Raises:
            SettingsError: the URL cannot be used.
        """
        self._kept_s = cache(partial(kept_s, retention))
        super().__init__(RedisLink(url, clock or SystemClock(), retry_s))
        self._index_kept_s = max(kept_s(retention, 0), *retention.tiers.values())

    def __repr__(self) -> str:
        return f"RedisStore('{self._link.address}')"

    # Registry

    def add(self, spec: StreamSpec) -> StreamSpec:
        change = secrets.token_hex(8)
        if self._one(("HEXISTS", stream_keys(spec.stream_id)[0], "spec")):
            raise _exists(spec.stream_id)
        self._shared("begin", change, spec.stream_id, "add", SCHEMA_VERSION)
        created = self._create(change, spec)
        self._shared("finish", change, spec.stream_id, "added" if created else "changed", "")
        if not created:
            raise _exists(spec.stream_id)
        self._settle(spec.stream_id, change, spec.created_at_us // 1000)
        return spec

    def get(self, stream_id: str) -> StreamSpec:
        value = self._one(("HGET", stream_keys(stream_id)[0], "spec"))
        if value is None:
            raise _not_found(stream_id)
        return decode_spec(value)

    def get_many(self, stream_ids: Sequence[str]) -> list[StreamSpec | None]:
        values = self._link.run([("HGET", stream_keys(name)[0], "spec") for name in stream_ids]) if stream_ids else []
        return [spec_of(name, value) for name, value in zip(stream_ids, values, strict=True)]

    def list_streams(self) -> list[StreamSpec]:
        registrations = pairs_of(self._one(("HGETALL", SHARED_KEYS[1])))
        ids = sorted(registrations)
        values = self._link.run([("HGET", stream_keys(name)[0], "spec") for name in ids]) if ids else []
        for name, value in zip(ids, values, strict=True):
            if value is None:
                # Its removal, or its registration, was not finished: the process died. Finish it.
                self._purge(name)
                self._shared("forget", name, registrations[name])
        specs = [spec_of(name, value) for name, value in zip(ids, values, strict=True)]
        return [spec for spec in specs if spec is not None]

    def replace(self, spec: StreamSpec) -> StreamSpec:
        change = secrets.token_hex(8)
        changed = msgspec.structs.replace(spec, revision=spec.revision + 1)
        self.get(spec.stream_id)
        self._shared("begin", change, spec.stream_id, "change", SCHEMA_VERSION)
        values = (change, spec.revision, changed.revision, encode_record(changed))
        answer = self._on_stream(spec.stream_id, "replace", *values)
        self._shared("finish", change, spec.stream_id, "changed", "")
        if answer == b"missing":
            raise _not_found(spec.stream_id)
        if answer == b"conflict":
            raise RevisionConflictError(f"stream {spec.stream_id!r} was changed since revision {spec.revision} was read")
        return changed

    def remove(self, stream_id: str) -> None:
        change = secrets.token_hex(8)
        self.get(stream_id)
        registration = self._shared("begin", change, stream_id, "change", SCHEMA_VERSION)
        dropped = self._link.run([_stream.call(stream_keys(stream_id), ("drop",))])
        self._purge(stream_id)
        self._shared("finish", change, stream_id, "removed", registration)
        if not dropped[0] and not dropped.repeated:
            raise _not_found(stream_id)

    def version(self) -> int:
        return int(self._shared("version", _CHANGE_LIMIT_MS))

    def changes(self, since: int | None) -> RegistryChanges:
        version, is_known, *names = self._shared("changes", "" if since is None else since, _CHANGE_LIMIT_MS)
        return RegistryChanges(int(version), frozenset(name.decode() for name in names) if is_known else None)

    def _create(self, change: str, spec: StreamSpec) -> bool:
        for _ in range(_ATTEMPTS):
            answer = self._on_stream(spec.stream_id, "create", change, spec.revision, encode_record(spec))
            if answer != b"purge":
                return bool(answer == b"ok")
            self._purge(spec.stream_id)
        raise StoreUnavailableError(f"stream {spec.stream_id!r} is being added and removed by others all the time")

    def _settle(self, stream_id: str, created: Argument, least: int) -> None:
        """Draw the minimum epoch of a stream that was just created, and set it unless another process did."""
        self._on_stream(stream_id, "settle", created, self._shared("draw", least))

    def _purge(self, stream_id: str) -> None:
        while self._on_stream(stream_id, "purge", _PURGE_CHUNKS):
            pass

    # Progress

    def acquire(self, stream_id: str, now_s: float) -> Acquisition:
        least = epoch_floor_ms(now_s)
        for _ in range(_ATTEMPTS):
            epoch = self._shared("draw", least)
            answer, *details = self._on_stream(stream_id, "claim", epoch)
            if answer == b"missing":
                raise _not_found(stream_id)
            if answer == b"ok":
                high_water_mark = high_water_mark_of(details[0])
                return Acquisition(int(epoch), 0 if high_water_mark is None else high_water_mark.seq + 1, details[1] == b"1")
            if answer == b"closed":
                self._settle(stream_id, details[0], least)
            else:
                least = max(least, int(details[0]))
        raise StoreUnavailableError(f"stream {stream_id!r} is being claimed by others all the time")

    def set_status(self, stream_id: str, epoch: int, status: StreamStatus) -> bool:
        return bool(self._on_stream(stream_id, "status", epoch, encode_record(status)))

    def statuses(self, stream_ids: Sequence[str]) -> list[StreamStatus]:
        values = self._link.run([("HGET", stream_keys(name)[0], "status") for name in stream_ids]) if stream_ids else []
        return [status_of(name, value) for name, value in zip(stream_ids, values, strict=True)]

    def add_failure(self, stream_id: str, epoch: int, seq: int, dead_letter: str) -> None:
        self._on_stream(stream_id, "failed", epoch, seq, dead_letter, FAILURES_KEPT)

    def failures(self, stream_id: str) -> list[FrameFailure]:
        value = self._one(("HGET", stream_keys(stream_id)[0], "failed"))
        return [] if value is None else readable(stream_id, lambda: failures_of(value), [])

    def load(self, stream_ids: Sequence[str]) -> list[Progress | None]:
        fields = ("fence", "mark", "final", "position", "state", "event_time_us", "session")
        rows = self._link.run([("HMGET", stream_keys(name)[0], *fields) for name in stream_ids]) if stream_ids else []
        return [readable(name, partial(progress_of, *row), None) for name, row in zip(stream_ids, rows, strict=True)]

    def standings(self, stream_ids: Sequence[str]) -> list[Standing | None]:
        fields = ("fence", "mark", "final", "event_time_us")
        rows = self._link.run([("HMGET", stream_keys(name)[0], *fields) for name in stream_ids]) if stream_ids else []
        return [readable(name, partial(standing_of, *row), None) for name, row in zip(stream_ids, rows, strict=True)]

    def apply(self, updates: Sequence[TimelineUpdate]) -> list[ApplyResult]:
        answers = self._link.run([self._apply_call(update) for update in updates]) if updates else []
        return [ApplyResult(answer.decode()) for answer in answers]

    def _apply_call(self, update: TimelineUpdate) -> Call:
        stream, index = stream_keys(update.stream_id)
        names: list[str] = []
        layout: list[tuple[int, list[int], list[int]]] = []
        values: list[bytes] = []
        for (name, tier_s), bucket_values in group_bucket_values(update.bucket_values).items():
            put, drop, found = pack_bucket_values(bucket_values)
            names.append(f"{stream}:{name}")
            layout.append((self._kept_s(tier_s), put, drop))
            values += found
        arguments = (
            "" if update.expected is None else high_water_mark_text(update.expected),
            high_water_mark_text(update.high_water_mark),
            update.high_water_mark.epoch,
            msgspec.msgpack.encode(update.position),
            int(update.final),
            update.last_event_time_us,
            update.state,
            self._index_kept_s,
            msgspec.msgpack.encode(layout),
            b"".join(values),
        )
        return _apply.call((stream, index, *names), arguments)

    # Timeline

    def read(self, stream_id: str, series: str, tier_s: int, start: int, stop: int) -> list[tuple[int, bytes]]:
        return self.read_many([BucketValueRange(stream_id, series, tier_s, start, stop)])[0]

    def read_many(self, ranges: Sequence[BucketValueRange]) -> list[list[tuple[int, bytes]]]:
        clamped = [each._replace(start=clamp(each.start), stop=clamp(each.stop)) for each in ranges]
        asked = [each for each in clamped if each.start < each.stop]
        answers = iter(self._link.run([_read_call(each) for each in asked]) if asked else [])
        return [bucket_values_of(next(answers), each) if each.start < each.stop else [] for each in clamped]

    def bounds(self, stream_id: str, tier_s: int) -> tuple[int, int] | None:
        return self.bounds_many(stream_id, (tier_s,))[0]

    def bounds_many(self, stream_id: str, tiers_s: Sequence[int]) -> list[tuple[int, int] | None]:
        keys = stream_keys(stream_id)
        calls = [_bounds.call(keys, (chunk_prefix("", tier_s),)) for tier_s in tiers_s]
        return [bounds_of(found) for found in self._link.run(calls)] if calls else []

    def prune(self, now_s: float) -> int:  # noqa: ARG002 - Redis expires chunks by itself
        return 0

    # Notes

    def config_entry(self, name: str) -> bytes:
        value = self._one(("HGET", CONFIG_ENTRIES_KEY, name))
        return b"" if value is None else bytes(value)

    def set_config_entry(self, name: str, value: bytes) -> None:
        self._one(("HSET", CONFIG_ENTRIES_KEY, name, value) if value else ("HDEL", CONFIG_ENTRIES_KEY, name))

    # The adapter itself

    def time_s(self) -> float | None:
        return int(self._shared("time")) / 1e6

    def ping(self) -> None:
        schema = self._one(("HGET", SHARED_KEYS[0], "schema"))
        if schema is not None and int(schema) > SCHEMA_VERSION:
            newer = f"schema {int(schema)}, this one knows {SCHEMA_VERSION}"
            raise StoreError(f"{self!r} was written by a newer Moodline ({newer}): upgrade Moodline")

    def require_writable(self) -> None:
        self._one(("HSET", CONFIG_ENTRIES_KEY, _WRITABLE, b"1"))

    def scrub(self) -> None:
        """Do nothing: what is removed is gone from memory, and from the append-only file when Redis rewrites it."""

    def close(self) -> None:
        self._link.close()

    def _one(self, call: Call) -> Any:
        return self._link.run([call])[0]

    def _shared(self, operation: str, *arguments: Argument) -> Any:
        return self._one(_registry.call(SHARED_KEYS, (operation, *arguments)))

    def _on_stream(self, stream_id: str, operation: str, *arguments: Argument) -> Any:
        return self._one(_stream.call(stream_keys(stream_id), (operation, *arguments)))


def _not_found(stream_id: str) -> StreamNotFoundError:
    return StreamNotFoundError(f"no stream {stream_id!r} is registered")


def _exists(stream_id: str) -> StreamExistsError:
    return StreamExistsError(f"stream {stream_id!r} is registered already")


def _read_call(asked: BucketValueRange) -> Call:
    chunks = (chunk_name(asked.series, asked.tier_s, index // CHUNK_VALUES) for index in (asked.start, asked.stop - 1))
    return _read.call(stream_keys(asked.stream_id), tuple(chunks))
