"""Chooses the stored resolution that answers a query.

Retention drops the oldest bucket values of a tier first, and finer tiers earlier than coarser ones. A tier is complete when its
first bucket value lies within the first bucket value of the next coarser tier, all the way up; it still answers a window that
begins after its own first bucket value. Where 1 s bucket values are gone, the answer comes from the next tier that has them,
with coarser points.
"""

from itertools import pairwise
from typing import NamedTuple

from moodline.shared.store.base import TimelineStore
from moodline.shared.timeline.bucket import SECOND_US, TIERS_S


class Extent(NamedTuple):
    """Event time that a timeline covers: start inclusive, end exclusive, in microseconds since the Unix epoch."""

    start_us: int
    end_us: int


class Tiers:
    """The stored range of one stream's own series, for each resolution."""

    def __init__(self, store: TimelineStore, stream_id: str) -> None:
        found = zip(TIERS_S, store.bounds_many(stream_id, TIERS_S), strict=True)
        self._bounds = {tier_s: bounds for tier_s, bounds in found if bounds is not None}

    @property
    def extent(self) -> Extent | None:
        """Return what is covered, as exactly as the stored tiers tell, or None when nothing is stored."""
        if not self._bounds:
            return None
        start = max(self._start_us(tier_s) for tier_s in self._bounds if self._is_complete(tier_s))
        finest = min(self._bounds)
        return Extent(start, (self._bounds[finest][1] + 1) * finest * SECOND_US)

    def bounds(self, tier_s: int) -> tuple[int, int] | None:
        """Return first and last stored index of a tier, or None."""
        return self._bounds.get(tier_s)

    def answers(self, tier_s: int, from_us: int) -> bool:
        """Return whether a tier still has everything from `from_us` on."""
        if not self._bounds:
            return True
        if tier_s not in self._bounds:
            return False
        return self._start_us(tier_s) <= from_us or self._is_complete(tier_s)

    def _is_complete(self, tier_s: int) -> bool:
        chain = [tier for tier in TIERS_S if tier >= tier_s]
        if any(tier not in self._bounds for tier in chain):
            return False
        return all(self._start_us(fine) < self._start_us(coarse) + coarse * SECOND_US for fine, coarse in pairwise(chain))

    def _start_us(self, tier_s: int) -> int:
        return self._bounds[tier_s][0] * tier_s * SECOND_US
