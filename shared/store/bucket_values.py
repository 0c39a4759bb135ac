"""Place and lifetime of a bucket value: rules that all adapters share."""

from typing import Final

from moodline.shared.errors import StoreError
from moodline.shared.store.base import CHUNK_VALUES, Retention

INDEX_LIMIT: Final = 2**53
"""Bucket value indices lie within plus and minus this; a timeline in seconds needs less than 2**40."""

EPOCH_LIMIT: Final = 2**53 - 1
"""Epochs are smaller than this. A minimum epoch of this value lets nothing pass."""


def chunk_of(index: int) -> int:
    """Return the number of the chunk that holds a bucket value.

    Raises:
        StoreError: the index is out of range.
    """
    if not -INDEX_LIMIT <= index < INDEX_LIMIT:
        raise StoreError(f"cell index {index} is out of range")
    return index // CHUNK_VALUES


def clamp(index: int) -> int:
    """Return the index a range may start or stop at, so that open ends can be written as large numbers."""
    return max(-INDEX_LIMIT, min(index, INDEX_LIMIT))


def kept_s(retention: Retention, tier_s: int) -> int:
    """Return how long bucket values of a tier are kept after they were last written, in s.

    Tier 0 holds one summary per tracked face. Unless it is listed, a summary lives as long as bucket values of the finest tier,
    which are the seconds of the same face: either both are there or neither.
    """
    if tier_s == 0 and 0 not in retention.tiers:
        return retention.seconds(min(retention.tiers))
    return retention.seconds(tier_s)


def epoch_floor_ms(now_s: float) -> int:
    """Return the least epoch that may be given at a wall-clock time: the time itself, in ms."""
    return int(now_s * 1000)
