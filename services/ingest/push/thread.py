"""One pushed stream in one process: a place for its newest frame, and a thread that numbers frames and sends them on."""

import logging
import threading
from collections import deque
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from moodline.services.ingest.live.capture_clock import CaptureClock
from moodline.services.ingest.live.latest import LatestSlot
from moodline.services.ingest.live.publisher import LivePublisher, PublisherParts
from moodline.services.ingest.live.records import Opened, Sample, Stats
from moodline.services.ingest.live.status import CameraStatus
from moodline.services.ingest.media.sampling import Sampler
from moodline.services.ingest.push.picture import Encoder, Picture
from moodline.services.ingest.stream.outcome import Outcome
from moodline.services.ingest.stream.plan import content_of
from moodline.services.ingest.stream.standstill import STANDSTILL_S, standstill_sentence
from moodline.services.ingest.stream.thread import StreamThread
from moodline.shared.bus import Producer
from moodline.shared.clock import Clock
from moodline.shared.errors import BusError, ImageError, StoreError, StreamNotFoundError
from moodline.shared.messages import DropReason
from moodline.shared.metrics import Metrics
from moodline.shared.push import Pushed
from moodline.shared.settings import Settings
from moodline.shared.store import Store
from moodline.shared.streams import StreamSpec, StreamState

log = logging.getLogger("moodline.push")

_POLL_S: Final = 1.0
_REPLACED_LIMIT: Final = 1000
_FPS_OVER: Final = 4
_SLOW_DOWN_MS: Final = 200
"""Least pause that is asked for when frames come faster than they can be sent on."""


@dataclass(frozen=True, slots=True)
class PushParts:
    """The objects that all pushed streams of one process share."""

    producer: Producer
    store: Store
    settings: Settings
    metrics: Metrics
    clock: Clock
    encoder: Encoder


class _Waiting:
    """A sampled frame that waits to be sent; `picture` is let go of when a newer one takes its place."""

    def __init__(self, picture: Picture, event_time_us: int, arrived_us: int, segment: int) -> None:
        self.picture: Picture | None = picture
        self.event_time_us = event_time_us
        self.arrived_us = arrived_us
        self.segment = segment

    def skipped(self, skip: DropReason, missed: int = 0) -> Sample:
        return Sample(
            event_time_us=self.event_time_us, captured_at_us=self.arrived_us, segment=self.segment, skip=skip, missed=missed
        )


class PushThread(StreamThread):
    """Takes one stream's frames under one acquisition, until it is stopped, paused, fenced, gone, or silent for long."""

    def __init__(self, spec: StreamSpec, parts: PushParts, sent_until_us: int) -> None:
        """Claim the stream; its timeline goes on after `sent_until_us`. Blocks for the store.

        Raises:
            StreamNotFoundError, StoreUnavailableError: nothing was acquired.
        """
        super().__init__(spec, "push")
        self._parts = parts
        self._status = CameraStatus(parts.store, parts.clock, spec)
        publisher_parts = PublisherParts(parts.producer, parts.store, parts.metrics, parts.clock)
        self._publisher = LivePublisher(spec, publisher_parts, self._status)
        self._publisher.acquire(sent_until_us)
        self._capture = CaptureClock(parts.settings.ingest.clock_tolerance_s, self._publisher.last_event_us)
        self._sampler = Sampler(spec.sample_fps)
        self._slot: LatestSlot[_Waiting] = LatestSlot(_REPLACED_LIMIT)
        self._lock = threading.Lock()
        self._accepting = True
        self._arrived = 0
        self._damaged = 0
        self._size = (0, 0)
        self._last_frame_us = 0
        self._seen_s = parts.clock.monotonic_s()
        self._rate: deque[tuple[float, int]] = deque(maxlen=_FPS_OVER)
        self.last_event_us = self._publisher.last_event_us
        self.ended_s = 0.0

    @property
    def is_decoding(self) -> bool:
        """Hardly ever: most frames go on the bus as they came."""
        return False

    @property
    def is_accepting(self) -> bool:
        """Return whether it takes frames."""
        return self._accepting

    def take(self, picture: Picture, captured_at_s: float | None) -> Pushed | None:
        """Take a frame; never waits for the bus. None when it takes no more: then a new acquisition is needed."""
        clock = self._parts.clock
        with self._lock:
            if not self._accepting:
                return None
            arrived_s, now_s = clock.now_s(), clock.monotonic_s()
            # A time that the sender tells is of this very frame: it is the media clock itself, not a report about one.
            media_s = now_s if captured_at_s is None else captured_at_s
            placed = self._capture.place(Fraction(round(media_s * 1e6), 1_000_000), arrived_s, captured_at_s)
            self._arrived += 1
            self._seen_s = now_s
            self._last_frame_us = round(arrived_s * 1e6)
            self._size = (picture.width, picture.height)
            self.last_event_us = placed.event_time_us
            sampled, former = self._sampler.take(Fraction(placed.event_time_us, 1_000_000)), None
            if sampled:
                former = self._slot.put(_Waiting(picture, placed.event_time_us, self._last_frame_us, placed.segment))
            if former is not None:
                former.picture = None
            wait_ms = self._wait_ms(placed.event_time_us)
        if former is not None:
            wait_ms = max(_SLOW_DOWN_MS, 2 * wait_ms)
        return Pushed(sampled, former is not None, placed.event_time_us, wait_ms)

    def count_damaged(self) -> None:
        """Count a frame that could not be used."""
        with self._lock:
            self._damaged += 1

    def stop(self) -> None:
        super().stop()
        self._close()

    def _wait_ms(self, event_time_us: int) -> int:
        next_s = self._sampler.next_s()
        return 0 if next_s is None else max(0, -((event_time_us - next_s * 1_000_000) // 1000))

    def _close(self) -> None:
        with self._lock:
            self._accepting = False
        self._slot.close()

    def _run(self) -> None:
        stream_id = self.spec.stream_id
        self._parts.metrics.camera_connections.labels("live").inc()
        log.info("push.live", extra={"stream_id": stream_id})
        try:
            self.outcome, state, detail = self._work()
            self._close()
            if self.outcome is Outcome.STOPPED:
                # What was taken is counted, whatever comes.
                self._send_waiting(0.0)
                self._status.set_state(state, detail=detail)
        except StreamNotFoundError:
            self.outcome = Outcome.GONE
        except BusError as error:
            self.outcome = Outcome.FAILED
            log.warning("push.bus_failed", extra={"stream_id": stream_id, "reason": str(error)})
            self._status.set_state(StreamState.PENDING, detail="the bus failed; the next frame begins again")
        finally:
            self._close()
            self.ended_s = self._parts.clock.monotonic_s()
            log.info("push.ended", extra={"stream_id": stream_id, "outcome": self.outcome})

    def _work(self) -> tuple[Outcome, StreamState, str]:
        """Send frames on until that comes to an end; return why, and what is to be said of the stream."""
        clock, is_first = self._parts.clock, True
        due_s = clock.monotonic_s()
        while not self._stop.is_set():
            if not self._send_waiting(min(_POLL_S, max(0.0, due_s - clock.monotonic_s()))):
                return Outcome.FENCED, StreamState.PENDING, ""
            if is_first and self._arrived:
                is_first = False
                self._status.opened(Opened(codec="mjpeg", width=self._size[0], height=self._size[1], fps=""))
                if not self._status.set_state(StreamState.LIVE, attempts=0):
                    return Outcome.FENCED, StreamState.PENDING, ""
            if clock.monotonic_s() >= due_s:
                due_s = clock.monotonic_s() + _POLL_S
                ended = self._poll()
                if ended is not None:
                    return ended
        return Outcome.STOPPED, StreamState.PENDING, ""

    def _send_waiting(self, timeout_s: float) -> bool:
        """Send what waits, in order; False when another process has the stream."""
        taken = self._slot.take(timeout_s)
        mine = True
        for index, waiting in enumerate(taken.replaced):
            mine = self._publisher.publish(waiting.skipped(DropReason.OVERLOADED, 0 if index else taken.forgotten)) and mine
        if taken.newest is not None:
            mine = self._publisher.publish(self._sample(taken.newest)) and mine
        return mine

    def _sample(self, waiting: _Waiting) -> Sample:
        assert waiting.picture is not None, "only what was replaced has none"
        try:
            picture = self._parts.encoder.ready(waiting.picture, self.spec.max_side_px)
        except ImageError:
            self.count_damaged()
            return waiting.skipped(DropReason.CORRUPT)
        return Sample(
            event_time_us=waiting.event_time_us,
            captured_at_us=waiting.arrived_us,
            segment=waiting.segment,
            width=picture.width,
            height=picture.height,
            jpeg=picture.jpeg,
        )

    def _poll(self) -> tuple[Outcome, StreamState, str] | None:
        """Once a second: is the stream still as it was, and is anybody still sending? Returns why it ends, or None."""
        self._publisher.send_owed()
        if not self._publisher.measure(self._stats()):
            return Outcome.FENCED, StreamState.PENDING, ""
        ended = self._changed()
        return self._report_silence() if ended is None else ended

    def _changed(self) -> tuple[Outcome, StreamState, str] | None:
        try:
            spec = self._parts.store.get(self.spec.stream_id)
        except StreamNotFoundError:
            raise
        except StoreError:
            return None
        if spec.paused:
            return Outcome.STOPPED, StreamState.PAUSED, ""
        if content_of(spec) != content_of(self.spec):
            return Outcome.STOPPED, StreamState.PENDING, ""
        return None

    def _report_silence(self) -> tuple[Outcome, StreamState, str] | None:
        settings = self._parts.settings
        with self._lock:
            still_s = self._parts.clock.monotonic_s() - self._seen_s
            if still_s > settings.push.silence_s:
                self._accepting = False
                return Outcome.STOPPED, StreamState.PENDING, f"no frame has come for {settings.push.silence_s:g} s"
        mine, is_still = True, still_s > settings.ingest.read_timeout_s
        why = "no frame comes" if is_still else self._standstill()
        if why and self._status.detail != why and self._status.state in (StreamState.LIVE, StreamState.STALLED):
            measured = {"fps": 0.0} if is_still else {}
            mine = self._status.set_state(StreamState.STALLED, None, why, **measured)
        elif not why and self._status.state is StreamState.STALLED:
            mine = self._status.set_state(StreamState.LIVE)
        return None if mine else (Outcome.FENCED, StreamState.PENDING, "")

    def _standstill(self) -> str:
        """Return what to tell of a timeline that stands still although frames are sent; empty when it moves."""
        try:
            standing = self._parts.store.standings([self.spec.stream_id])[0]
        except StoreError:
            return ""
        if standing is None or standing.last_event_time_us is None:
            return ""
        behind_s = (self._last_frame_us - standing.last_event_time_us) / 1e6
        return standstill_sentence(behind_s) if behind_s >= STANDSTILL_S else ""

    def _stats(self) -> Stats:
        with self._lock:
            arrived, damaged, (width, height), last_us = self._arrived, self._damaged, self._size, self._last_frame_us
            offset_ms = self._capture.offset_ms
        now = (self._parts.clock.monotonic_s(), arrived)
        since = self._rate[0] if self._rate else now
        self._rate.append(now)
        elapsed_s = now[0] - since[0]
        return Stats(
            decoded=arrived,
            damaged=damaged,
            packets=arrived + damaged,
            lost_packets=0,
            last_frame_us=last_us,
            fps=(now[1] - since[1]) / elapsed_s if elapsed_s > 0 else 0.0,
            width=width,
            height=height,
            clock_offset_ms=offset_ms,
        )
