"""The worker's side of one camera: a thread that keeps it connected, numbers its frames and sends them on.

Every connection is a new session, and so is every jump of the camera's clock: the aggregator follows nobody across, and a
reader that was taken for dead cannot interfere. A camera is tried for ever, with growing pauses; only an address that may not
be read fails it for good. Nothing here waits for other streams, and nothing is kept: a frame that the bus does not take
becomes a skip that is counted in the stream's own timeline.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

import msgspec

from services.ingest.live.back_off import BackOff
from services.ingest.live.camera_status import CameraStatus
from services.ingest.live.records import Failed, Job, Opened, Record, Sample, Stats
from services.ingest.reader import WORKER, Outcome
from services.ingest.stream_thread import StreamThread
from shared.bus import Producer
from shared.camera import CameraAddress
from shared.clock import Clock
from shared.errors import (
    BusFullError,
    DeliveryError,
    InvalidStreamError,
    SealError,
    SourceError,
    StoreError,
    StreamNotFoundError,
)
from shared.messages import Frame, Hop, Lane, SkipReason, encode, topic
from shared.metrics import Metrics
from shared.settings import IngestSettings
from shared.store import ProgressStore
from shared.streams import FailureReason, StreamSpec, StreamState

log = logging.getLogger("moodline.ingest.camera")

_TOPIC: Final = topic(Hop.FRAMES, Lane.LIVE)
_MARGIN_S: Final = 2.0
"""The camera's process keeps the time-outs itself; after this much more it is taken to hang, and is killed."""
_OWED_LIMIT: Final = 1000
_WITHOUT_STORE_S: Final = 3.0
"""Pause after a failure that is not the camera's: the store is out of reach."""


class Link(Protocol):
    """The connection to a camera's process."""

    def next(self, timeout_s: float) -> Record | None:
        """Return the next record, None after the time-out. Raises `SourceError` when the process is gone."""
        ...

    def close(self) -> None:
        """End the process at once; from any thread."""
        ...


@dataclass(frozen=True, slots=True)
class CameraParts:
    """What the cameras of one worker share.

    `address_of` unseals a stream's credentials. Raises `SealError`, `InvalidStreamError`.
    """

    producer: Producer
    store: ProgressStore
    settings: IngestSettings
    metrics: Metrics
    clock: Clock
    open_link: Callable[[Job], Link]
    address_of: Callable[[StreamSpec], CameraAddress]


class _GaveUp(Exception):  # noqa: N818  # not an error: ends a reader from anywhere inside
    def __init__(self, outcome: Outcome) -> None:
        self.outcome = outcome


class CameraThread(StreamThread):
    """Reads one camera until it is told to stop, is fenced, or the stream is gone."""

    def __init__(self, spec: StreamSpec, parts: CameraParts) -> None:
        super().__init__(spec, "camera")
        self._parts = parts
        self._back_off = BackOff(parts.settings.backoff_min_s, parts.settings.backoff_max_s)
        self._status = CameraStatus(parts.store, parts.clock, spec)
        self._link: Link | None = None
        self._last_event_us = 0

    @property
    def is_decoding(self) -> bool:
        """Never: the decoding is done by a process of its own."""
        return False

    def stop(self) -> None:
        super().stop()
        link = self._link
        if link is not None:
            link.close()

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                # The camera's process has ended by now: whatever was wrong with it does not outlive the attempt.
                self._stop.wait(self._attempt())
        except _GaveUp as done:
            self.outcome = done.outcome
            return
        self.outcome = Outcome.STOPPED
        self._status.say(StreamState.PENDING)

    def _attempt(self) -> float:
        """Connect and read until that comes to an end; return how long to wait before the next attempt, in s."""
        connection = _Connection(self.spec, self._parts, self._status, self._stop)
        try:
            connection.claim(self._last_event_us)
            self._status.say(StreamState.CONNECTING, attempts=self._back_off.attempts)
            self._link = self._parts.open_link(connection.job())
            # Whoever called `stop` before the link was there could not close it.
            if not self._stop.is_set():
                connection.read(self._link)
        except StreamNotFoundError:
            raise _GaveUp(Outcome.GONE) from None
        except _GaveUp:
            raise
        except StoreError as error:
            return self._pause_without_store(error)
        except SealError as error:
            return self._failed(FailureReason.AUTH, str(error), connection)
        except InvalidStreamError as error:
            return self._failed(FailureReason.FORBIDDEN_URL, str(error), connection)
        except SourceError as error:
            return self._failed(FailureReason(error.reason), str(error), connection)
        except Exception as error:  # noqa: BLE001  # this is the supervisor: one camera's trouble stays its own
            # No message: whatever it is about, it must not take credentials into the log.
            log.error("camera.crashed", extra={"stream_id": self.spec.stream_id, "error": type(error).__name__})
            return self._failed(FailureReason.CORRUPT, f"internal error ({type(error).__name__})", connection)
        finally:
            self._last_event_us = max(self._last_event_us, connection.last_event_us)
            if self._link is not None:
                self._link.close()
                self._link = None
        return 0.0

    def _failed(self, reason: FailureReason, detail: str, connection: "_Connection") -> float:
        """Say why a connection failed, and until when it is left alone; return that pause in s."""
        if self._stop.is_set():
            return 0.0
        self._parts.metrics.camera_connections.labels(reason).inc()
        self._back_off.was_live_for(connection.live_s())
        pause_s = self._back_off.next_s()
        fields = {"stream_id": self.spec.stream_id, "reason": reason, "detail": detail, "attempts": self._back_off.attempts}
        if reason is FailureReason.FORBIDDEN_URL:
            log.warning("camera.failed", extra=fields)
            self._status.say(StreamState.FAILED, reason, detail)
            raise _GaveUp(Outcome.FAILED)
        log.warning("camera.backing_off", extra=fields | {"pause_s": round(pause_s, 1)})
        next_us = int((self._parts.clock.now_s() + pause_s) * 1e6)
        mine = self._status.say(
            StreamState.BACKING_OFF, reason, detail, attempts=self._back_off.attempts, next_attempt_us=next_us, fps=0.0
        )
        if not mine:
            raise _GaveUp(Outcome.FENCED)
        return pause_s

    def _pause_without_store(self, error: StoreError) -> float:
        self._parts.metrics.retries.labels(WORKER, "store").inc()
        log.warning("camera.store_failed", extra={"stream_id": self.spec.stream_id, "reason": str(error)})
        return _WITHOUT_STORE_S


class _Connection:
    """One connection: its sessions, its numbers, and the time it was live."""

    def __init__(self, spec: StreamSpec, parts: CameraParts, status: CameraStatus, stop: threading.Event) -> None:
        self._spec = spec
        self._key = spec.stream_id.encode()
        self._parts = parts
        self._status = status
        self._stop = stop
        self._session = 0
        self._segment = 0
        self._seq = 0
        self.last_event_us = 0
        self._totals = Stats(
            decoded=0,
            damaged=0,
            packets=0,
            lost_packets=0,
            last_frame_us=0,
            fps=0.0,
            width=0,
            height=0,
            clock_offset_ms=None,
        )
        self._owed: deque[Frame] = deque(maxlen=_OWED_LIMIT)
        self._opened_s: float | None = None
        self._frame_seen_s = 0.0

    def claim(self, sent_until_us: int) -> None:
        """Take the stream under a new session; it goes on after `sent_until_us` and its timeline. Raises `StoreError`."""
        store, stream_id = self._parts.store, self._spec.stream_id
        self._session = store.claim(stream_id, self._parts.clock.now_s()).session
        progress = store.load([stream_id])[0]
        stands_us = 0 if progress is None else progress.last_event_time_us or 0
        self.last_event_us = max(sent_until_us, stands_us)
        self._status.claimed(self._session)

    def job(self) -> Job:
        """Return what the camera's process is to do. Raises `SealError`, `InvalidStreamError`."""
        address, settings, spec = self._parts.address_of(self._spec), self._parts.settings, self._spec
        return Job(
            scheme=address.scheme,
            host=address.host,
            port=address.port,
            target=address.target,
            username=address.username,
            password=address.password,
            transport=address.transport,
            tls_verify=address.tls_verify,
            sample_fps=spec.sample_fps,
            max_side_px=spec.max_side_px,
            jpeg_quality=settings.jpeg_quality,
            max_pixels=settings.max_pixels,
            open_timeout_s=settings.open_timeout_s,
            read_timeout_s=settings.read_timeout_s,
            clock_tolerance_s=settings.clock_tolerance_s,
            schemes=settings.schemes,
            allow_loopback=settings.allow_loopback,
            allow_networks=settings.allow_networks,
            deny_networks=settings.deny_networks,
            tls_ca_file=None if settings.tls_ca_file is None else str(settings.tls_ca_file),
            memory_bytes=settings.camera_memory_bytes,
            not_before_us=self.last_event_us,
        )

    def live_s(self) -> float:
        """Return how long frames came, in s."""
        return 0.0 if self._opened_s is None else max(0.0, self._frame_seen_s - self._opened_s)

    def read(self, link: Link) -> None:
        """Take what comes until the connection ends. Raises `SourceError`; `_GaveUp` when the stream is another's."""
        settings, clock = self._parts.settings, self._parts.clock
        deadline_s = clock.monotonic_s() + settings.open_timeout_s + _MARGIN_S
        while not self._stop.is_set():
            record = link.next(max(0.0, deadline_s - clock.monotonic_s()))
            if isinstance(record, Failed):
                raise SourceError(record.reason, record.detail)
            if record is None:
                if self._stop.is_set():
                    return
                raise SourceError(FailureReason.TIMEOUT, "the camera's process did not answer any more and was ended")
            if not self._take(record):
                raise _GaveUp(Outcome.FENCED)
            if self._opened_s is not None:
                deadline_s = self._frame_seen_s + settings.read_timeout_s + _MARGIN_S

    def _take(self, record: Record) -> bool:
        if isinstance(record, Sample):
            return self._publish(record)
        if isinstance(record, Stats):
            return self._measure(record)
        if isinstance(record, Opened):
            self._opened_s = self._frame_seen_s = self._parts.clock.monotonic_s()
            self._parts.metrics.camera_connections.labels("live").inc()
            self._status.opened(record)
            log.info("camera.live", extra={"stream_id": self._spec.stream_id, "codec": record.codec})
            return self._status.say(StreamState.LIVE, attempts=0)
        raise SourceError(FailureReason.CORRUPT, "the camera's process sent something out of order")

    def _measure(self, stats: Stats) -> bool:
        metrics, before = self._parts.metrics, self._totals
        metrics.frames_decoded.inc(max(0, stats.decoded - before.decoded))
        metrics.decode_errors.inc(max(0, stats.damaged - before.damaged))
        metrics.camera_packets.inc(max(0, stats.packets - before.packets))
        metrics.camera_packets_lost.inc(max(0, stats.lost_packets - before.lost_packets))
        if stats.last_frame_us > before.last_frame_us:
            self._frame_seen_s = self._parts.clock.monotonic_s()
        self._totals = stats
        return self._note_stall() and self._status.measured(stats, stats.lost_packets)

    def _note_stall(self) -> bool:
        """Say `stalled` when no frame has come for half of the read time-out, and `live` when they come again."""
        if self._opened_s is None:
            return True
        still_s = self._parts.clock.monotonic_s() - self._frame_seen_s
        is_stalled = still_s > self._parts.settings.read_timeout_s / 2
        if is_stalled and self._status.state is StreamState.LIVE:
            return self._status.say(StreamState.STALLED, detail="connected, but no frame comes")
        if not is_stalled and self._status.state is StreamState.STALLED:
            return self._status.say(StreamState.LIVE)
        return True

    def _publish(self, sample: Sample) -> bool:
        if sample.segment != self._segment and self._begin_session():
            self._segment = sample.segment
        self._frame_seen_s = self._parts.clock.monotonic_s()
        self.last_event_us = sample.event_time_us
        metrics = self._parts.metrics
        # A hole in the numbers: the aggregator counts it as `lost`.
        self._seq += sample.missed
        metrics.frames.labels(WORKER, Lane.LIVE).inc(sample.missed)
        frame = self._frame(sample)
        self._seq += 1
        metrics.frames.labels(WORKER, Lane.LIVE).inc()
        sent = self._send_owed() and self._send(frame)
        skip = frame.skip if sent else SkipReason.OVERLOADED
        if not sent:
            self._owe(msgspec.structs.replace(frame, jpeg=b"", width=0, height=0, skip=skip))
        if skip is not None:
            metrics.frames_skipped.labels(WORKER, Lane.LIVE, skip).inc()
        return self._status.count_frame()

    def _frame(self, sample: Sample) -> Frame:
        return Frame(
            stream_id=self._spec.stream_id,
            session=self._session,
            seq=self._seq,
            event_time_us=sample.event_time_us,
            captured_at_us=sample.captured_at_us,
            lane=Lane.LIVE,
            width=sample.width,
            height=sample.height,
            jpeg=sample.jpeg,
            skip=sample.skip,
        )

    def _begin_session(self) -> bool:
        """Take a new session for a new segment. Without the store the old one goes on; the next frame tries again."""
        try:
            session = self._parts.store.claim(self._spec.stream_id, self._parts.clock.now_s()).session
        except StreamNotFoundError:
            raise _GaveUp(Outcome.GONE) from None
        except StoreError:
            return False
        log.info("camera.new_segment", extra={"stream_id": self._spec.stream_id})
        self._session, self._seq = session, 0
        self._status.claimed(session)
        # What is owed belongs to the former session, and would come after it.
        self._owed.clear()
        return True

    def _owe(self, frame: Frame) -> None:
        """Keep the note that a frame was skipped until the bus takes it; beyond the limit the aggregator counts it `lost`."""
        self._owed.append(frame)

    def _send_owed(self) -> bool:
        while self._owed:
            if not self._send(self._owed[0]):
                return False
            self._owed.popleft()
        return True

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
            self._parts.metrics.frames_skipped.labels(WORKER, Lane.LIVE, SkipReason.CORRUPT).inc()
            return self._send(msgspec.structs.replace(frame, jpeg=b"", width=0, height=0, skip=SkipReason.CORRUPT))
        self._parts.metrics.messages_sent.labels(WORKER, _TOPIC).inc()
        return True
