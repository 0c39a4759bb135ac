"""Following faces from frame to frame, and smoothing what each shows.

A face belongs to the track whose last box it overlaps most (intersection over union), after Bochinski, Eiselein and Sikora,
"High-Speed Tracking-by-Detection Without Using Image Information" (AVSS 2017). Pairs are taken greedily, best overlap first;
equal overlaps go to the older track, then to the face that the detector listed first, so the outcome is one and the same on
every machine. Boxes are integers in 1/65536 of the image; overlap ratios do not change when x and y are scaled differently.

Time is event time. A track that was not seen for longer than `track_lost_ms` ends, and its id is not used again.
"""

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

from moodline.services.aggregator.smoothing import advance, quantise, start
from moodline.shared.emotions import EMOTIONS, PROBABILITY_SCALE
from moodline.shared.messages import Emotions, FaceEmotion
from moodline.shared.settings import AggregatorSettings
from moodline.shared.timeline.state import ActiveTrack, Box, TrackerState

_IOU_BITS: Final = 20
_UNREAD: Final = (0,) * len(EMOTIONS)


class TrackedFace(NamedTuple):
    """One face of a frame with its track.

    Attributes:
        track_id: The face's track.
        smoothed: Its smoothed probabilities: seven integers that sum to 65535; zeros as long as it could not be read.
        begun: The track was read for the first time.
        is_readable: An expression could be read from this frame; otherwise `smoothed` is what was read before.
    """

    track_id: int
    smoothed: tuple[int, ...]
    begun: bool
    is_readable: bool = True

    @property
    def read(self) -> tuple[int, ...]:
        """The probabilities to show: `smoothed`, or None where no expression can be read from this frame."""
        return self.smoothed if self.is_readable else ()


class StreamTracker:
    """Tracks the faces of one stream. Pure: what it returns depends only on the settings, the state and the messages."""

    def __init__(self, settings: AggregatorSettings, state: TrackerState | None = None) -> None:
        self.state = state if state is not None else TrackerState()
        self._tau_us = settings.smoothing_ms * 1000
        self._lost_us = settings.track_lost_ms * 1000
        # A float times a power of two is exact, so this is the same integer everywhere.
        self._iou_min = int(settings.iou_min * (1 << _IOU_BITS))
        self._least_quality = least_quality(settings)

    def observe(self, message: Emotions) -> list[TrackedFace]:
        """Take the next frame of the stream and return one answer per face, in the order of `message.faces`.

        Event time that goes back counts as standing still. A skipped frame has no answers; it only lets time pass.
        """
        now_us = self.advance_time(message.event_time_us)
        if message.skip is not None or not message.faces:
            return []
        matches = self._match([face.box for face in message.faces])
        answers = []
        for face, track in zip(message.faces, matches, strict=True):
            known = track
            if known is None:
                known = ActiveTrack(self.state.next_id, face.box, now_us, _UNREAD)
                self.state.next_id += 1
                self.state.tracks.append(known)
            answers.append(self._seen(known, face, now_us))
        return answers

    def _seen(self, track: ActiveTrack, face: FaceEmotion, now_us: int) -> TrackedFace:
        """Take a face into its track. One that cannot be read keeps the track going and changes nothing of what it shows."""
        read_us = track.last_read_us
        is_readable = face.quality >= self._least_quality
        if is_readable and read_us is None:
            track.smooth = start(face.probabilities)
        elif is_readable and read_us is not None:
            track.smooth = advance(track.smooth, face.probabilities, now_us - read_us, self._tau_us)
        track.box = face.box
        track.last_us = now_us
        track.read_us = now_us if is_readable else read_us
        return TrackedFace(track.track_id, quantise(track.smooth), is_readable and read_us is None, is_readable)

    def advance_time(self, event_time_us: int) -> int:
        """Let time pass, ending the tracks that were not seen for too long; return the time, which never goes back."""
        state = self.state
        now_us = event_time_us if state.now_us is None else max(state.now_us, event_time_us)
        state.now_us = now_us
        state.tracks = [track for track in state.tracks if now_us - track.last_us <= self._lost_us]
        return now_us

    def end_all(self) -> None:
        """End all tracks: what comes next does not continue what came before."""
        self.state.tracks = []

    def active_ids(self) -> set[int]:
        """Return the ids of the tracks that may be seen again."""
        return {track.track_id for track in self.state.tracks}

    def _match(self, boxes: Sequence[Box]) -> list[ActiveTrack | None]:
        tracks = self.state.tracks
        matches: list[ActiveTrack | None] = [None] * len(boxes)
        pairs = [
            (-ratio, at, face)
            for at, track in enumerate(tracks)
            for face, box in enumerate(boxes)
            if (ratio := _iou(track.box, box)) >= self._iou_min and ratio > 0
        ]
        pairs.sort()
        taken: set[int] = set()
        for _, at, face in pairs:
            if at not in taken and matches[face] is None:
                taken.add(at)
                matches[face] = tracks[at]
        return matches


def least_quality(settings: AggregatorSettings) -> int:
    """Return the least quality of a face that can be read, 0 to 65535."""
    return math.ceil(settings.min_quality * PROBABILITY_SCALE)


def _iou(a: Box, b: Box) -> int:
    """Return intersection over union in 1/2**20, rounded down."""
    ax1, ay1, ax2, ay2 = a
    bx1, by1, bx2, by2 = b
    width = (ax2 if ax2 < bx2 else bx2) - (ax1 if ax1 > bx1 else bx1)
    if width <= 0:
        return 0
    height = (ay2 if ay2 < by2 else by2) - (ay1 if ay1 > by1 else by1)
    if height <= 0:
        return 0
    common = width * height
    return (common << _IOU_BITS) // ((ax2 - ax1) * (ay2 - ay1) + (bx2 - bx1) * (by2 - by1) - common)
