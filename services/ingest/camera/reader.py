"""The worker's side of one camera: a thread that keeps it connected, numbers its frames and sends them on.

Every connection is a new epoch, and so is every jump of the camera's clock: the aggregator follows nobody across, and a
reader that was taken for dead cannot interfere. A camera is tried indefinitely, with growing pauses; only an address that may not
be read fails it for good. Nothing here waits for other streams, and nothing is kept: a frame that the bus does not take
becomes a skip that is counted in the stream's own timeline.
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

import msgspec

from moodline.services.ingest.camera.process.job_of import job_of
from moodline.services.ingest.live.overload import Overload
from moodline.services.ingest.live.publisher import LivePublisher, PublisherParts
from moodline.services.ingest.live.records import Failed, Job, Opened, Record, Sample, Stats
from moodline.services.ingest.live.status import CameraStatus
from moodline.services.ingest.stream import WORKER
from moodline.services.ingest.stream.back_off import BackOff
from moodline.services.ingest.stream.crashes import Crashes, place_of
from moodline.services.ingest.stream.outcome import Outcome
from moodline.services.ingest.stream.thread import StreamThread
from moodline.shared.bus import Producer
from moodline.shared.camera import CameraAddress
from moodline.shared.clock import Clock
from moodline.shared.clock_offset import offset_of
from moodline.shared.errors import InvalidStreamError, SealError, SourceError, StoreError, StreamNotFoundError
from moodline.shared.messages import StreamClass
from moodline.shared.metrics import Metrics
from moodline.shared.settings import IngestSettings
from moodline.shared.store import ProgressStore
from moodline.shared.streams import FailureReason, StreamSpec, StreamState

log = logging.getLogger("moodline.ingest.camera")

_MARGIN_S: Final = 2.0
"""The camera's process keeps the time-outs itself; after this much more it is taken to hang, and is killed."""
_WITHOUT_STORE_S: Final = 3.0
"""Pause after a failure that is not the camera's: the store is unavailable."""


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
    """The objects that all cameras of one worker share.

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
        self._crashes = Crashes()

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
        self._status.set_state(StreamState.PENDING)

    def _attempt(self) -> float:
        """Connect and read until that comes to an end; return how long to wait before the next attempt, in s."""
        connection = _Connection(self.spec, self._parts, self._status, self._stop, lambda: self.standstill)
        try:
            connection.acquire(self._last_event_us)
            self._status.set_state(StreamState.CONNECTING, attempts=self._back_off.attempts)
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
            return self._failed(FailureReason.INTERNAL, place_of(error), connection)
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
        if reason is FailureReason.INTERNAL:
            pause_s, detail = self._crashed(pause_s, detail, connection)
        fields = {"stream_id": self.spec.stream_id, "reason": reason, "detail": detail, "attempts": self._back_off.attempts}
        if reason is FailureReason.FORBIDDEN_URL:
            log.warning("camera.failed", extra=fields)
            self._status.set_state(StreamState.FAILED, reason, detail)
            raise _GaveUp(Outcome.FAILED)
        log.warning("camera.backing_off", extra=fields | {"pause_s": round(pause_s, 1)})
        next_us = int((self._parts.clock.now_s() + pause_s) * 1e6)
        mine = self._status.set_state(
            StreamState.BACKING_OFF, reason, detail, attempts=self._back_off.attempts, next_attempt_us=next_us, fps=0.0
        )
        if reason is FailureReason.INTERNAL:  # counted after it was told: who sees the count looks for the reason
            self._parts.metrics.reader_crashes.labels(StreamClass.LIVE).inc()
        if not mine:
            raise _GaveUp(Outcome.FENCED)
        return pause_s

    def _crashed(self, pause_s: float, place: str, connection: "_Connection") -> tuple[float, str]:
        """Remember a defect, here or in the camera's process; return the pause in s and what to say."""
        if connection.live_s() > 0:
            self._crashes.forget()
        pause_s = max(pause_s, self._crashes.add(place))
        return pause_s, self._crashes.sentence(pause_s)

    def _pause_without_store(self, error: StoreError) -> float:
        self._parts.metrics.retries.labels(WORKER, "store").inc()
        log.warning("camera.store_failed", extra={"stream_id": self.spec.stream_id, "reason": str(error)})
        return _WITHOUT_STORE_S


class _Connection:
    """One connection: its publisher, and the time it was live."""

    def __init__(
        self,
        spec: StreamSpec,
        parts: CameraParts,
        status: CameraStatus,
        stop: threading.Event,
        standstill: Callable[[], str] = str,
    ) -> None:
        self._standstill = standstill
        self._spec = spec
        self._parts = parts
        self._status = status
        self._stop = stop
        self._publisher = LivePublisher(spec, PublisherParts(parts.producer, parts.store, parts.metrics, parts.clock), status)
        self._last_frame_us = 0
        self._opened_s: float | None = None
        self._frame_seen_s = 0.0
        self._overload = Overload()
        self._packets = 0
        self._gets_packets = False
        self._fps = 0.0

    @property
    def last_event_us(self) -> int:
        """Event time of the last frame that is in the timeline or was sent, in us since the Unix epoch."""
        return self._publisher.last_event_us

    def acquire(self, sent_until_us: int) -> None:
        """Take the stream under a new epoch; it goes on after `sent_until_us` and its timeline. Raises `StoreError`."""
        self._publisher.acquire(sent_until_us)
        of_streams = self._parts.metrics.of_streams
        if of_streams.admits(self._spec.stream_id):
            of_streams.epochs.labels(self._spec.stream_id).inc()

    def job(self) -> Job:
        """Return what the camera's process is to do. Raises `SealError`, `InvalidStreamError`."""
        return job_of(
            self._parts.address_of(self._spec),
            self._parts.settings,
            sample_fps=self._spec.sample_fps,
            max_side_px=self._spec.max_side_px,
            not_before_us=self.last_event_us,
        )

    def live_s(self) -> float:
        """Return how long frames came, in s."""
        return 0.0 if self._opened_s is None else max(0.0, self._frame_seen_s - self._opened_s)

    def read(self, link: Link) -> None:
        """Take what comes until the connection ends. Raises `SourceError`; `_GaveUp` when the stream is another's."""
        settings, clock = self._parts.settings, self._parts.clock
        deadline_s = clock.monotonic_s() + settings.open_timeout_s + settings.first_frame_timeout_s + _MARGIN_S
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
                # A process that works tells its counts all the time, whatever the camera does. One that is frozen does not.
                frame_due_s = self._frame_seen_s + max(settings.read_timeout_s, settings.first_frame_timeout_s)
                deadline_s = min(clock.monotonic_s() + settings.read_timeout_s, frame_due_s) + _MARGIN_S

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
            return self._status.set_state(StreamState.LIVE, attempts=0)
        raise SourceError(FailureReason.CORRUPT, "the camera's process sent something out of order")

    def _measure(self, stats: Stats) -> bool:
        self._overload.measured(stats.overloaded, self._parts.clock.monotonic_s())
        self._gets_packets, self._packets = stats.packets > self._packets, stats.packets
        self._fps = stats.fps or self._fps
        if stats.last_frame_us > self._last_frame_us:
            self._last_frame_us, self._frame_seen_s = stats.last_frame_us, self._parts.clock.monotonic_s()
        return self._report_stall() and self._publisher.measure(stats)

    def _report_stall(self) -> bool:
        """Say `stalled` when no frame has come for half of the read time-out or the timeline stands, else `live`."""
        if self._opened_s is None:
            return True
        still_s = self._parts.clock.monotonic_s() - self._frame_seen_s
        # A camera that sends a frame in 10 s is not silent after 5.
        is_silent = still_s > max(self._parts.settings.read_timeout_s / 2, 2 / self._fps if self._fps else 0.0)
        silent = "packets come, but no keyframe to begin with" if self._gets_packets else "connected, but no frame comes"
        why = silent if is_silent else self._standstill()
        if why and self._status.detail != why and self._status.state in (StreamState.LIVE, StreamState.STALLED):
            return self._status.set_state(StreamState.STALLED, detail=why)
        overloaded = self._overload.sentence(self._parts.clock.monotonic_s())
        is_live = self._status.state in (StreamState.LIVE, StreamState.STALLED)
        if not why and is_live and (self._status.state is StreamState.STALLED or self._status.detail != overloaded):
            return self._status.set_state(StreamState.LIVE, detail=overloaded)
        return True

    def _publish(self, sample: Sample) -> bool:
        self._frame_seen_s = self._parts.clock.monotonic_s()
        # The camera's process has the machine's clock; whoever judges the frame's age has the common one.
        ahead_us = int(offset_of(self._parts.clock) * 1e6)
        return self._publisher.publish(msgspec.structs.replace(sample, captured_at_us=sample.captured_at_us - ahead_us))
