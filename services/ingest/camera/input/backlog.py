"""Coded frames between the thread that reads a camera and the one that decodes. It never grows old: what is too old is dropped.

Decoding may be slower than the camera sends. Then first frames that no other builds on are left out, and when that is not
enough, whole groups of pictures up to the next keyframe. What is left out is told, with its times, so that it can be counted.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from moodline.services.ingest.camera.input.decoder import UnitTimes
from moodline.shared.errors import SourceError

BACKLOG_S: Final = 1.0
"""No frame waits longer to be decoded."""
BEHIND_S: Final = 0.3
"""From here on frames that no other builds on are left out."""
_LIMIT_BYTES: Final = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class CodedFrame:
    """One coded frame on its way to the decoder.

    Attributes:
        data: As the decoder takes it; empty when it is only told of.
        keyframe: Whether decoding can begin here.
        recovery: As in `AccessUnit`.
        is_reference: Whether others may build on it.
        is_after_loss: Whether something is missing before it.
        is_overloaded: It was left out, because the decoder is behind.
        times: Of the frame.
    """

    data: bytes
    keyframe: bool
    recovery: int
    is_reference: bool
    is_after_loss: bool
    is_overloaded: bool
    times: UnitTimes


class Backlog:
    """Thread-safe: one thread puts, one takes.

    Args:
        now_s: Wall clock, for tests.
    """

    def __init__(self, now_s: Callable[[], float] = time.time) -> None:
        self._now_s = now_s
        self._waiting: deque[CodedFrame] = deque()
        self._bytes = 0
        self._seeks_keyframe = False
        self._is_cut = False
        self._failure: SourceError | None = None
        self._changed = threading.Condition()
        self.overloaded = 0
        """Frames left out so far."""

    def put(self, frame: CodedFrame) -> None:
        """Add the newest frame; never waits."""
        with self._changed:
            self._waiting.append(frame)
            self._bytes += len(frame.data)
            if self._bytes > _LIMIT_BYTES:
                self._drop_groups()
            self._changed.notify()

    def fail(self, failure: SourceError) -> None:
        """Say that nothing more comes, and why; what is in is still taken."""
        with self._changed:
            self._failure = failure
            self._changed.notify()

    def take(self, timeout_s: float) -> CodedFrame | None:
        """Return the next frame, or None after the time-out. Raises the `SourceError` that ended the reading."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._failure is not None, timeout_s)
            if self._waiting:
                return self._next()
            if self._failure is not None:
                raise self._failure
            return None

    def _next(self) -> CodedFrame:
        """Return the oldest frame, or what is told of it when it is left out."""
        if self._age_s(self._waiting[0]) > BACKLOG_S and not self._waiting[0].is_overloaded:
            self._drop_groups()
        frame = self._waiting.popleft()
        if frame.is_overloaded:
            return frame
        self._bytes -= len(frame.data)
        if self._seeks_keyframe and not frame.keyframe and not frame.recovery:
            return self._dropped(frame)
        self._seeks_keyframe = False
        if self._age_s(frame) > BEHIND_S and not frame.is_reference and not frame.keyframe:
            return self._dropped(frame)
        is_cut, self._is_cut = self._is_cut, False
        return replace(frame, is_after_loss=True) if is_cut else frame

    def _age_s(self, frame: CodedFrame) -> float:
        return self._now_s() - frame.times.arrived_s

    def _drop_groups(self) -> None:
        """Leave out all before the newest keyframe that is fresh enough; without one, all until the next keyframe comes."""
        oldest_s = self._now_s() - BACKLOG_S
        begin = len(self._waiting)
        for index in range(len(self._waiting) - 1, -1, -1):
            frame = self._waiting[index]
            if frame.times.arrived_s < oldest_s or frame.is_overloaded:
                break
            if frame.keyframe:
                begin = index
                break
        for index in range(begin):
            frame = self._waiting[index]
            if not frame.is_overloaded:
                self._bytes -= len(frame.data)
                self._waiting[index] = self._dropped(frame)
        self._seeks_keyframe = begin == len(self._waiting)
        self._is_cut = True

    def _dropped(self, frame: CodedFrame) -> CodedFrame:
        self.overloaded += 1
        return replace(frame, data=b"", is_overloaded=True)
