"""Chooses the stored resolution that answers a query.

Retention drops the oldest cells of a level first, and finer levels earlier than coarser ones. A level is complete when its
first cell lies within the first cell of the next coarser level, all the way up; it still answers a window that begins after
its own first cell. Where 1 s cells are gone, the answer comes from the next level that has them, with coarser points.
"""

from itertools import pairwise
from typing import NamedTuple

from moodline.shared.store.base import TimelineStore
from moodline.shared.timeline.bucket import LEVELS_S, SECOND_US


class Extent(NamedTuple):
    """Event time that a timeline covers: start inclusive, end exclusive, in microseconds since the Unix epoch."""

    start_us: int
    end_us: int


class Levels:
    """The stored range of one stream's own series, for each resolution."""

    def __init__(self, store: TimelineStore, stream_id: str) -> None:
        found = zip(LEVELS_S, store.bounds_many(stream_id, LEVELS_S), strict=True)
        self._bounds = {level_s: bounds for level_s, bounds in found if bounds is not None}

    @property
    def extent(self) -> Extent | None:
        """Return what is covered, as exactly as the stored levels tell, or None when nothing is stored."""
        if not self._bounds:
            return None
        start = max(self._start_us(level_s) for level_s in self._bounds if self._is_complete(level_s))
        finest = min(self._bounds)
        return Extent(start, (self._bounds[finest][1] + 1) * finest * SECOND_US)

    def bounds(self, level_s: int) -> tuple[int, int] | None:
        """Return first and last stored index of a level, or None."""
        return self._bounds.get(level_s)

    def answers(self, level_s: int, from_us: int) -> bool:
        """Return whether a level still has everything from `from_us` on."""
        if not self._bounds:
            return True
        if level_s not in self._bounds:
            return False
        return self._start_us(level_s) <= from_us or self._is_complete(level_s)

    def _is_complete(self, level_s: int) -> bool:
        chain = [level for level in LEVELS_S if level >= level_s]
        if any(level not in self._bounds for level in chain):
            return False
        return all(self._start_us(fine) < self._start_us(coarse) + coarse * SECOND_US for fine, coarse in pairwise(chain))

    def _start_us(self, level_s: int) -> int:
        return self._bounds[level_s][0] * level_s * SECOND_US
