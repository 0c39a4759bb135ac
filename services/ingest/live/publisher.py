"""Publishes the frames of a live stream, whatever its source: epochs, sequence numbers, the bus, and complete counts.

A frame that the bus does not take becomes a skip that is counted in the stream's own timeline.
"""

import logging
from collections import deque
from dataclasses import dataclass
from typing import Final

import msgspec

from moodline.services.ingest.live.records import Sample, Stats
from moodline.services.ingest.live.status import CameraStatus
from moodline.services.ingest.stream import WORKER
from moodline.shared.bus import Producer
from moodline.shared.clock import Clock
from moodline.shared.errors import BusFullError, DeliveryError, StoreError, StreamNotFoundError
from moodline.shared.log import bind
from moodline.shared.messages import DropReason, Frame, PipelineStep, StreamClass, encode, topic
from moodline.shared.metrics import Metrics
from moodline.shared.store import ProgressStore
from moodline.shared.streams import StreamSpec

log = logging.getLogger("moodline.ingest.camera")

_TOPIC: Final = topic(PipelineStep.FRAMES, StreamClass.LIVE)
_AHEAD_US: Final = 30_000_000
_OWED_LIMIT: Final = 1000
_NOTHING: Final = Stats(
    decoded=0, damaged=0, packets=0, lost_packets=0, last_frame_us=0, fps=0.0, width=0, height=0, clock_offset_ms=None
)


@dataclass(frozen=True, slots=True)
class PublisherParts:
    """The objects that all publishers of one process share."""

    producer: Producer
    store: ProgressStore
    metrics: Metrics
    clock: Clock


class LivePublisher:
    """Sends the frames of one connection to one live stream. Used by one thread.

    `publish` and `measure` return False when a newer epoch has the stream.
    """

    def __init__(self, spec: StreamSpec, parts: PublisherParts, status: CameraStatus) -> None:
        self._spec = spec
        self._key = spec.stream_id.encode()
        self._parts = parts
        self._status = status
        self._epoch = 0
        self._segment = 0
        self._seq = 0
        self._totals = _NOTHING
        self._is_ahead = False
        self._owed: deque[Frame] = deque(maxlen=_OWED_LIMIT)
        self.last_event_us = 0

    def acquire(self, sent_until_us: int) -> None:
        """Take the stream under a new epoch; it goes on after `sent_until_us` and its timeline. Raises `StoreError`."""
        store, stream_id = self._parts.store, self._spec.stream_id
        self._epoch = store.acquire(stream_id, self._parts.clock.now_s()).epoch
        progress = store.load([stream_id])[0]
        stands_us = 0 if progress is None else progress.last_event_time_us or 0
        self.last_event_us = max(sent_until_us, stands_us)
        self._status.acquired(self._epoch)
        bind(session=self._epoch)

    def measure(self, stats: Stats) -> bool:
        """Count what came since the last statistics, and say it."""
        metrics, before = self._parts.metrics, self._totals
        metrics.frames_decoded.inc(max(0, stats.decoded - before.decoded))
        metrics.decode_errors.inc(max(0, stats.damaged - before.damaged))
        metrics.camera_packets.inc(max(0, stats.packets - before.packets))
        metrics.camera_packets_lost.inc(max(0, stats.lost_packets - before.lost_packets))
        self._totals = stats
        return self._status.measured(stats, stats.lost_packets)

    def publish(self, sample: Sample) -> bool:
        """Send one sampled frame, in order. Raises `StreamNotFoundError` when that shows."""
        if sample.segment != self._segment:
            # An acquisition takes the stream from whoever has it: one that has lost it must not take it back.
            if not self._status.is_ours():
                return False
            if self._begin_epoch():
                self._segment = sample.segment
        self.last_event_us = sample.event_time_us
        metrics = self._parts.metrics
        self._report_ahead(sample.event_time_us)
        # A hole in the numbers: the aggregator counts it as `lost`.
        self._seq += sample.missed
        metrics.frames.labels(WORKER, StreamClass.LIVE).inc(sample.missed)
        frame = self._frame(sample)
        self._seq += 1
        metrics.frames.labels(WORKER, StreamClass.LIVE).inc()
        sent = self.send_owed() and self._send(frame)
        skip = frame.skip if sent else DropReason.OVERLOADED
        if not sent:
            self._owe(msgspec.structs.replace(frame, jpeg=b"", width=0, height=0, skip=skip))
        if skip is not None:
            metrics.frames_skipped.labels(WORKER, StreamClass.LIVE, skip).inc()
        return self._status.count_frame()

    def _report_ahead(self, event_us: int) -> None:
        """Say so where the timeline is ahead of our clock: it was set back, and a timeline does not go back."""
        ahead_us = event_us - int(self._parts.clock.now_s() * 1e6)
        if ahead_us > _AHEAD_US:
            self._parts.metrics.frames_ahead.inc()
            self._status.report(
                f"our clock was set back: the timeline is {ahead_us // 1_000_000} s ahead of it and goes on from there"
            )
            if not self._is_ahead:
                log.warning("camera.ahead_of_clock", extra={"stream_id": self._spec.stream_id})
        elif self._is_ahead:
            self._status.report("")
        self._is_ahead = ahead_us > _AHEAD_US

    def send_owed(self) -> bool:
        """Send the notes of frames that the bus did not take; False while it is full."""
        while self._owed:
            if not self._send(self._owed[0]):
                return False
            self._owed.popleft()
        return True

    def _frame(self, sample: Sample) -> Frame:
        return Frame(
            stream_id=self._spec.stream_id,
            epoch=self._epoch,
            seq=self._seq,
            event_time_us=sample.event_time_us,
            captured_at_us=sample.captured_at_us,
            lane=StreamClass.LIVE,
            width=sample.width,
            height=sample.height,
            jpeg=sample.jpeg,
            skip=sample.skip,
        )

    def _begin_epoch(self) -> bool:
        """Take a new epoch for a new segment. Without the store the old one goes on; the next frame tries again."""
        try:
            epoch = self._parts.store.acquire(self._spec.stream_id, self._parts.clock.now_s()).epoch
        except StreamNotFoundError:
            raise
        except StoreError:
            return False
        self._epoch, self._seq = epoch, 0
        self._status.acquired(epoch)
        bind(session=epoch)
        log.info("camera.new_segment", extra={"stream_id": self._spec.stream_id})
        # What is owed belongs to the former epoch, and would come after it.
        self._owed.clear()
        return True

    def _owe(self, frame: Frame) -> None:
        """Keep the note that a frame was skipped until the bus takes it; beyond the limit the aggregator counts it `lost`."""
        self._owed.append(frame)

    def _send(self, frame: Frame) -> bool:
        """Send one message; False when the bus is full. A frame that is too large goes without its picture."""
        producer = self._parts.producer
        try:
            producer.send(_TOPIC, self._key, encode(frame))
        except BusFullError:
            self._parts.metrics.retries.labels(WORKER, "bus").inc()
            return False
        except DeliveryError:
            log.warning("frame.too_large", extra={"stream_id": self._spec.stream_id, "bytes": len(frame.jpeg)})
            self._parts.metrics.frames_skipped.labels(WORKER, StreamClass.LIVE, DropReason.CORRUPT).inc()
            return self._send(msgspec.structs.replace(frame, jpeg=b"", width=0, height=0, skip=DropReason.CORRUPT))
        self._parts.metrics.messages_sent.labels(WORKER, _TOPIC).inc()
        return True
