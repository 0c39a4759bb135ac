"""The position of a listener as a short text, from which any API process goes on without loss.

For every stream of the listener it holds the first point that is not final for it, by a digest of the stream's id and the time
of its registration, so that a stream of the same name that was registered later is another one.
"""

import base64
import binascii
import hashlib
from typing import Final

import msgspec

from moodline.shared.errors import QueryError
from moodline.shared.streams import StreamSpec

_FORMAT: Final = 1
_KEY_BYTES: Final = 5
_LONGEST: Final = 12_000

Key = bytes
"""Names one registration of a stream."""


class Cursor(msgspec.Struct, frozen=True, kw_only=True):
    """The position of a subscriber.

    Attributes:
        tier_s: Length of its points, in s.
        since_us: A stream that was registered later, wall clock, is all new to it.
        alert: Number of the last alert that it has.
        next: By stream, index of the first point that it has not got in its final form.
    """

    tier_s: int
    since_us: int
    alert: int
    next: dict[Key, int]


class _Packed(msgspec.Struct, array_like=True):
    format: int
    tier_s: int
    since_us: int
    alert: int
    newest: int
    keys: bytes
    behind: list[int]


def key_of(spec: StreamSpec) -> Key:
    """Return the key of a stream's registration."""
    name = f"{spec.stream_id} {spec.created_at_us}".encode()
    return hashlib.blake2s(name, digest_size=_KEY_BYTES).digest()


def write_cursor(cursor: Cursor) -> str:
    """Return the text: letters, digits, `-` and `_`; about 10 characters for each stream."""
    newest = max(cursor.next.values(), default=0)
    behind = [newest - index for index in cursor.next.values()]
    packed = _Packed(_FORMAT, cursor.tier_s, cursor.since_us, cursor.alert, newest, b"".join(cursor.next), behind)
    return base64.urlsafe_b64encode(msgspec.msgpack.encode(packed)).rstrip(b"=").decode()


def read_cursor(text: str) -> Cursor:
    """Return what a text says.

    Raises:
        QueryError: it is no position, or one that this version cannot read.
    """
    try:
        if len(text) > _LONGEST:
            raise ValueError(text)
        packed = msgspec.msgpack.decode(
            base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True), type=_Packed
        )
        keys = [packed.keys[at : at + _KEY_BYTES] for at in range(0, len(packed.keys), _KEY_BYTES)]
        positions = dict(zip(keys, (packed.newest - behind for behind in packed.behind), strict=True))
        if packed.format != _FORMAT:
            raise ValueError(packed.format)
    except (ValueError, binascii.Error, msgspec.MsgspecError):
        raise QueryError("Last-Event-ID", "Last-Event-ID is none that this API gave; leave it out to begin again") from None
    return Cursor(tier_s=packed.tier_s, since_us=packed.since_us, alert=packed.alert, next=positions)
