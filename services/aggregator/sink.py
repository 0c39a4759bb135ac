"""Writes the aggregator's updates to the store, and says from where to read again when one was refused."""

import logging
from collections.abc import Iterable, Sequence

from moodline.services.aggregator.stage import AggregatorStage
from moodline.shared.bus.base import OLDEST, Position
from moodline.shared.clock import Clock
from moodline.shared.metrics import Metrics
from moodline.shared.pipeline.stage import Apply, Output, Rewind
from moodline.shared.store.base import ApplyResult, ProgressStore, TimelineUpdate

log = logging.getLogger("moodline.aggregator")


class TimelineSink:
    """Implements `moodline.shared.pipeline.worker.Sink` for `Apply` and `Rewind`."""

    def __init__(self, store: ProgressStore, stage: AggregatorStage, metrics: Metrics, clock: Clock) -> None:
        self._store = store
        self._stage = stage
        self._metrics = metrics
        self._clock = clock

    def write(self, outputs: Sequence[Output]) -> list[Position]:
        """Apply all updates. Blocks on the store; safe to repeat, because every update names the mark it is based on.

        A refused update means that another worker has written, or that the store lost its last writes. The stage then
        forgets the stream; where the store is behind what was read, it is read again from there. Where the store is ahead
        nothing is skipped, since other streams share the partition: what is known already drops out by itself.

        Returns:
            At most one position per partition, the smallest.

        Raises:
            StoreUnavailableError: some updates may have been applied; repeat, or read the batch again.
        """
        updates = [output.update for output in outputs if isinstance(output, Apply)]
        rewinds = [output.position for output in outputs if isinstance(output, Rewind)]
        results = self._store.apply(updates) if updates else []
        refused = []
        for update, result in zip(updates, results, strict=True):
            self._metrics.updates.labels(result).inc()
            if result is ApplyResult.APPLIED:
                self._observe_latency(update.stream_id)
                continue
            self._stage.forget(update.stream_id)
            if result is ApplyResult.STALE:
                refused.append(update)
        if refused:
            rewinds += self._behind(refused)
        return _smallest(rewinds)

    def _behind(self, refused: Sequence[TimelineUpdate]) -> list[Position]:
        """Return from where to read those streams again whose stored mark is behind what was read."""
        rewinds = []
        for update, progress in zip(refused, self._store.load([update.stream_id for update in refused]), strict=True):
            if progress is None or update.mark.session < progress.fence:
                # Removed, or registered anew: nothing of what was read belongs to it.
                continue
            log.warning(
                "aggregator.stale",
                extra={
                    "stream_id": update.stream_id,
                    "session": update.mark.session,
                    "expected": update.expected,
                    "stored": progress.mark,
                },
            )
            stored, read = progress.position, update.position
            if stored is None or stored[:2] != read[:2]:
                rewinds.append(read._replace(offset=OLDEST))
            elif stored.offset < read.offset:
                rewinds.append(stored._replace(offset=stored.offset + 1))
        return rewinds

    def _observe_latency(self, stream_id: str) -> None:
        lane, captured_at_us = self._stage.take_captured(stream_id)
        now_us = self._clock.now_s() * 1e6
        histogram = self._metrics.end_to_end_seconds.labels(lane)
        for captured in captured_at_us:
            histogram.observe(max(0.0, now_us - captured) / 1e6)


def _smallest(positions: Iterable[Position]) -> list[Position]:
    first: dict[tuple[str, int], Position] = {}
    for position in positions:
        place = position.topic, position.partition
        if place not in first or position.offset < first[place].offset:
            first[place] = position
    return list(first.values())
