"""Encoding of stream definitions and statuses in a store: JSON, so that an operator can read them. Errors of adapters."""

import msgspec

from moodline.shared.errors import RevisionConflictError, StoreError
from moodline.shared.streams import StreamSpec, StreamStatus

_encoder = msgspec.json.Encoder()
_specs = msgspec.json.Decoder(StreamSpec)
_statuses = msgspec.json.Decoder(StreamStatus)


def encode_record(record: StreamSpec | StreamStatus) -> bytes:
    """Return the record as JSON."""
    return _encoder.encode(record)


def decode_spec(value: bytes) -> StreamSpec:
    """Return a stored stream. Raises `StoreError` when this version cannot read it."""
    try:
        return _specs.decode(value)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise StoreError(f"a stored stream cannot be read by this version: {error}") from error


def decode_status(value: bytes) -> StreamStatus:
    """Return a stored status. Raises `StoreError` when this version cannot read it."""
    try:
        return _statuses.decode(value)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise StoreError(f"a stored status cannot be read by this version: {error}") from error


def entry_conflict(kind: str, key: str) -> RevisionConflictError:
    """Return the error of a change of an entry that was based on another revision."""
    return RevisionConflictError(f"{key!r} of {kind} was changed by somebody else since it was read")
