"""Gaps in a stream: the worker goes back on the bus once for each gap, and no more."""

import logging
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from moodline.shared.bus.base import Position
from moodline.shared.pipeline.stage import Rewind
from moodline.shared.store.base import HighWaterMark

log = logging.getLogger("moodline.aggregator")

_PATIENCE_S: Final = 5.0
"""A rewind that was requested counts as done after this time, even if the offsets do not show it."""

_REMEMBERED: Final = 20_000

MARGIN_MS: Final = 60_000
"""A rewind by time begins this much earlier, because records may be late and the clocks of hosts may differ."""


@dataclass(slots=True)
class _Gap:
    high_water_mark: HighWaterMark | None
    seen: Position
    since_s: float
    is_confirmed: bool = False


class Gaps:
    """Holes after the high-water marks of streams. A rewind is asked for once per stream and high-water mark.

    The hole is real when, after the rewind, a frame beyond it comes again (at or before the offset where the hole was first
    seen) and the missing one has not come.
    """

    def __init__(self) -> None:
        self._gaps: OrderedDict[str, _Gap] = OrderedDict()
        self._rewinds: dict[tuple[str, int], Position] = {}
        self._since: dict[tuple[str, int], Rewind] = {}

    def is_open(self, stream_id: str, high_water_mark: HighWaterMark | None) -> bool:
        """Return whether a hole after this high-water mark is known."""
        gap = self._gaps.get(stream_id)
        return gap is not None and gap.high_water_mark == high_water_mark

    def is_confirmed(self, stream_id: str, high_water_mark: HighWaterMark | None) -> bool:
        """Return whether the rewind has shown that the frames after this high-water mark are not on the bus."""
        return self.is_open(stream_id, high_water_mark) and self._gaps[stream_id].is_confirmed

    def observe(
        self,
        stream_id: str,
        high_water_mark: HighWaterMark | None,
        place: Position | None,
        seen: Position,
        since_ms: int,
        now_s: float,
    ) -> None:
        """Record a frame that has a hole before it, and ask for a rewind if this is the first sight of the hole.

        Args:
            stream_id: The stream.
            high_water_mark: Its high-water mark; the hole is right after it.
            place: Where on the bus the high-water mark's message was, or None.
            seen: Where the frame is.
            since_ms: When the missing frames were produced at the earliest, in ms since the Unix epoch on the bus's clock; it
                bounds the rewind where `place` says nothing.
            now_s: Wall clock.
        """
        gap = self._gaps.get(stream_id)
        if gap is None or gap.high_water_mark != high_water_mark or gap.seen[:2] != seen[:2]:
            self._remember(stream_id, _Gap(high_water_mark, seen, now_s))
            self._rewind(place, seen, since_ms)
        elif not gap.is_confirmed and (seen.offset <= gap.seen.offset or now_s - gap.since_s >= _PATIENCE_S):
            gap.is_confirmed = True
            epoch = None if high_water_mark is None else high_water_mark.epoch
            log.warning("aggregator.gap", extra={"stream_id": stream_id, "session": epoch, "mark": high_water_mark, "seen": seen})

    def take_rewinds(self) -> list[Rewind]:
        """Return from where to read again since the last call: of each partition at most one place and one time."""
        rewinds = [*map(Rewind, self._rewinds.values()), *self._since.values()]
        self._rewinds, self._since = {}, {}
        return rewinds

    def forget(self, stream_id: str) -> None:
        """Forget a stream's hole: its high-water mark may be another one now."""
        self._gaps.pop(stream_id, None)

    def forget_partitions(self, partitions: frozenset[tuple[str, int]]) -> None:
        """Forget the holes seen on `(topic, partition)` pairs."""
        for stream_id in [key for key, gap in self._gaps.items() if gap.seen[:2] in partitions]:
            del self._gaps[stream_id]
        self._rewinds = {place: kept for place, kept in self._rewinds.items() if place not in partitions}
        self._since = {place: kept for place, kept in self._since.items() if place not in partitions}

    def _remember(self, stream_id: str, gap: _Gap) -> None:
        self._gaps[stream_id] = gap
        self._gaps.move_to_end(stream_id)
        while len(self._gaps) > _REMEMBERED:
            self._gaps.popitem(last=False)

    def _rewind(self, place: Position | None, seen: Position, since_ms: int) -> None:
        key = seen.topic, seen.partition
        if place is not None and place[:2] == key and place.offset < seen.offset:
            after = place._replace(offset=place.offset + 1)
            self._rewinds[key] = min(after, self._rewinds.get(key, after))
            return
        # The high-water mark's place says nothing: there is none, it is on another partition, or the topic was made again.
        known = self._since.get(key)
        if known is not None:
            seen, since_ms = min(seen, known.position), min(since_ms, known.since_ms or 0)
        self._since[key] = Rewind(seen, since_ms)
