"""Writes the aggregator's updates to the store, and says from where to read again when one was refused."""

import logging
from collections.abc import Callable, Iterable, Sequence

from moodline.services.aggregator.gaps import MARGIN_MS
from moodline.shared.bus.base import Position
from moodline.shared.clock import Clock
from moodline.shared.messages import StreamClass, stream_class_of
from moodline.shared.metrics import Metrics
from moodline.shared.pipeline.stage import Apply, Output, Rewind, Written
from moodline.shared.store.base import ApplyResult, Progress, ProgressStore, TimelineUpdate

log = logging.getLogger("moodline.aggregator")

OffsetAt = Callable[[str, int, int], int | None]
"""Returns the offset in `(topic, partition)` at which the records of a time begin; see `Bus.offset_at`."""


class TimelineSink:
    """Implements `moodline.shared.pipeline.worker.Sink` for `Apply` and `Rewind`."""

    def __init__(self, store: ProgressStore, metrics: Metrics, clock: Clock, offset_at: OffsetAt) -> None:
        self._store = store
        self._metrics = metrics
        self._clock = clock
        self._offset_at = offset_at

    def write(self, outputs: Sequence[Output]) -> Written:
        """Apply all updates. Blocks on the store; safe to repeat, because every update names the high-water mark it is based on.

        A refused update means that another worker has written, or that the store lost its last writes. Where the store is
        behind what was read, it is read again from there. Where the store is ahead nothing is skipped, since other streams
        share the partition: what is known already drops out by itself.

        Returns:
            At most one position per partition, the smallest; and the streams whose updates were refused.

        Raises:
            StoreUnavailableError: some updates may have been applied; repeat, or read the batch again.
            BusUnavailableError: a time could not be looked up; the same.
        """
        applies = [output for output in outputs if isinstance(output, Apply)]
        rewinds = [output for output in outputs if isinstance(output, Rewind)]
        results = self._store.apply([output.update for output in applies]) if applies else []
        refused, stale = set(), []
        for output, result in zip(applies, results, strict=True):
            self._metrics.updates.labels(result).inc()
            if result is ApplyResult.APPLIED:
                self._observe_latency(output)
                continue
            refused.add(output.update.stream_id)
            if result is ApplyResult.STALE:
                stale.append(output.update)
        if stale:
            rewinds += self._behind(stale)
        return Written(_smallest(map(self._place, rewinds)), frozenset(refused))

    def _place(self, rewind: Rewind) -> Position:
        position, since_ms = rewind.position, rewind.since_ms
        if since_ms is None:
            return position
        offset = self._offset_at(position.topic, position.partition, since_ms)
        # Never forward.
        place = position if offset is None else position._replace(offset=min(offset, position.offset))
        log.warning("aggregator.rewind", extra={"since_ms": since_ms, "origin": place, "records": position.offset - place.offset})
        return place

    def _behind(self, refused: Sequence[TimelineUpdate]) -> list[Rewind]:
        """Return from where to read those streams again whose stored high-water mark is behind what was read."""
        rewinds = []
        for update, progress in zip(refused, self._store.load([update.stream_id for update in refused]), strict=True):
            if progress is None or update.high_water_mark.epoch < progress.min_epoch:
                # Removed, or registered again: nothing of what was read belongs to it.
                continue
            log.warning(
                "aggregator.stale",
                extra={
                    "stream_id": update.stream_id,
                    "session": update.high_water_mark.epoch,
                    "expected": update.expected,
                    "stored": progress.high_water_mark,
                },
            )
            stored, read = progress.position, update.position
            if stored is None or stored[:2] != read[:2]:
                rewinds.append(Rewind(read, self._since_ms(update, progress)))
            elif stored.offset < read.offset:
                rewinds.append(Rewind(stored._replace(offset=stored.offset + 1)))
        return rewinds

    def _since_ms(self, update: TimelineUpdate, progress: Progress) -> int:
        """Return the earliest production time of what follows the stored high-water mark in the update's epoch."""
        begun_ms = update.high_water_mark.epoch
        if stream_class_of(update.position.topic) is StreamClass.LIVE and progress.last_event_time_us is not None:
            begun_ms = max(begun_ms, progress.last_event_time_us // 1000)
        return min(begun_ms, int(self._clock.now_s() * 1000)) - MARGIN_MS

    def _observe_latency(self, output: Apply) -> None:
        now_us = self._clock.now_s() * 1e6
        histogram = self._metrics.end_to_end_seconds.labels(stream_class_of(output.update.position.topic) or StreamClass.FILE)
        for captured in output.captured_at_us:
            histogram.observe(max(0.0, now_us - captured) / 1e6)


def _smallest(positions: Iterable[Position]) -> list[Position]:
    first: dict[tuple[str, int], Position] = {}
    for position in positions:
        place = position.topic, position.partition
        if place not in first or position.offset < first[place].offset:
            first[place] = position
    return list(first.values())
