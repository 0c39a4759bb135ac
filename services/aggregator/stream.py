"""One stream's timeline as it grows: open buckets of all tiers, tracked faces, and the bucket values that changed.

A frame is added to the open 1 s bucket alone. An open bucket of a coarser tier keeps the finer ones that are closed already;
its value is these and the open finer one together. When event time leaves a bucket, it is closed: written once more, final,
merged into the next tier, and never touched again, because event time never goes back. Tracks work alike: their closed
seconds, and an open one. Which model answered is written where it changes.

The saved state (`moodline.shared.timeline.state`) holds everything that later bucket values depend on.
"""

from typing import Final

import msgspec

from moodline.services.aggregator.tracker import StreamTracker, TrackedFace
from moodline.shared.messages import DropReason, Emotions
from moodline.shared.settings import AggregatorSettings
from moodline.shared.store.base import BucketValue
from moodline.shared.timeline import (
    MODELS_SERIES,
    MODELS_TIER_S,
    NOTHING,
    SECOND_US,
    TIERS_S,
    TRACK_TIER_S,
    TRACKS_SERIES,
    TRACKS_TIER_S,
    Bucket,
    TrackBucket,
    TrackSummary,
    merge,
    merge_track,
    pack,
    pack_models,
    pack_track_bucket,
    pack_track_summary,
    record_model,
    track_series,
)
from moodline.shared.timeline.bucket import DROP_REASONS, NO_DROPS, Drops, Seven
from moodline.shared.timeline.faces import (
    FACES_SERIES,
    FACES_TIER_S,
    MOST_LOST,
    SeenFrame,
    faces_index,
    pack_frames,
    seen_frame,
)
from moodline.shared.timeline.state import OpenTrack, SavedState, TrackerState, load_state, save_state

_SPANS_US: Final = tuple(tier_s * SECOND_US for tier_s in TIERS_S)


class StreamTimeline:
    """The growing timeline of one stream. Pure: bucket values depend only on the settings, the state and what was added."""

    def __init__(self, settings: AggregatorSettings, state: bytes = b"", *, keeps_faces: bool = False) -> None:
        """Continue from `save`'s bytes; empty bytes begin a new timeline. `keeps_faces`: write each face of each frame too.

        Raises:
            StoreError: the state is damaged or of another version.
        """
        self._saved = load_state(state) if state else SavedState(TrackerState())
        self._tracker = StreamTracker(settings, self._saved.tracker)
        self._changed: dict[tuple[str, int, int], bytes] = {}
        self._moved: set[int] = set()
        self._is_grown = False
        self._keeps_faces = keeps_faces

    @property
    def event_time_us(self) -> int | None:
        """Event time of what was last added, or None before the first."""
        return self._saved.tracker.now_us

    def add(self, message: Emotions) -> None:
        """Add the next frame, classified or skipped. Event time that goes back counts as standing still.

        A picture that stayed (`repeats`) is counted again at each moment at which it was still shown.
        """
        self._add_once(message)
        for number in range(1, message.repeats + 1):
            at_us = message.event_time_us + message.repeats_us * number // message.repeats
            self._add_once(msgspec.structs.replace(message, event_time_us=at_us))

    def _add_once(self, message: Emotions) -> None:
        tracked = self._tracker.observe(message)
        self._end_lost_tracks()
        now_us = self._open_at()
        if self._keeps_faces:
            self._record(seen_frame(message, now_us, [(face.track_id, face.read) for face in tracked]))
        if message.skip is not None:
            self._grow(Bucket(1, _drops(message.skip, 1)))
            return
        if message.model:
            self._record_model(message.model, now_us // SECOND_US)
        self._grow(_frame_bucket(message, tracked))
        for face in tracked:
            if face.is_readable:
                self._add_to_track(face, now_us)

    def add_lost(self, frames: int, event_time_us: int, first: int = 0) -> None:
        """Count frames that never arrived, from number `first` on, at the time of the one that came after them."""
        self._pass_time(event_time_us)
        now_us = self._open_at()
        if self._keeps_faces:
            for number in range(first, first + min(frames, MOST_LOST)):
                self._record(SeenFrame(number, now_us, skipped=DropReason.LOST))
        self._grow(Bucket(frames, _drops(DropReason.LOST, frames)))

    def begin_segment(self) -> None:
        """Note that what comes next does not continue what came before: nobody is followed across."""
        self._tracker.end_all()
        self._end_lost_tracks()

    def close(self, event_time_us: int) -> None:
        """End the timeline: all buckets become final, all tracks end."""
        self._pass_time(event_time_us)
        self.begin_segment()
        self._close_buckets(len(self._saved.indexes))
        self._saved.indexes = []
        self._saved.parts = []
        self._is_grown = False

    def take_values(self) -> tuple[BucketValue, ...]:
        """Return every bucket value that changed since the last call, with its absolute value."""
        if self._is_grown:
            saved, finer = self._saved, NOTHING
            for tier_s, index, part in zip(TIERS_S, saved.indexes, saved.parts, strict=True):
                finer = merge(part, finer)
                self._changed["", tier_s, index] = pack(finer)
            self._is_grown = False
        for track_id in self._moved:
            self._write_track(track_id, is_ended=False)
        self._moved.clear()
        bucket_values = tuple(BucketValue(*place, value) for place, value in self._changed.items())
        self._changed = {}
        return bucket_values

    def save(self) -> bytes:
        """Return the state, from which another process continues exactly here."""
        return save_state(self._saved)

    def _record(self, frame: SeenFrame) -> None:
        """Add a frame to the bucket value of faces that it lies in.

        The former bucket value is complete, because event time never goes back.
        """
        seen, index = self._saved.seen, faces_index(frame.time_us)
        if seen and faces_index(seen[0].time_us) != index:
            seen.clear()
        seen.append(frame)
        self._changed[FACES_SERIES, FACES_TIER_S, index] = pack_frames(seen)

    def _pass_time(self, event_time_us: int) -> None:
        self._tracker.advance_time(event_time_us)
        self._end_lost_tracks()

    def _open_at(self) -> int:
        """Close the buckets that event time has left, open those it is in, and return it."""
        saved = self._saved
        now_us = saved.tracker.now_us
        assert now_us is not None
        if not saved.indexes:
            saved.indexes = [now_us // span_us for span_us in _SPANS_US]
            saved.parts = [NOTHING] * len(_SPANS_US)
        elif now_us // _SPANS_US[0] != saved.indexes[0]:
            indexes = [now_us // span_us for span_us in _SPANS_US]
            # Tiers are nested: those that are left come first.
            left = sum(old != new for old, new in zip(saved.indexes, indexes, strict=True))
            self._close_buckets(left)
            saved.indexes = indexes
        return now_us

    def _close_buckets(self, tiers: int) -> None:
        """Close the finest `tiers` open buckets; what they hold goes on into the next tier."""
        saved, finer = self._saved, NOTHING
        for at in range(tiers):
            finer = msgspec.structs.replace(merge(saved.parts[at], finer), final=True)
            self._changed["", TIERS_S[at], saved.indexes[at]] = pack(finer)
            saved.parts[at] = NOTHING
        if 0 < tiers < len(saved.parts):
            saved.parts[tiers] = merge(saved.parts[tiers], finer)

    def _grow(self, bucket: Bucket) -> None:
        self._saved.parts[0] = merge(self._saved.parts[0], bucket)
        self._is_grown = True

    def _record_model(self, model: str, second: int) -> None:
        day, is_changed = record_model(self._saved.models, model, second)
        self._saved.models = day
        if is_changed:
            self._changed[MODELS_SERIES, MODELS_TIER_S, day.day] = pack_models(day)

    def _add_to_track(self, face: TrackedFace, now_us: int) -> None:
        second = now_us // SECOND_US
        seen = TrackBucket(1, face.smoothed, _leading(face.smoothed))
        known = self._saved.tracks.get(face.track_id)
        if known is None:
            self._saved.tracks[face.track_id] = OpenTrack(now_us, now_us, second, TrackBucket(), seen)
        else:
            if known.second != second:
                self._write_track_second(face.track_id, known)
                known.closed = merge_track(known.closed, known.open)
                known.second, known.open = second, TrackBucket()
            known.open = merge_track(known.open, seen)
            known.last_us = now_us
        self._moved.add(face.track_id)

    def _end_lost_tracks(self) -> None:
        tracks = self._saved.tracks
        # A track that could not be read yet is the tracker's alone.
        for track_id in sorted(tracks.keys() - self._tracker.active_ids()):
            self._write_track(track_id, is_ended=True)
            self._moved.discard(track_id)
            del tracks[track_id]

    def _write_track(self, track_id: int, *, is_ended: bool) -> None:
        track = self._saved.tracks[track_id]
        self._write_track_second(track_id, track)
        seen = merge_track(track.closed, track.open)
        summary = TrackSummary(track.first_us, track.last_us, seen, is_ended)
        self._changed[TRACKS_SERIES, TRACKS_TIER_S, track_id] = pack_track_summary(summary)

    def _write_track_second(self, track_id: int, track: OpenTrack) -> None:
        self._changed[track_series(track_id), TRACK_TIER_S, track.second] = pack_track_bucket(track.open)


def _drops(reason: DropReason, frames: int) -> Drops:
    at = DROP_REASONS.index(reason)
    return (*NO_DROPS[:at], frames, *NO_DROPS[at + 1 :])


def _frame_bucket(message: Emotions, tracked: list[TrackedFace]) -> Bucket:
    """Return the bucket of one classified frame. Faces that cannot be read are counted, and no emotion is theirs."""
    small = message.too_small
    read = [(face, seen) for face, seen in zip(message.faces, tracked, strict=True) if seen.is_readable]
    unreadable = len(tracked) - len(read) + small
    if not read:
        return Bucket(1, unreadable=unreadable, too_small=small)
    if len(read) == 1:
        ((face, seen),) = read
        leading = _leading(seen.smoothed)
        return Bucket(1, NO_DROPS, 1, 1, face.probabilities, seen.smoothed, leading, int(seen.begun), False, unreadable, small)
    return Bucket(
        1,
        NO_DROPS,
        1,
        len(read),
        _sums([face.probabilities for face, _ in read]),
        _sums([seen.smoothed for _, seen in read]),
        _sums([_leading(seen.smoothed) for _, seen in read]),
        sum(seen.begun for _, seen in read),
        unreadable=unreadable,
        too_small=small,
    )


def _sums(rows: list[Seven]) -> Seven:
    return tuple(map(sum, zip(*rows, strict=True)))


_LEADERS: Final = tuple(tuple(int(at == leader) for at in range(7)) for leader in range(7))


def _leading(smoothed: Seven) -> Seven:
    return _LEADERS[smoothed.index(max(smoothed))]
