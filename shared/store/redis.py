"""`redis://host:port/db`: the store on a Redis server, behind Sentinel or as a cluster, shared by any number of machines."""

import secrets
from collections.abc import Sequence
from functools import cache, partial
from typing import Any, Final

import msgspec

from moodline.shared.bus.base import Position
from moodline.shared.clock import Clock, SystemClock
from moodline.shared.errors import (
    RevisionConflictError,
    StoreError,
    StoreUnavailableError,
    StreamExistsError,
    StreamNotFoundError,
)
from moodline.shared.store.base import (
    BLOCK_CELLS,
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
from moodline.shared.store.cells import SESSION_LIMIT, clamp, kept_s, session_floor_ms
from moodline.shared.store.records import decode_spec, decode_status, encode_record
from moodline.shared.store.redis_documents import RedisDocuments
from moodline.shared.store.redis_layout import (
    NOTES_KEY,
    SHARED_KEYS,
    block_name,
    block_prefix,
    first_index,
    group_cells,
    pack_cells,
    stream_keys,
    unpack_cells,
)
from moodline.shared.store.redis_link import Argument, Call, RedisLink, Script
from moodline.shared.streams import StreamSpec, StreamStatus

SCHEMA_VERSION: Final = 1
_RETRY_S: Final = 5.0
_CHANGE_LIMIT_MS: Final = 60_000
"""A change of the registry that takes longer was left by a process that died."""
_WRITABLE: Final = "writable"
_PURGE_BLOCKS: Final = 500
"""Blocks deleted in one step; Redis answers others in between."""
_ATTEMPTS: Final = 200
"""Attempts of a step. It loses a race only when another process wins it."""

_registry = Script("registry")
_stream = Script("stream")
_apply = Script("apply")
_read = Script("read")
_bounds = Script("bounds")


class RedisStore(RedisDocuments):
    """The `Store` protocol on plain Redis, 7.0 or later: alone, behind Sentinel, or as a cluster.

    Thread-safe. Connects at the first use. While Redis is unavailable, starting, or out of memory, a call is repeated for
    some seconds and then raises `StoreUnavailableError`; repeating is safe for every call, also when only the answer was
    lost. Blocks of cells expire by themselves.
    """

    def __init__(self, url: str, retention: Retention, *, clock: Clock | None = None, retry_s: float = _RETRY_S) -> None:
        """Remember where Redis is.

        Args:
            url: Where Redis is; its forms are in `moodline.shared.store.redis_address`.
            retention: How long cells are kept after they were last written.
            clock: Waits between attempts; the machine's clock unless given.
            retry_s: How long to repeat a call while Redis is unavailable.

        Raises:
            SettingsError: the URL cannot be used.
        """
        self._kept_s = cache(partial(kept_s, retention))
        super().__init__(RedisLink(url, clock or SystemClock(), retry_s))
        self._index_kept_s = max(kept_s(retention, 0), *retention.levels.values())

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
        return [None if value is None else decode_spec(value) for value in values]

    def list_streams(self) -> list[StreamSpec]:
        registrations = _pairs(self._one(("HGETALL", SHARED_KEYS[1])))
        ids = sorted(registrations)
        values = self._link.run([("HGET", stream_keys(name)[0], "spec") for name in ids]) if ids else []
        for name, value in zip(ids, values, strict=True):
            if value is None:
                # Its removal, or its registration, was not finished: the process died. Finish it.
                self._purge(name)
                self._shared("forget", name, registrations[name])
        return [decode_spec(value) for value in values if value is not None]

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
        """Draw the fence of a stream that was just created, and set it unless another process did."""
        self._on_stream(stream_id, "settle", created, self._shared("draw", least))

    def _purge(self, stream_id: str) -> None:
        while self._on_stream(stream_id, "purge", _PURGE_BLOCKS):
            pass

    # Progress

    def claim(self, stream_id: str, now_s: float) -> Acquisition:
        least = session_floor_ms(now_s)
        for _ in range(_ATTEMPTS):
            session = self._shared("draw", least)
            answer, *details = self._on_stream(stream_id, "claim", session)
            if answer == b"missing":
                raise _not_found(stream_id)
            if answer == b"ok":
                mark = _mark(details[0])
                return Acquisition(int(session), 0 if mark is None else mark.seq + 1, details[1] == b"1")
            if answer == b"closed":
                self._settle(stream_id, details[0], least)
            else:
                least = max(least, int(details[0]))
        raise StoreUnavailableError(f"stream {stream_id!r} is being claimed by others all the time")

    def set_status(self, stream_id: str, session: int, status: StreamStatus) -> bool:
        return bool(self._on_stream(stream_id, "status", session, encode_record(status)))

    def statuses(self, stream_ids: Sequence[str]) -> list[StreamStatus]:
        values = self._link.run([("HGET", stream_keys(name)[0], "status") for name in stream_ids]) if stream_ids else []
        return [StreamStatus() if value is None else decode_status(value) for value in values]

    def add_failure(self, stream_id: str, session: int, seq: int, letter: str) -> None:
        self._on_stream(stream_id, "failed", session, seq, letter, FAILURES_KEPT)

    def failures(self, stream_id: str) -> list[FrameFailure]:
        value = self._one(("HGET", stream_keys(stream_id)[0], "failed"))
        rows = [] if value is None else msgspec.json.decode(value, type=list[tuple[str, int, str, str]])
        return sorted(FrameFailure(int(seq), tries, int(session), letter) for seq, tries, session, letter in rows)

    def load(self, stream_ids: Sequence[str]) -> list[Progress | None]:
        fields = ("fence", "mark", "final", "position", "state", "event_time_us", "session")
        rows = self._link.run([("HMGET", stream_keys(name)[0], *fields) for name in stream_ids]) if stream_ids else []
        return [_progress(*row) for row in rows]

    def standings(self, stream_ids: Sequence[str]) -> list[Standing | None]:
        fields = ("fence", "mark", "final", "event_time_us")
        rows = self._link.run([("HMGET", stream_keys(name)[0], *fields) for name in stream_ids]) if stream_ids else []
        return [_standing(*row) for row in rows]

    def apply(self, updates: Sequence[TimelineUpdate]) -> list[ApplyResult]:
        answers = self._link.run([self._apply_call(update) for update in updates]) if updates else []
        return [ApplyResult(answer.decode()) for answer in answers]

    def _apply_call(self, update: TimelineUpdate) -> Call:
        stream, index = stream_keys(update.stream_id)
        names: list[str] = []
        layout: list[tuple[int, list[int], list[int]]] = []
        values: list[bytes] = []
        for (name, level_s), cells in group_cells(update.cells).items():
            put, drop, found = pack_cells(cells)
            names.append(f"{stream}:{name}")
            layout.append((self._kept_s(level_s), put, drop))
            values += found
        arguments = (
            "" if update.expected is None else _mark_text(update.expected),
            _mark_text(update.mark),
            update.mark.session,
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

    def read(self, stream_id: str, series: str, level_s: int, start: int, stop: int) -> list[tuple[int, bytes]]:
        return self.read_many([BucketValueRange(stream_id, series, level_s, start, stop)])[0]

    def read_many(self, ranges: Sequence[BucketValueRange]) -> list[list[tuple[int, bytes]]]:
        clamped = [each._replace(start=clamp(each.start), stop=clamp(each.stop)) for each in ranges]
        asked = [each for each in clamped if each.start < each.stop]
        answers = iter(self._link.run([_read_call(each) for each in asked]) if asked else [])
        return [_cells(next(answers), each) if each.start < each.stop else [] for each in clamped]

    def bounds(self, stream_id: str, level_s: int) -> tuple[int, int] | None:
        return self.bounds_many(stream_id, (level_s,))[0]

    def bounds_many(self, stream_id: str, levels_s: Sequence[int]) -> list[tuple[int, int] | None]:
        keys = stream_keys(stream_id)
        calls = [_bounds.call(keys, (block_prefix("", level_s),)) for level_s in levels_s]
        return [_bounds_of(found) for found in self._link.run(calls)] if calls else []

    def prune(self, now_s: float) -> int:  # noqa: ARG002 - Redis expires blocks by itself
        return 0

    # Notes

    def note(self, name: str) -> bytes:
        value = self._one(("HGET", NOTES_KEY, name))
        return b"" if value is None else bytes(value)

    def set_entry(self, name: str, value: bytes) -> None:
        self._one(("HSET", NOTES_KEY, name, value) if value else ("HDEL", NOTES_KEY, name))

    # The adapter itself

    def time_s(self) -> float | None:
        return int(self._shared("time")) / 1e6

    def ping(self) -> None:
        schema = self._one(("HGET", SHARED_KEYS[0], "schema"))
        if schema is not None and int(schema) > SCHEMA_VERSION:
            newer = f"schema {int(schema)}, this one knows {SCHEMA_VERSION}"
            raise StoreError(f"{self!r} was written by a newer Moodline ({newer}): upgrade Moodline")

    def require_writable(self) -> None:
        self._one(("HSET", NOTES_KEY, _WRITABLE, b"1"))

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


def _pairs(reply: dict[bytes, bytes]) -> dict[str, bytes]:
    return {name.decode(): value for name, value in reply.items()}


def _read_call(asked: BucketValueRange) -> Call:
    blocks = (block_name(asked.series, asked.level_s, index // BLOCK_CELLS) for index in (asked.start, asked.stop - 1))
    return _read.call(stream_keys(asked.stream_id), tuple(blocks))


def _cells(flat: Sequence[Any], asked: BucketValueRange) -> list[tuple[int, bytes]]:
    cells = [cell for name, fields in zip(flat[::2], flat[1::2], strict=True) for cell in unpack_cells(name, fields)]
    return [cell for cell in cells if asked.start <= cell[0] < asked.stop]


def _bounds_of(found: Sequence[Any]) -> tuple[int, int] | None:
    if not found:
        return None
    first, first_fields, last, last_fields = found
    return first_index(first) + min(_places(first_fields)), first_index(last) + max(_places(last_fields))


def _places(fields: Sequence[bytes]) -> list[int]:
    return [int(field) % BLOCK_CELLS for field in fields]


def _mark_text(mark: HighWaterMark) -> str:
    return f"{mark.session}:{mark.seq}"


def _mark(text: bytes | None) -> HighWaterMark | None:
    if not text:
        return None
    session, _, seq = text.partition(b":")
    return HighWaterMark(int(session), int(seq))


def _standing(fence: bytes | None, mark: bytes | None, final: bytes | None, event: bytes | None) -> Standing | None:
    if fence is None or int(fence) == SESSION_LIMIT:
        return None
    if mark is None or event is None:
        return Standing(fence=int(fence))
    return Standing(mark=_mark(mark), final=final == b"1", fence=int(fence), last_event_time_us=int(event))


def _progress(  # the fields of one hash
    fence: bytes | None,
    mark: bytes | None,
    final: bytes | None,
    position: bytes | None,
    state: bytes | None,
    event: bytes | None,
    session: bytes | None,
) -> Progress | None:
    if fence is None or int(fence) == SESSION_LIMIT:
        return None
    if mark is None or position is None or event is None:
        return Progress(fence=int(fence), session=int(session or 0))
    return Progress(
        mark=_mark(mark),
        final=final == b"1",
        position=msgspec.msgpack.decode(position, type=Position),
        state=state or b"",
        fence=int(fence),
        last_event_time_us=int(event),
        session=int(session or 0),
    )
