"""The status of a stream. Its reader writes it to the store with the epoch under which it acquired the stream."""

import msgspec

from moodline.services.ingest.media.frames import SourceInfo
from moodline.shared.clock import Clock
from moodline.shared.clock_offset import offset_of
from moodline.shared.errors import StoreUnavailableError
from moodline.shared.store import ProgressStore
from moodline.shared.streams import FailureReason, StreamSpec, StreamState, StreamStatus

_COUNT_INTERVAL_S = 1.0


class StatusReport:
    """The status of one acquisition. Every method returns False when a newer epoch took the stream, or the stream is gone."""

    def __init__(self, store: ProgressStore, clock: Clock, spec: StreamSpec, epoch: int, before: StreamStatus) -> None:
        """Go on from the status `before`; nothing is written yet."""
        self._store = store
        self._clock = clock
        self._stream_id = spec.stream_id
        self._epoch = epoch
        self._written_s = clock.monotonic_s()
        self._status = msgspec.structs.replace(before, attempt=spec.attempt, reason=None, detail="", frames_sent=0)

    @property
    def state(self) -> StreamState:
        """The state last said."""
        return self._status.state

    def describe(self, info: SourceInfo) -> None:
        """Take over what is known of the content; written with the next state."""
        self._status = msgspec.structs.replace(
            self._status,
            duration_us=info.duration_us,
            width=info.width,
            height=info.height,
            codec=info.codec,
            source_fps="" if info.fps is None else str(info.fps),
        )

    def ended(self, decoded: int, corrupt: int, lost: int, played_us: int) -> None:
        """Take over what came of the whole content; written with the next state."""
        self._status = msgspec.structs.replace(
            self._status, frames_decoded=decoded, frames_corrupt=corrupt, frames_lost=lost, played_us=played_us
        )

    def set_state(self, state: StreamState, reason: FailureReason | None = None, detail: str = "") -> bool:
        """Write a state. Raises `StoreUnavailableError`."""
        self._status = msgspec.structs.replace(
            self._status, state=state, reason=reason, detail=detail, since_us=int(self._clock.now_s() * 1e6)
        )
        return self._write()

    def count_frame(self) -> bool:
        """Count a frame that was sent; writes the count at most once a second, and not while the store is unavailable."""
        self._status = msgspec.structs.replace(self._status, frames_sent=self._status.frames_sent + 1)
        if self._clock.monotonic_s() - self._written_s < _COUNT_INTERVAL_S:
            return True
        try:
            return self._write()
        except StoreUnavailableError:
            return True

    def _write(self) -> bool:
        self._written_s = self._clock.monotonic_s()
        self._status = msgspec.structs.replace(self._status, host_clock_ahead_ms=int(offset_of(self._clock) * 1000))
        return self._store.set_status(self._stream_id, self._epoch, self._status)
