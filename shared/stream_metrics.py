"""Metrics that have a stream as a label, for a limited number of streams.

The first streams that a process sees have series of their own, up to the limit; a stream that is removed, or goes to another
worker, frees its place. Of all others the API and the timelines tell the same.
"""

import threading
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge

from moodline.shared.emotions import EMOTIONS
from moodline.shared.messages import DropReason

_LIMITED: Final = "for at most MOODLINE_WORKER_STREAM_METRICS streams of a process"


class StreamMetrics:
    """The metrics of single streams. Ask `admits` before using one; `forget` removes a stream's series. Thread-safe.

    Args of the constructor:
        registry: Where they are registered.
        limit: Most streams that have series.
    """

    def __init__(self, registry: CollectorRegistry, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._streams: set[str] = set()
        self._counted: set[str] = set()
        self.state: Final = Gauge(
            "moodline_stream_state",
            f"1 for the state that a stream is in, by stream and state, {_LIMITED}.",
            ["stream", "state"],
            registry=registry,
        )
        self.fps: Final = Gauge(
            "moodline_stream_fps",
            f"Frames per second that arrive from a camera, by stream, {_LIMITED}.",
            ["stream"],
            registry=registry,
        )
        self.behind_seconds: Final = Gauge(
            "moodline_stream_behind_seconds",
            f"How far a live camera's timeline is behind its newest frame, in s, by stream, {_LIMITED}.",
            ["stream"],
            registry=registry,
        )
        self.epochs: Final = Counter(
            "moodline_stream_sessions_total",
            f"Connections to a camera that were begun, by stream, {_LIMITED}.",
            ["stream"],
            registry=registry,
        )
        self.frames: Final = Counter(
            "moodline_stream_frames_total",
            "Sampled frames that reached a stream's timeline, by stream and result: `faces`, `no_face`, `unreadable` (faces, "
            f"none of which could be read), or the reason of a skip, {_LIMITED}.",
            ["stream", "result"],
            registry=registry,
        )
        self.faces: Final = Counter(
            "moodline_stream_faces_total",
            f"Faces that reached a stream's timeline, by stream, {_LIMITED}.",
            ["stream"],
            registry=registry,
        )

        self.emotions: Final = Counter(
            "moodline_stream_emotions_total",
            f"Faces that reached a stream's timeline, by stream and the emotion that the classifier found likeliest, {_LIMITED}.",
            ["stream", "emotion"],
            registry=registry,
        )

    def admits(self, stream_id: str) -> bool:
        """Return whether a stream has series; it takes a place while there is one."""
        with self._lock:
            if stream_id not in self._streams and len(self._streams) < self._limit:
                self._streams.add(stream_id)
            return stream_id in self._streams

    def begin_counts(self, stream_id: str) -> None:
        """Show what is counted of an admitted stream's frames before it counts.

        A rate needs a value before the first event, and the share of one emotion needs all the others.
        """
        with self._lock:
            if stream_id in self._counted or stream_id not in self._streams:
                return
            self._counted.add(stream_id)
        for result in ("faces", "no_face", *DropReason):
            self.frames.labels(stream_id, result)
        for emotion in EMOTIONS:
            self.emotions.labels(stream_id, emotion)

    def forget(self, stream_id: str) -> None:
        """Remove a stream's series and free its place."""
        with self._lock:
            self._counted.discard(stream_id)
            if stream_id not in self._streams:
                return
            self._streams.discard(stream_id)
            for family in (self.state, self.fps, self.behind_seconds, self.epochs, self.frames, self.faces, self.emotions):
                family.remove_by_labels({"stream": stream_id})
