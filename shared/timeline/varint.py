"""Unsigned integers in as few bytes as they need (LEB128): seven bits a byte, low bits first, high bit set but on the last."""

from collections.abc import Iterable
from typing import Final

from moodline.shared.errors import StoreError

_LONGEST_BITS: Final = 7 * 10


def encode_varints(values: Iterable[int]) -> bytes:
    """Return the values, each 0 or more, one after the other."""
    out = bytearray()
    append = out.append
    for value in values:
        rest = value
        while rest > 0x7F:
            append(rest & 0x7F | 0x80)
            rest >>= 7
        append(rest)
    return bytes(out)


def decode_varints(data: bytes) -> list[int]:
    """Return all values in `data`.

    Raises:
        StoreError: the last value is cut off, or one is longer than ten bytes.
    """
    values: list[int] = []
    value = shift = 0
    for byte in data:
        if byte < 0x80:
            values.append(value | byte << shift)
            value = shift = 0
        else:
            value |= (byte & 0x7F) << shift
            shift += 7
            if shift > _LONGEST_BITS:
                raise StoreError("a stored timeline value is damaged: a number has no end")
    if shift:
        raise StoreError("a stored timeline value is damaged: it is cut off")
    return values


class Numbers:
    """Reads decoded values one by one, and says clearly when there are too few or too many."""

    def __init__(self, data: bytes) -> None:
        self._values = decode_varints(data)
        self._at = 0

    def one(self) -> int:
        """Return the next value. Raises `StoreError` when there is none."""
        return self.many(1)[0]

    def many(self, count: int) -> tuple[int, ...]:
        """Return the next `count` values. Raises `StoreError` when there are fewer."""
        end = self._at + count
        if end > len(self._values):
            raise StoreError("a stored timeline value is damaged: it is too short")
        found = tuple(self._values[self._at : end])
        self._at = end
        return found

    def sparse(self, size: int) -> tuple[int, ...]:
        """Return `size` values of which only those named by a leading bit mask are stored. Raises `StoreError`."""
        mask = self.one()
        if mask >> size:
            raise StoreError("a stored timeline value has more parts than this version knows; upgrade this process")
        return tuple(self.one() if mask >> position & 1 else 0 for position in range(size))

    def done(self) -> None:
        """Raise `StoreError` unless everything was read."""
        if self._at != len(self._values):
            raise StoreError("a stored timeline value is damaged: it is too long")


def sparse_varints(values: Iterable[int]) -> list[int]:
    """Return what `Numbers.sparse` reads: a bit mask of the values that are not 0, then these."""
    mask = 0
    present = []
    for position, value in enumerate(values):
        if value:
            mask |= 1 << position
            present.append(value)
    return [mask, *present]
