"""The growing timeline against one that is added up by hand."""

from collections import defaultdict

from hypothesis import given, settings
from hypothesis import strategies as st

from moodline.services.aggregator.stream import StreamTimeline
from moodline.services.aggregator.tracker import StreamTracker
from moodline.shared.messages import DropReason, Emotions, FaceEmotion, StreamClass
from moodline.shared.settings import AggregatorSettings
from moodline.shared.timeline import TIERS_S, Bucket, TrackSummary, unpack, unpack_track_bucket, unpack_track_summary

SETTINGS = AggregatorSettings(smoothing_ms=500, track_lost_ms=1000)
START_US = 1_777_640_390_000_000
S = 1_000_000
Sums = dict[str, list[int]]


def frame(at_us: int, *faces: FaceEmotion, skip: DropReason | None = None) -> Emotions:
    return Emotions(
        stream_id="a",
        epoch=1,
        seq=0,
        event_time_us=at_us,
        captured_at_us=0,
        lane=StreamClass.FILE,
        width=1,
        height=1,
        faces=faces,
        skip=skip,
    )


def face(place: int, emotion: int, sure: int = 65_535) -> FaceEmotion:
    values = [0] * 7
    values[emotion] = sure
    values[(emotion + 1) % 7] += 65_535 - sure
    x = place * 12_000
    return FaceEmotion((x, 0, x + 9_000, 9_000), 60_000, tuple(values))  # type: ignore[arg-type]


FACES = st.lists(
    st.builds(face, st.integers(0, 4), st.integers(0, 6), st.integers(0, 65_535)), max_size=3, unique_by=lambda f: f.box[0]
)
STEPS = st.lists(st.tuples(st.sampled_from([0, 200_000, 700_000, 1_600_000, 20_000_000]), FACES), min_size=1, max_size=15)


@settings(max_examples=80, deadline=None)
@given(STEPS)
def test_every_cell_is_what_adding_up_by_hand_gives(steps: list[tuple[int, list[FaceEmotion]]]) -> None:
    messages, at_us = [], START_US
    for dt_us, faces in steps:
        at_us += dt_us
        messages.append(frame(at_us, *faces))
    timeline = StreamTimeline(SETTINGS)
    for message in messages:
        timeline.add(message)
    timeline.close(at_us)
    bucket_values = {
        (bucket_value.series, bucket_value.tier_s, bucket_value.index): bucket_value.value
        for bucket_value in timeline.take_values()
    }

    tracker = StreamTracker(SETTINGS)
    seconds: dict[tuple[int, int], list[tuple[int, ...]]] = defaultdict(list)
    lives: dict[int, list[tuple[int, tuple[int, ...]]]] = defaultdict(list)
    buckets: dict[tuple[int, int], list[tuple[int, ...]]] = defaultdict(list)
    for message in messages:
        for seen in tracker.observe(message):
            lives[seen.track_id].append((message.event_time_us, seen.smoothed))
            seconds[seen.track_id, message.event_time_us // S].append(seen.smoothed)
            for tier_s in TIERS_S:
                buckets[tier_s, message.event_time_us // (tier_s * S)].append(seen.smoothed)

    for tier_s in TIERS_S:
        for index in {message.event_time_us // (tier_s * S) for message in messages}:
            bucket = unpack(bucket_values["", tier_s, index])
            smoothed = buckets[tier_s, index]
            assert bucket.final
            assert bucket.faces == len(smoothed)
            assert bucket.smoothed == column_sums(smoothed)
            assert bucket.leading == leaders(smoothed)
    for track_id, life in lives.items():
        summary = unpack_track_summary(bucket_values["tracks", 0, track_id])
        rows = [row for _, row in life]
        assert summary == TrackSummary(life[0][0], life[-1][0], summary.seen, ended=True)
        assert (summary.seen.faces, summary.seen.smoothed, summary.seen.leading) == (len(rows), column_sums(rows), leaders(rows))
    for (track_id, second), rows in seconds.items():
        seen_in_second = unpack_track_bucket(bucket_values[f"track/{track_id}", 1, second])
        assert (seen_in_second.faces, seen_in_second.smoothed) == (len(rows), column_sums(rows))
    assert len(bucket_values) == len({(lv, m.event_time_us // (lv * S)) for m in messages for lv in TIERS_S}) + len(lives) + len(
        seconds
    )


def column_sums(rows: list[tuple[int, ...]]) -> tuple[int, ...]:
    return tuple(sum(row[at] for row in rows) for at in range(7))


def leaders(rows: list[tuple[int, ...]]) -> tuple[int, ...]:
    return tuple(sum(row.index(max(row)) == at for row in rows) for at in range(7))


def test_raw_sums_are_those_of_the_messages_and_smoothed_ones_lag_behind() -> None:
    timeline = StreamTimeline(SETTINGS)
    timeline.add(frame(START_US, face(0, 3)))
    timeline.add(frame(START_US + 100_000, face(0, 4), face(2, 4)))
    (bucket,) = [
        unpack(bucket_value.value)
        for bucket_value in timeline.take_values()
        if (bucket_value.series, bucket_value.tier_s) == ("", 1)
    ]
    assert bucket.raw == (0, 0, 0, 65_535, 2 * 65_535, 0, 0)
    assert bucket.leading == (0, 0, 0, 2, 1, 0, 0)
    assert bucket.smoothed[3] > 65_535
    assert (bucket.frames_with_faces, bucket.faces, bucket.tracks_begun) == (2, 3, 2)


def test_tracks_that_ended_leave_the_state_and_are_not_written_again() -> None:
    timeline = StreamTimeline(SETTINGS)
    timeline.add(frame(START_US))
    timeline.take_values()
    bare = len(timeline.save())
    timeline.add(frame(START_US + S, face(0, 3), face(1, 3)))
    timeline.take_values()
    assert len(timeline.save()) > bare + 100
    timeline.add(frame(START_US + 3 * S))
    assert {bucket_value.index for bucket_value in timeline.take_values() if bucket_value.series == "tracks"} == {1, 2}
    timeline.add(frame(START_US + 4 * S))
    assert {bucket_value.series for bucket_value in timeline.take_values()} == {""}
    assert len(timeline.save()) < bare + 100


def test_lost_frames_are_sampled_and_skipped_at_the_time_of_the_next_frame() -> None:
    timeline = StreamTimeline(SETTINGS)
    timeline.add(frame(START_US))
    timeline.add_lost(7, START_US + 2 * S)
    timeline.add(frame(START_US + 2 * S, skip=DropReason.OVERLOADED))
    by_second = {
        bucket_value.index: unpack(bucket_value.value) for bucket_value in timeline.take_values() if bucket_value.tier_s == 1
    }
    assert by_second[START_US // S] == Bucket(sampled=1, final=True)
    assert by_second[START_US // S + 2] == Bucket(sampled=8, skipped=(0, 1, 0, 7))


def test_the_state_of_a_stream_stays_small() -> None:
    timeline = StreamTimeline(SETTINGS)
    for step in range(4_000):
        timeline.add(frame(START_US + step * 200_000, face(0, step % 7, 40_000)))
        timeline.take_values()
    assert len(timeline.save()) < 1_000
