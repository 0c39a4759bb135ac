"""Layout of streams and bucket values in Redis: names of keys, and values packed into chunks.

All keys of a stream have its id as their hash tag, so a cluster keeps them on one node and one script can change them in
one atomic step. What streams share has the tag `_`, which no stream id can be; each kind of entries and each log has a tag
of its own, which begins with `_` too.

| key | type | holds |
| --- | --- | --- |
| `moodline:{lobby}` | hash | definition, minimum epoch, newest epoch, high-water mark, position, state, status |
| `moodline:{lobby}:blocks` | sorted set | names of the stream's blocks, in order, for ranges and for purging |
| `moodline:{lobby}:@60:1000001d9f28a` | hash | one block: 60 neighbouring bucket values of one series and tier |
| `moodline:{_}` | hash | newest epoch given, version of the registry, schema |
| `moodline:{_}:ids` | hash | id of every stream, with the number of its registration |
| `moodline:{_}:changes` | hash | changes of the registry that are under way |
| `moodline:{_}:done` | stream | newest changes of the registry: version before, streams; the entry's id is the version after |
| `moodline:{_}:notes` | hash | small values by name, such as which model is active |
| `moodline:{_keys}:documents` | hash | entries of a kind by key: revision, change and value, with spaces between |
| `moodline:{_keys}:revision` | string | newest revision given to an entry of the kind |
| `moodline:{_audit}:log` | stream | records of a log; the record with the number 7 has the id `7-0` |
| `moodline:{_audit}:log:5c3f…` | string | number that one change got, for as long as it may be repeated |

A chunk stays in Redis' compact encoding (listpack): at most 128 fields of at most 64 bytes. So the field of a bucket value is its
place in the chunk, 0 to 59, and a value of 65 to 128 bytes goes on in field 60 to 119. A longer value is kept in one piece;
its chunk then costs more memory.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from moodline.shared.store.base import CHUNK_VALUES, BucketValue
from moodline.shared.store.bucket_values import chunk_of

FIELD_BYTES: Final = 64
_TWO_FIELDS_BYTES: Final = 2 * FIELD_BYTES
_NUMBER_DIGITS: Final = 13
_NUMBER_ZERO: Final = 2**48
"""Added to chunk numbers, so that those of negative indices sort before the others."""

SHARED_KEYS: Final = ("moodline:{_}", "moodline:{_}:ids", "moodline:{_}:changes", "moodline:{_}:done")
CONFIG_ENTRIES_KEY: Final = "moodline:{_}:notes"


def entry_keys(kind: str) -> tuple[str, str]:
    """Return the keys of a kind's entries and of its newest revision."""
    return f"moodline:{{_{kind}}}:documents", f"moodline:{{_{kind}}}:revision"


def log_keys(log: str, change: str = "") -> tuple[str, str]:
    """Return the keys of a log and of the number that a change of it got."""
    return f"moodline:{{_{log}}}:log", f"moodline:{{_{log}}}:log:{change}"


def stream_keys(stream_id: str) -> tuple[str, str]:
    """Return the keys of a stream and of its index of chunks."""
    key = f"moodline:{{{stream_id}}}"
    return key, f"{key}:blocks"


def chunk_prefix(series: str, tier_s: int) -> str:
    """Return what the names of all chunks of a series and tier begin with."""
    return f"{series}@{tier_s}:"


def chunk_name(series: str, tier_s: int, number: int) -> str:
    """Return a chunk's name in the index; its key is the stream's key, a colon and this name. Names sort by number."""
    return f"{series}@{tier_s}:{number + _NUMBER_ZERO:0{_NUMBER_DIGITS}x}"


def first_index(name: bytes) -> int:
    """Return the index of the first bucket value of a chunk."""
    return (int(name[-_NUMBER_DIGITS:], 16) - _NUMBER_ZERO) * CHUNK_VALUES


def group_bucket_values(bucket_values: Iterable[BucketValue]) -> dict[tuple[str, int], dict[int, bytes]]:
    """Return `{(chunk name, tier in s): {place in chunk: value}}`; of two values for one place the last counts."""
    chunks: dict[tuple[str, int], dict[int, bytes]] = {}
    for series, tier_s, index, value in bucket_values:
        number = chunk_of(index)
        chunks.setdefault((chunk_name(series, tier_s, number), tier_s), {})[index - number * CHUNK_VALUES] = value
    return chunks


def pack_bucket_values(bucket_values: dict[int, bytes]) -> tuple[list[int], list[int], list[bytes]]:
    """Return how to write bucket values over whatever their chunk held before.

    Returns:
        Fields to set, each followed by the length of its value; fields to delete; the values.
    """
    put: list[int] = []
    drop: list[int] = []
    values: list[bytes] = []
    for place, value in bucket_values.items():
        values.append(value)
        if FIELD_BYTES < len(value) <= _TWO_FIELDS_BYTES:
            put += (place, FIELD_BYTES, place + CHUNK_VALUES, len(value) - FIELD_BYTES)
        else:
            put += (place, len(value))
            drop.append(place + CHUNK_VALUES)
    return put, drop, values


def unpack_bucket_values(name: bytes, fields: Sequence[bytes]) -> list[tuple[int, bytes]]:
    """Return `(index, value)`, ordered, from a chunk's fields and values as Redis lists them."""
    first = first_index(name)
    values = dict(zip(map(int, fields[::2]), fields[1::2], strict=True))
    return [
        (first + place, value + values.get(place + CHUNK_VALUES, b""))
        for place, value in sorted(values.items())
        if place < CHUNK_VALUES
    ]
