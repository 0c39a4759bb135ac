"""Positions in lists that are ordered by an id, as a text that only this API can have given.

The last id of a page alone would do as a position, but then any word would be one, and a mistake would look like the last page.
"""

import base64
import binascii
import zlib
from typing import Final

from moodline.shared.errors import QueryError

_CHECK_BYTES: Final = 4


def write_cursor(last_id: str) -> str:
    """Return the position after an id: letters, digits, `-` and `_`."""
    plain = last_id.encode()
    return base64.urlsafe_b64encode(_check(plain) + plain).rstrip(b"=").decode()


def read_cursor(text: str | None) -> str:
    """Return the id that a position is after; empty for None, the beginning.

    Raises:
        QueryError: for field `cursor`: it is none that `write_cursor` gave.
    """
    if text is None:
        return ""
    try:
        packed = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        check, plain = packed[:_CHECK_BYTES], packed[_CHECK_BYTES:]
        if not plain or check != _check(plain):
            raise ValueError(text)
        return plain.decode()
    except (ValueError, binascii.Error):
        raise QueryError("cursor", "cursor is none that this API gave; leave it out to begin again") from None


def _check(plain: bytes) -> bytes:
    return zlib.crc32(plain).to_bytes(_CHECK_BYTES, "big")
