"""What is known of missing frames: going back on the bus once for each, and no more."""

import logging
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from moodline.shared.bus.base import OLDEST, Position
from moodline.shared.store.base import Mark

log = logging.getLogger("moodline.aggregator")

_PATIENCE_S: Final = 5.0
"""After this long, a rewind that was asked for has happened, whatever the offsets say."""

_REMEMBERED: Final = 20_000


@dataclass(slots=True)
class _Gap:
    mark: Mark | None
    seen: Position
    since_s: float
    is_confirmed: bool = False


class Gaps:
    """Holes after the marks of streams. A rewind is asked for once per stream and mark.

    The hole is real when, after the rewind, a frame beyond it comes again (at or before the offset where the hole was first
    seen) and the missing one has not come.
    """

    def __init__(self) -> None:
        self._gaps: OrderedDict[str, _Gap] = OrderedDict()
        self._rewinds: dict[tuple[str, int], int] = {}

    def is_open(self, stream_id: str, mark: Mark | None) -> bool:
        """Return whether a hole after this mark is known."""
        gap = self._gaps.get(stream_id)
        return gap is not None and gap.mark == mark

    def is_real(self, stream_id: str, mark: Mark | None, place: Position | None, seen: Position, now_s: float) -> bool:
        """Note a frame that has a hole before it, and ask for a rewind if this is the first sight of the hole.

        Args:
            stream_id: The stream.
            mark: Its mark; the hole is right after it.
            place: Where on the bus the mark's message was, or None.
            seen: Where the frame is.
            now_s: Wall clock.

        Returns:
            True when the rewind has shown that the missing frames are not on the bus.
        """
        gap = self._gaps.get(stream_id)
        if gap is None or gap.mark != mark or gap.seen[:2] != seen[:2]:
            self._remember(stream_id, _Gap(mark, seen, now_s))
            self._rewind(_from_where(place, seen))
            return False
        if not gap.is_confirmed and (seen.offset <= gap.seen.offset or now_s - gap.since_s >= _PATIENCE_S):
            gap.is_confirmed = True
            session = None if mark is None else mark.session
            log.warning("aggregator.gap", extra={"stream_id": stream_id, "session": session, "mark": mark, "seen": seen})
        return gap.is_confirmed

    def take_rewinds(self) -> list[Position]:
        """Return where to read again since the last call, the smallest offset of each partition."""
        rewinds = [Position(topic, partition, offset) for (topic, partition), offset in self._rewinds.items()]
        self._rewinds = {}
        return rewinds

    def forget(self, stream_id: str) -> None:
        """Forget a stream's hole: its mark may be another one now."""
        self._gaps.pop(stream_id, None)

    def forget_partitions(self, partitions: frozenset[tuple[str, int]]) -> None:
        """Forget the holes seen on `(topic, partition)` pairs."""
        for stream_id in [key for key, gap in self._gaps.items() if gap.seen[:2] in partitions]:
            del self._gaps[stream_id]
        self._rewinds = {place: offset for place, offset in self._rewinds.items() if place not in partitions}

    def _remember(self, stream_id: str, gap: _Gap) -> None:
        self._gaps[stream_id] = gap
        self._gaps.move_to_end(stream_id)
        while len(self._gaps) > _REMEMBERED:
            self._gaps.popitem(last=False)

    def _rewind(self, position: Position) -> None:
        place = position.topic, position.partition
        self._rewinds[place] = min(position.offset, self._rewinds.get(place, position.offset))


def _from_where(place: Position | None, seen: Position) -> Position:
    """Return where to read again: right after the mark, or everything when the mark's place says nothing about this one."""
    if place is None or place[:2] != seen[:2] or place.offset >= seen.offset:
        # Never forward: a mark beyond the frame means that the topic was made anew.
        return seen._replace(offset=OLDEST)
    return place._replace(offset=place.offset + 1)
