"""Place and lifetime of a bucket value: rules that all adapters share."""

from typing import Final

from moodline.shared.errors import StoreError
from moodline.shared.store.base import BLOCK_CELLS, Retention

INDEX_LIMIT: Final = 2**53
"""Cell indices lie within plus and minus this; a timeline in seconds needs less than 2**40."""

SESSION_LIMIT: Final = 2**53 - 1
"""Sessions are smaller than this. A fence of this value lets nothing pass."""


def block_of(index: int) -> int:
    """Return the number of the block that holds a cell.

    Raises:
        StoreError: the index is out of range.
    """
    if not -INDEX_LIMIT <= index < INDEX_LIMIT:
        raise StoreError(f"cell index {index} is out of range")
    return index // BLOCK_CELLS


def clamp(index: int) -> int:
    """Return the index a range may start or stop at, so that open ends can be written as large numbers."""
    return max(-INDEX_LIMIT, min(index, INDEX_LIMIT))


def kept_s(retention: Retention, level_s: int) -> int:
    """Return how long cells of a level are kept after they were last written, in s.

    Level 0 holds one summary per tracked face. Unless it is listed, a summary lives as long as cells of the finest level,
    which are the seconds of the same face: either both are there or neither.
    """
    if level_s == 0 and 0 not in retention.levels:
        return retention.seconds(min(retention.levels))
    return retention.seconds(level_s)


def session_floor_ms(now_s: float) -> int:
    """Return the least session that may be given at a wall-clock time: the time itself, in ms."""
    return int(now_s * 1000)
