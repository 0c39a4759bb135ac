"""Reads the replies of Redis about streams and timelines as the store's types."""

import logging
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import msgspec

from moodline.shared.bus.base import Position
from moodline.shared.errors import StoreError
from moodline.shared.store.base import CHUNK_VALUES, BucketValueRange, FrameFailure, HighWaterMark, Progress, Standing
from moodline.shared.store.bucket_values import EPOCH_LIMIT
from moodline.shared.store.records import decode_spec, decode_status
from moodline.shared.store.redis_layout import first_index, unpack_bucket_values
from moodline.shared.streams import StreamSpec, StreamStatus

log = logging.getLogger("moodline.store")

_Stored = TypeVar("_Stored")


def pairs_of(reply: dict[bytes, bytes]) -> dict[str, bytes]:
    """Return the fields of a hash by their names."""
    return {name.decode(): value for name, value in reply.items()}


def bucket_values_of(flat: Sequence[Any], asked: BucketValueRange) -> list[tuple[int, bytes]]:
    """Return what is asked for of some chunks: places on the grid and values, in the order of the answer."""
    bucket_values = [
        bucket_value
        for name, fields in zip(flat[::2], flat[1::2], strict=True)
        for bucket_value in unpack_bucket_values(name, fields)
    ]
    return [bucket_value for bucket_value in bucket_values if asked.start <= bucket_value[0] < asked.stop]


def bounds_of(found: Sequence[Any]) -> tuple[int, int] | None:
    """Return the first and the last place of a tier that has a value; None where there is none."""
    if not found:
        return None
    first, first_fields, last, last_fields = found
    return first_index(first) + min(_places(first_fields)), first_index(last) + max(_places(last_fields))


def _places(fields: Sequence[bytes]) -> list[int]:
    return [int(field) % CHUNK_VALUES for field in fields]


def readable(stream_id: str, read: Callable[[], _Stored], otherwise: _Stored) -> _Stored:
    """Return what is stored of a stream, or `otherwise` where it is damaged: others in the same answer do not suffer."""
    try:
        return read()
    except (StoreError, ValueError, RecursionError, msgspec.MsgspecError) as error:
        log.error("store.damaged", extra={"stream_id": stream_id, "reason": str(error)[:200]})  # one line
        return otherwise


def spec_of(stream_id: str, value: bytes | None) -> StreamSpec | None:
    """Return a stream as it is registered; None where it is not, or where its record is damaged."""
    return None if value is None else readable(stream_id, lambda: decode_spec(value), None)


def status_of(stream_id: str, value: bytes | None) -> StreamStatus:
    """Return the status of a stream; an empty one where there is none, or where its record is damaged."""
    return StreamStatus() if value is None else readable(stream_id, lambda: decode_status(value), StreamStatus())


def failures_of(value: bytes) -> list[FrameFailure]:
    """Return the frames of a stream that failed, in the order of their numbers."""
    rows = msgspec.json.decode(value, type=list[tuple[str, int, str, str]])
    return sorted(FrameFailure(int(seq), tries, int(epoch), dead_letter) for seq, tries, epoch, dead_letter in rows)


def high_water_mark_text(high_water_mark: HighWaterMark) -> str:
    """Return a high-water mark as it is stored."""
    return f"{high_water_mark.epoch}:{high_water_mark.seq}"


def high_water_mark_of(text: bytes | None) -> HighWaterMark | None:
    """Return a high-water mark from its stored form; None where there is none."""
    if not text:
        return None
    epoch, _, seq = text.partition(b":")
    return HighWaterMark(int(epoch), int(seq))


def standing_of(
    min_epoch: bytes | None, high_water_mark: bytes | None, final: bytes | None, event: bytes | None
) -> Standing | None:
    """Return how far a stream is, from the fields of its hash; None where it is not registered."""
    if min_epoch is None or int(min_epoch) == EPOCH_LIMIT:
        return None
    if high_water_mark is None or event is None:
        return Standing(min_epoch=int(min_epoch))
    return Standing(
        high_water_mark=high_water_mark_of(high_water_mark),
        final=final == b"1",
        min_epoch=int(min_epoch),
        last_event_time_us=int(event),
    )


def progress_of(  # the fields of one hash
    min_epoch: bytes | None,
    high_water_mark: bytes | None,
    final: bytes | None,
    position: bytes | None,
    state: bytes | None,
    event: bytes | None,
    epoch: bytes | None,
) -> Progress | None:
    """Return the checkpoint of a stream, from the fields of its hash; None where it is not registered."""
    if min_epoch is None or int(min_epoch) == EPOCH_LIMIT:
        return None
    if high_water_mark is None or position is None or event is None:
        return Progress(min_epoch=int(min_epoch), epoch=int(epoch or 0))
    return Progress(
        high_water_mark=high_water_mark_of(high_water_mark),
        final=final == b"1",
        position=msgspec.msgpack.decode(position, type=Position),
        state=state or b"",
        min_epoch=int(min_epoch),
        last_event_time_us=int(event),
        epoch=int(epoch or 0),
    )
