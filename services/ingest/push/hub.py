"""Takes pushed frames of any number of streams, each in a thread of its own, so that none waits for another."""

import logging
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from moodline.services.ingest.push.picture import Encoder, Picture, checked_picture
from moodline.services.ingest.push.thread import PushParts, PushThread
from moodline.services.ingest.stream.outcome import Outcome
from moodline.services.ingest.stream.plan import content_of
from moodline.shared.bus import Producer
from moodline.shared.clock import Clock
from moodline.shared.errors import FrameError, MoodlineError, NotPushedError, StreamPausedError, StreamTakenError, TooBusyError
from moodline.shared.metrics import Metrics
from moodline.shared.push import Pushed
from moodline.shared.settings import Settings
from moodline.shared.store import Store
from moodline.shared.streams import PUSH_URL, StreamSpec, is_pushed

log = logging.getLogger("moodline.push")

_REST_S: Final = 2.0
"""How long frames of a stream are refused after another process has taken it: two senders must not take turns every second."""
_STOP_S: Final = 3.0
_REPLACE_S: Final = 1.5
_ATTEMPTS: Final = 3
_ACQUIRE_S: Final = 1.0
"""How long a sender waits while another one's frame begins the stream."""


class _Entry:
    """One stream's place in the hub. `lock` is held while the stream is acquired, by one sender."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.thread: PushThread | None = None

    @property
    def is_busy(self) -> bool:
        return self.lock.locked() or (self.thread is not None and self.thread.is_alive)


class PushHub:
    """Implements `Pushes`. A context manager: leaving stops all threads. Starts nothing before the first frame comes."""

    def __init__(
        self, store: Store, settings: Settings, metrics: Metrics, clock: Clock, producer: Callable[[], Producer]
    ) -> None:
        """Prepare.

        Args:
            store: Where streams are acquired.
            settings: Of `push` and `ingest`.
            metrics: Counters of this process.
            clock: Time.
            producer: Gives the producer, each time the same, when a stream begins; may raise `BusUnavailableError`. Not closed.
        """
        self._store = store
        self._settings = settings
        self._metrics = metrics
        self._clock = clock
        self._producer = producer
        self._encoder = Encoder(settings.ingest.jpeg_quality)
        self._entries: dict[str, _Entry] = {}
        self._lock = threading.Lock()
        self._closed = False
        metrics.pushed_streams.set_function(self._count)

    def push(self, spec: StreamSpec, jpeg: bytes, captured_at_s: float | None = None) -> Pushed:
        try:
            return self._push(spec, jpeg, captured_at_s)
        except MoodlineError as error:
            self._metrics.pushed_frames_refused.labels(error.code).inc()
            raise

    def close(self) -> None:
        """Take no more frames, send what was taken, and stop. Blocks for some 3 s at most. Safe to call twice."""
        with self._lock:
            self._closed = True
            threads = [entry.thread for entry in self._entries.values() if entry.thread is not None]
        for thread in threads:
            thread.stop()
        deadline_s = time.monotonic() + _STOP_S
        for thread in threads:
            if not thread.join(max(0.0, deadline_s - time.monotonic())):
                log.warning("push.left_behind", extra={"stream_id": thread.spec.stream_id})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _push(self, spec: StreamSpec, jpeg: bytes, captured_at_s: float | None) -> Pushed:
        stream_id = spec.stream_id
        if not is_pushed(spec.url):
            raise NotPushedError(f"stream {stream_id!r} takes no pushed frames; register one with the url {PUSH_URL}")
        if spec.paused:
            raise StreamPausedError(f"stream {stream_id!r} is paused; resume it first")
        picture = self._checked(spec, jpeg)
        for _ in range(_ATTEMPTS):
            pushed = self._thread_of(spec).take(picture, captured_at_s)
            # None: the thread came to its end just now.
            if pushed is not None:
                return pushed
        raise TooBusyError(f"stream {stream_id!r} begins and ends at the moment; push again")

    def _checked(self, spec: StreamSpec, jpeg: bytes) -> Picture:
        try:
            return checked_picture(jpeg, spec.max_side_px, self._settings)
        except FrameError:
            entry = self._entries.get(spec.stream_id)
            if entry is not None and entry.thread is not None:
                entry.thread.count_damaged()
            raise

    def _thread_of(self, spec: StreamSpec) -> PushThread:
        entry = self._entry_of(spec.stream_id)
        former = entry.thread
        if former is not None and _suits(former, spec):
            return former
        if not entry.lock.acquire(timeout=_ACQUIRE_S):
            raise TooBusyError(f"stream {spec.stream_id!r} has been beginning for a while: its bus or store answers slowly")
        try:
            former = entry.thread
            if former is None or not _suits(former, spec):
                entry.thread = former = self._begun(spec, former)
            return former
        finally:
            entry.lock.release()

    def _entry_of(self, stream_id: str) -> _Entry:
        with self._lock:
            if self._closed:
                raise TooBusyError("the service is stopping")
            found = self._entries.get(stream_id)
            if found is not None and found.is_busy:
                return found
            limit = self._settings.push.max_streams
            if sum(entry.is_busy for entry in self._entries.values()) >= limit:
                raise TooBusyError(f"frames of {limit} streams are taken already (MOODLINE_PUSH_MAX_STREAMS)")
            if found is None:
                self._forget_surplus(limit)
                found = self._entries[stream_id] = _Entry()
            return found

    def _forget_surplus(self, limit: int) -> None:
        """Ended streams are remembered for a while, for when they ended; not without bound."""
        surplus = max(0, len(self._entries) + 1 - 2 * limit)
        for stream_id in [name for name, entry in self._entries.items() if not entry.is_busy][:surplus]:
            del self._entries[stream_id]

    def _begun(self, spec: StreamSpec, former: PushThread | None) -> PushThread:
        sent_until_us = 0
        if former is not None:
            former.stop()
            former.join(_REPLACE_S)
            if former.spec.created_at_us == spec.created_at_us:
                sent_until_us = former.last_event_us
                rested_s = self._clock.monotonic_s() - former.ended_s
                if former.outcome is Outcome.FENCED and rested_s < _REST_S:
                    # A stream that was deleted looks the same from inside.
                    self._store.get(spec.stream_id)
                    raise StreamTakenError(
                        f"another process takes the frames of stream {spec.stream_id!r}; send all of them to the same one"
                    )
        parts = PushParts(self._producer(), self._store, self._settings, self._metrics, self._clock, self._encoder)
        thread = PushThread(spec, parts, sent_until_us)
        thread.start()
        return thread

    def _count(self) -> float:
        return sum(entry.is_busy for entry in list(self._entries.values()))


def _suits(thread: PushThread, spec: StreamSpec) -> bool:
    """Return whether a thread may take frames of a stream as it is registered now. Senders may know an older definition."""
    if not (thread.is_alive and thread.is_accepting) or thread.spec.created_at_us > spec.created_at_us:
        return False
    return content_of(thread.spec) == content_of(spec) or thread.spec.revision > spec.revision
