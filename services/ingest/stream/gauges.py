"""Shows, in metrics, how the streams that an ingest worker reads are doing."""

from collections import Counter
from collections.abc import Mapping
from typing import Final

from moodline.services.ingest.stream.standstill import STANDSTILL_S
from moodline.shared.clock import Clock
from moodline.shared.messages import StreamClass
from moodline.shared.metrics import Metrics
from moodline.shared.store.base import Standing
from moodline.shared.streams import StreamSpec, StreamState, StreamStatus

_CONNECTED: Final = frozenset({StreamState.LIVE, StreamState.STALLED})
_DOWN: Final = frozenset({StreamState.BACKING_OFF, StreamState.STALLED, StreamState.FAILED})


class StreamGauges:
    """Used by the worker's thread, after each comparison of the registry with its readers."""

    def __init__(self, metrics: Metrics, clock: Clock) -> None:
        self._metrics = metrics
        self._clock = clock
        self._known: dict[str, tuple[StreamSpec, StreamStatus]] = {}
        self._behind_s: dict[str, float] = {}
        self._waits_from_us: dict[str, int] = {}
        self._shown: dict[str, StreamState] = {}

    def show(self, mine: Mapping[str, StreamSpec], found: Mapping[str, tuple[StreamStatus, Standing | None]]) -> None:
        """Show the state of streams.

        Args:
            mine: All streams of this worker's shards; what is known of others is forgotten.
            found: What is known now of some of them, and where their timelines stand; the others are as they were.
        """
        for name in self._known.keys() - mine.keys():
            self._forget(name)
        for name, (status, standing) in found.items():
            if name in mine:
                self._known[name] = mine[name], status
                self._show_stream(mine[name], status)
                self._show_behind(mine[name], status, standing)
        states = Counter(status.state for _, status in self._known.values())
        for state in StreamState:
            self._metrics.streams.labels(state).set(states[state])
        cameras = {name: status.state for name, (spec, status) in self._known.items() if _is_to_be_read(spec)}
        self._metrics.cameras.set(len(cameras))
        # Where frames come in and only the timeline stands still, the camera is not down.
        down = [name for name, state in cameras.items() if state in _DOWN and self.behind_s(name) < STANDSTILL_S]
        self._metrics.cameras_down.set(len(down))
        self._metrics.timeline_behind_seconds.set(max(self._behind_s.values(), default=0.0))

    def behind_s(self, name: str) -> float:
        """Return how far a live camera's timeline is behind its newest frame, in s; 0 for others."""
        return self._behind_s.get(name, 0.0)

    def forget_all(self) -> None:
        """Forget every stream: this worker reads none any more."""
        self.show({}, {})

    def _show_stream(self, spec: StreamSpec, status: StreamStatus) -> None:
        of_streams, name = self._metrics.of_streams, spec.stream_id
        if not of_streams.admits(name):
            return
        before = self._shown.get(name)
        if before is not None and before is not status.state:
            of_streams.state.remove_by_labels({"stream": name, "state": before})
        self._shown[name] = status.state
        of_streams.state.labels(name, status.state).set(1)
        if spec.lane is StreamClass.LIVE:
            of_streams.fps.labels(name).set(status.fps if status.state is StreamState.LIVE else 0.0)

    def _show_behind(self, spec: StreamSpec, status: StreamStatus, standing: Standing | None) -> None:
        """Show how far a live camera's timeline is behind the frame that arrived last, in s."""
        self._behind_s.pop(spec.stream_id, None)
        # A camera that has stopped sending is `cameras_down`, not behind.
        if spec.lane is not StreamClass.LIVE or status.state not in _CONNECTED or standing is None:
            return
        reached_us = standing.last_event_time_us
        if reached_us is None:
            # Nothing of it has ever come through: it counts from the first connection on.
            reached_us = self._waits_from_us.setdefault(spec.stream_id, status.last_frame_us)
        else:
            self._waits_from_us.pop(spec.stream_id, None)
        behind_s = max(0.0, (status.last_frame_us - reached_us) / 1e6)
        self._behind_s[spec.stream_id] = behind_s
        if self._metrics.of_streams.admits(spec.stream_id):
            self._metrics.of_streams.behind_seconds.labels(spec.stream_id).set(behind_s)

    def _forget(self, name: str) -> None:
        del self._known[name]
        self._shown.pop(name, None)
        self._behind_s.pop(name, None)
        self._waits_from_us.pop(name, None)
        self._metrics.of_streams.forget(name)


def _is_to_be_read(spec: StreamSpec) -> bool:
    return spec.lane is StreamClass.LIVE and not spec.paused
