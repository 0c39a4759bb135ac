"""The status of a camera. The worker writes it to the store with the epoch under which it acquired the stream."""

from typing import Final

import msgspec

from moodline.services.ingest.live.records import Opened, Stats
from moodline.shared.clock import Clock
from moodline.shared.clock_offset import offset_of
from moodline.shared.errors import StoreError
from moodline.shared.store import ProgressStore
from moodline.shared.streams import FailureReason, StreamSpec, StreamState, StreamStatus

_INTERVAL_S: Final = 1.0


class CameraStatus:
    """The status of one camera, over all of its epochs. Methods return False when a newer epoch has the stream."""

    def __init__(self, store: ProgressStore, clock: Clock, spec: StreamSpec) -> None:
        self._store = store
        self._clock = clock
        self._stream_id = spec.stream_id
        self._epoch = 0
        self._written_s = float("-inf")
        self._status = StreamStatus(attempt=spec.attempt)

    @property
    def state(self) -> StreamState:
        """The state last said."""
        return self._status.state

    @property
    def detail(self) -> str:
        """The sentence last said."""
        return self._status.detail

    def acquired(self, epoch: int) -> None:
        """Write under this epoch from now on."""
        self._epoch = epoch

    def opened(self, opened: Opened) -> None:
        """Take over what is known of the camera; written with the next state."""
        self._change(codec=opened.codec, width=opened.width, height=opened.height, source_fps=opened.fps)

    def measured(self, stats: Stats, lost_packets: int) -> bool:
        """Take over what was measured; written at most once a second, and not while the store is unavailable."""
        self._change(
            last_frame_us=max(self._status.last_frame_us, stats.last_frame_us),
            fps=round(stats.fps, 2),
            width=stats.width or self._status.width,
            height=stats.height or self._status.height,
            clock_offset_ms=stats.clock_offset_ms,
            lost_packets=lost_packets,
        )
        return self._write_soon()

    def report(self, detail: str) -> None:
        """Take over a sentence about what the stream does; written with the next frame."""
        self._change(detail=detail)

    def count_frame(self) -> bool:
        """Count a frame that was sent; written as `measured` is."""
        self._change(frames_sent=self._status.frames_sent + 1)
        return self._write_soon()

    def set_state(self, state: StreamState, reason: FailureReason | None = None, detail: str = "", **more: int | float) -> bool:
        """Write a state; True also when the store is unavailable: cameras go on without it."""
        since_us = self._status.since_us if self._status.state is state else int(self._clock.now_s() * 1e6)
        fields: dict[str, object] = {"next_attempt_us": 0, **more}
        self._change(state=state, reason=reason, detail=detail, since_us=since_us, **fields)
        return self._write()

    def is_ours(self) -> bool:
        """Write what is known now; False when a newer epoch has the stream."""
        return self._write()

    def _change(self, **fields: object) -> None:
        self._status = msgspec.structs.replace(self._status, **fields)

    def _write_soon(self) -> bool:
        return self._write() if self._clock.monotonic_s() - self._written_s >= _INTERVAL_S else True

    def _write(self) -> bool:
        self._written_s = self._clock.monotonic_s()
        self._change(host_clock_ahead_ms=int(offset_of(self._clock) * 1000))
        try:
            return self._store.set_status(self._stream_id, self._epoch, self._status)
        except StoreError:
            return True
