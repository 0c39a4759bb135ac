"""Questions to a timeline: tiers, windows, merging, emptiness, finality."""

from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moodline.shared.errors import QueryError, TrackNotFoundError
from moodline.shared.messages import StreamClass
from moodline.shared.store import BucketValueRange
from moodline.shared.timeline import (
    NOTHING,
    TIERS_S,
    Bucket,
    EmptyReason,
    Extent,
    TimelineAnswer,
    TimelineQuery,
    TrackBucket,
    TrackSummary,
    extent,
    merge,
    pack,
    pack_track_bucket,
    pack_track_summary,
    timeline,
    track_list,
    track_series,
    track_timeline,
)

S = 1_000_000
START_S = 1_777_636_800  # a full hour


class StubTimelineStore:
    """A dictionary; everything of the one stream "s"."""

    def __init__(self) -> None:
        self.bucket_values: dict[tuple[str, int], dict[int, bytes]] = {}

    def read(self, stream_id: str, series: str, tier_s: int, start: int, stop: int) -> list[tuple[int, bytes]]:
        found = self.bucket_values.get((series, tier_s), {}) if stream_id == "s" else {}
        return sorted((index, value) for index, value in found.items() if start <= index < stop)

    def bounds(self, stream_id: str, tier_s: int) -> tuple[int, int] | None:
        found = self.bucket_values.get(("", tier_s)) if stream_id == "s" else None
        return (min(found), max(found)) if found else None

    def read_many(self, ranges: Sequence[BucketValueRange]) -> list[list[tuple[int, bytes]]]:
        return [self.read(*each) for each in ranges]

    def bounds_many(self, stream_id: str, tiers_s: Sequence[int]) -> list[tuple[int, int] | None]:
        return [self.bounds(stream_id, tier_s) for tier_s in tiers_s]

    def prune(self, now_s: float) -> int:
        return 0


def fill(seconds: dict[int, Bucket], closed: bool = True) -> StubTimelineStore:
    """Store second-buckets (offset from START_S -> bucket) at all tiers, as the aggregator does."""
    store = StubTimelineStore()
    newest = max(seconds)
    for tier_s in TIERS_S:
        tier: dict[int, Bucket] = {}
        for offset, bucket in seconds.items():
            index = (START_S + offset) // tier_s
            is_closed = closed or index < (START_S + newest) // tier_s
            one = msgspec.structs.replace(bucket, final=is_closed)
            tier[index] = merge(tier.get(index, NOTHING), one)
        store.bucket_values["", tier_s] = {index: pack(bucket) for index, bucket in tier.items()}
    return store


def seen(emotion: int, faces: int = 1, sampled: int = 5) -> Bucket:
    sums = tuple(65_535 * faces if at == emotion else 0 for at in range(7))
    return Bucket(sampled, (0, 0, 0, 0), faces, faces, sums, sums, tuple(faces if at == emotion else 0 for at in range(7)), 0)


def ask(
    store: StubTimelineStore,
    from_s: int | None = None,
    to_s: int | None = None,
    resolution_s: int | None = None,
    max_points: int | None = None,
    lane: StreamClass = StreamClass.FILE,
    limit: int = 5000,
) -> TimelineAnswer:
    query = TimelineQuery(
        from_us=None if from_s is None else (START_S + from_s) * S,
        to_us=None if to_s is None else (START_S + to_s) * S,
        resolution_s=resolution_s,
        max_points=max_points,
    )
    return timeline(store, "s", lane, query, limit)


MINUTES = {offset: seen(3 if offset < 60 else 4) for offset in range(120)}


@pytest.mark.parametrize(
    ("max_points", "resolution_s", "points"),
    [(5000, 1, 120), (120, 1, 120), (119, 10, 12), (12, 10, 12), (11, 60, 2), (2, 60, 2)],
)
def test_the_finest_level_that_gives_few_enough_points_answers(max_points: int, resolution_s: int, points: int) -> None:
    answer = ask(fill(MINUTES), max_points=max_points)
    assert (answer.resolution_s, answer.tier_s, len(answer.points)) == (resolution_s, resolution_s, points)
    assert answer.from_us == START_S * S
    assert answer.to_us == (START_S + 120) * S


def test_very_long_windows_get_points_of_several_hours() -> None:
    store = fill({0: seen(3), 100 * 86_400: seen(4)})
    answer = ask(store, max_points=50)
    assert len(answer.points) <= 50
    assert answer.resolution_s % 3600 == 0
    assert sum(point.faces for point in answer.points) == 2


def test_levels_are_merged_to_any_multiple() -> None:
    answer = ask(fill(MINUTES), 0, 120, resolution_s=30)
    assert answer.tier_s == 10
    assert [point.faces for point in answer.points] == [30, 30, 30, 30]
    assert [point.reading.dominant for point in answer.points if point.reading] == ["happy", "happy", "sad", "sad"]
    assert ask(fill(MINUTES), 0, 120, resolution_s=7).tier_s == 1
    assert ask(fill(MINUTES), 0, 120, resolution_s=120).tier_s == 60


@settings(max_examples=40)
@given(
    st.dictionaries(st.integers(0, 4000), st.integers(0, 6), min_size=1, max_size=40),
    st.sampled_from([1, 2, 10, 30, 60, 90, 600, 1200, 3600, 7200]),
)
def test_every_resolution_tells_the_same_story(seconds: dict[int, int], resolution_s: int) -> None:
    store = fill({offset: seen(emotion) for offset, emotion in seconds.items()})
    answer = ask(store, 0, 4001, resolution_s=resolution_s)
    assert answer.resolution_s == resolution_s
    assert answer.summary.faces == len(seconds)
    assert answer.summary.reading is not None
    assert answer.summary.reading.shares == tuple(
        sum(emotion == which for emotion in seconds.values()) / len(seconds) for which in range(7)
    )
    for point in answer.points:
        inside = [o for o in seconds if point.start_us <= (START_S + o) * S < point.start_us + resolution_s * S]
        assert point.faces == len(inside)


def test_points_lie_on_a_grid_that_does_not_depend_on_the_window() -> None:
    answer = ask(fill(MINUTES), 5, 25, resolution_s=10)
    assert [point.start_us // S - START_S for point in answer.points] == [0, 10, 20]
    assert (answer.from_us, answer.to_us) == (START_S * S, (START_S + 30) * S)


@pytest.mark.parametrize(
    ("bucket", "lane", "empty"),
    [
        (Bucket(sampled=5), StreamClass.FILE, EmptyReason.NO_FACE),
        (Bucket(sampled=5), StreamClass.LIVE, EmptyReason.NO_FACE),
        (Bucket(sampled=5, skipped=(4, 0, 0, 0)), StreamClass.LIVE, EmptyReason.NO_FACE),
        (Bucket(sampled=5, skipped=(4, 0, 0, 1)), StreamClass.LIVE, EmptyReason.OVERLOADED),
        (None, StreamClass.LIVE, EmptyReason.OFFLINE),
        (None, StreamClass.FILE, EmptyReason.NOT_SAMPLED),
        (seen(6), StreamClass.FILE, None),
    ],
)
def test_emptiness_has_a_reason_and_is_never_neutral(bucket: Bucket | None, lane: StreamClass, empty: EmptyReason | None) -> None:
    seconds = {0: seen(3), 2: seen(3)} | ({1: bucket} if bucket else {})
    point = ask(fill(seconds), 0, 3, resolution_s=1, lane=lane).points[1]
    assert point.empty == empty
    assert (point.reading is None) == (empty is not None)
    assert point.sampled == (bucket.sampled if bucket else 0)


def test_a_point_counts_every_frame_and_skip() -> None:
    point = ask(fill({0: Bucket(sampled=10, skipped=(1, 2, 0, 3))}), 0, 1, resolution_s=1).points[0]
    assert point.skipped == {"expired": 1, "overloaded": 2, "corrupt": 0, "lost": 3}
    assert (point.sampled, point.classified, point.coverage) == (10, 4, 0.4)


def test_probabilities_are_fractions_and_the_leader_of_most_faces_dominates() -> None:
    raw = (0, 0, 0, 65_535, 65_535, 65_535, 65_535)
    smoothed = (0, 0, 0, 2 * 65_535, 65_535, 32_768, 32_767)
    store = fill({0: Bucket(4, (0, 0, 0, 0), 2, 4, raw, smoothed, (0, 0, 0, 1, 2, 0, 1), 3)})
    point = ask(store, 0, 1, resolution_s=1).points[0]
    assert point.reading is not None
    assert point.reading.raw == (0, 0, 0, 0.25, 0.25, 0.25, 0.25)
    assert point.reading.smoothed[3] == 0.5
    assert sum(point.reading.smoothed) == 1
    assert point.reading.shares == (0, 0, 0, 0.25, 0.5, 0, 0.25)
    assert point.reading.dominant == "sad"
    assert (point.frames_with_faces, point.faces, point.tracks_begun) == (2, 4, 3)


def test_of_equal_shares_the_larger_smoothed_mean_dominates() -> None:
    sums = (0, 0, 0, 60_000, 71_070, 0, 0)
    store = fill({0: Bucket(2, (0, 0, 0, 0), 2, 2, sums, sums, (0, 0, 0, 1, 1, 0, 0), 0)})
    reading = ask(store, 0, 1, resolution_s=1).points[0].reading
    assert reading is not None
    assert reading.dominant == "sad"


def test_points_are_final_up_to_the_open_bucket_also_where_nothing_was_seen() -> None:
    store = fill({0: seen(3), 3: seen(3)}, closed=False)
    answer = ask(store, 0, 6, resolution_s=1)
    assert [point.final for point in answer.points] == [True, True, True, False, False, False]
    assert not answer.summary.final
    # 10 s: its only bucket is open, so nothing but the time before it is settled.
    assert [point.final for point in ask(store, -10, 20, resolution_s=10).points] == [True, False, False]


class MovingStore(StubTimelineStore):
    """A frame arrives between the first and the second question to the store."""

    def __init__(self, before: StubTimelineStore, after: StubTimelineStore) -> None:
        super().__init__()
        self.bucket_values, self.after = before.bucket_values, after.bucket_values

    def read(self, stream_id: str, series: str, tier_s: int, start: int, stop: int) -> list[tuple[int, bytes]]:
        self.bucket_values = self.after
        return super().read(stream_id, series, tier_s, start, stop)


def test_a_point_is_not_called_final_because_a_frame_arrived_while_it_was_read() -> None:
    store = MovingStore(fill({0: seen(3)}, closed=False), fill({0: seen(3), 1: seen(4)}, closed=False))
    points = ask(store, 0, 3, resolution_s=1).points
    assert [point.final for point in points] == [False, False, False]


def test_a_merged_point_is_open_while_its_last_stored_bucket_may_still_come() -> None:
    store = fill({0: seen(3), 10: seen(3)}, closed=False)
    assert [point.final for point in ask(store, 0, 30, resolution_s=30).points] == [False]


def test_everything_is_final_once_the_stream_has_ended() -> None:
    assert all(point.final for point in ask(fill({0: seen(3), 3: seen(3)}), 0, 60, resolution_s=1).points)


def prune(store: StubTimelineStore, tier_s: int, before_s: int) -> None:
    tier = store.bucket_values["", tier_s]
    for index in [index for index in tier if index * tier_s < START_S + before_s]:
        del tier[index]


def test_where_seconds_are_gone_the_next_level_answers() -> None:
    store = fill(MINUTES)
    del store.bucket_values["", 1]
    answer = ask(store, 0, 120, resolution_s=1)
    assert (answer.resolution_s, answer.tier_s, answer.coarser_than_asked) == (10, 10, True)
    assert answer.summary.faces == 120
    assert ask(store, 0, 120, max_points=5000).resolution_s == 10
    assert extent(store, "s") == Extent(START_S * S, (START_S + 120) * S)
    assert not ask(store, 0, 120, max_points=5000).coarser_than_asked


def test_where_only_old_seconds_are_gone_new_windows_stay_fine() -> None:
    store = fill(MINUTES)
    prune(store, 1, before_s=60)
    assert ask(store, 60, 120, resolution_s=1).resolution_s == 1
    barely = fill(MINUTES)
    prune(barely, 1, before_s=10)
    assert ask(barely, 0, 120, resolution_s=1).resolution_s == 10
    assert ask(barely, 0, 120, resolution_s=30).summary.faces == 120
    assert ask(store, 30, 120, resolution_s=1).resolution_s == 10
    assert ask(store, 30, 120, max_points=5000).resolution_s == 10
    assert ask(store, 0, 120, resolution_s=30).summary.faces == 120


def test_a_resolution_that_no_remaining_level_divides_becomes_the_next_coarser_level() -> None:
    store = fill(MINUTES)
    for tier_s in (1, 10):
        del store.bucket_values["", tier_s]
    answer = ask(store, 0, 120, resolution_s=7)
    assert (answer.resolution_s, answer.summary.faces) == (60, 120)
    assert ask(store, 0, 120, resolution_s=90).resolution_s == 600


def test_open_ends_are_where_the_timeline_begins_and_ends() -> None:
    store = fill({5: seen(3), 64: seen(3)})
    assert extent(store, "s") == Extent((START_S + 5) * S, (START_S + 65) * S)
    assert len(ask(store).points) == 60
    assert len(ask(store, from_s=60).points) == 5
    assert ask(store, from_s=1000).points == []


def test_a_stream_without_a_timeline_has_no_points_unless_both_ends_are_given() -> None:
    empty = StubTimelineStore()
    assert extent(empty, "s") is None
    assert ask(empty).points == []
    assert ask(empty).summary.empty is EmptyReason.NOT_SAMPLED
    answer = ask(empty, 0, 30, resolution_s=10, lane=StreamClass.LIVE)
    assert [point.empty for point in answer.points] == [EmptyReason.OFFLINE] * 3
    assert not any(point.final for point in answer.points)


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"from_s": 10, "to_s": 5}, "from"),
        ({"from_s": 10, "to_s": 10}, "from"),
        ({"resolution_s": 0}, "resolution"),
        ({"resolution_s": -1}, "resolution"),
        ({"max_points": 1}, "max_points"),
        ({"max_points": 5001}, "max_points"),
        ({"from_s": 0, "to_s": 5001, "resolution_s": 1}, "resolution"),
        ({"from_s": 0, "to_s": 120, "resolution_s": 1, "limit": 100}, "resolution"),
    ],
)
def test_bad_questions_are_refused_and_the_parameter_named(arguments: dict[str, int], field: str) -> None:
    with pytest.raises(QueryError) as caught:
        ask(fill(MINUTES), **arguments)  # type: ignore[arg-type]
    assert caught.value.field == field


def test_a_resolution_that_would_read_too_many_cells_is_refused() -> None:
    store = fill({0: seen(3), 30 * 86_400: seen(3)})
    with pytest.raises(QueryError, match="reads too much"):
        ask(store, resolution_s=601)
    assert ask(store, resolution_s=600).summary.faces == 2


def add_track(store: StubTimelineStore, track_id: int, offset_s: int, seconds: int, emotion: int = 3, ended: bool = True) -> None:
    one = seen(emotion, faces=5)
    bucket = TrackBucket(5, one.smoothed, one.leading)
    total = TrackBucket(5 * seconds, tuple(v * seconds for v in one.smoothed), tuple(v * seconds for v in one.leading))
    first_us = (START_S + offset_s) * S
    summary = TrackSummary(first_us, first_us + seconds * S - 1, total, ended)
    store.bucket_values.setdefault(("tracks", 0), {})[track_id] = pack_track_summary(summary)
    store.bucket_values[track_series(track_id), 1] = {START_S + offset_s + n: pack_track_bucket(bucket) for n in range(seconds)}


def make_tracks() -> StubTimelineStore:
    store = StubTimelineStore()
    for track_id, offset_s in ((1, 0), (2, 10), (3, 20)):
        add_track(store, track_id, offset_s, seconds=15, emotion=2 + track_id, ended=track_id < 3)
    return store


def test_tracks_are_listed_with_what_they_showed() -> None:
    first, _, third = track_list(make_tracks(), "s")
    assert (first.track_id, first.first_us, first.faces, first.ended) == (1, START_S * S, 75, True)
    assert first.reading.dominant == "happy"
    assert first.reading.smoothed[3] == first.reading.shares[3] == 1.0
    assert (third.reading.dominant, third.ended) == ("surprise", False)


def test_tracks_are_paged_and_clipped_to_a_window() -> None:
    store = make_tracks()

    def listed(**arguments: object) -> list[int]:
        return [track.track_id for track in track_list(store, "s", **arguments)]  # type: ignore[arg-type]

    assert listed(limit=2) == [1, 2]
    assert listed(after=2, limit=2) == [3]
    assert listed(window=Extent((START_S + 15) * S, (START_S + 20) * S)) == [2]
    assert listed(window=Extent((START_S + 14) * S, (START_S + 20) * S + 1)) == [1, 2, 3]
    for arguments, field in (({"after": -1}, "after"), ({"limit": 0}, "limit")):
        with pytest.raises(QueryError) as caught:
            listed(**arguments)
        assert caught.value.field == field


def test_a_track_has_a_timeline_of_its_own() -> None:
    answer = track_timeline(make_tracks(), "s", 2, TimelineQuery(resolution_s=10))
    assert [(point.start_us // S - START_S, point.faces) for point in answer.points] == [(10, 50), (20, 25)]
    assert answer.points[0].reading is not None
    assert answer.points[0].reading.dominant == "sad"
    assert answer.track.track_id == 2
    assert (answer.from_us, answer.to_us) == ((START_S + 10) * S, (START_S + 30) * S)
    assert track_timeline(make_tracks(), "s", 2, TimelineQuery(max_points=3)).resolution_s == 10


def test_a_track_window_is_clipped_to_its_life_and_gaps_have_no_reading() -> None:
    store = make_tracks()
    del store.bucket_values[track_series(2), 1][START_S + 12]
    window = TimelineQuery(from_us=(START_S + 11) * S, to_us=(START_S + 14) * S, resolution_s=1)
    answer = track_timeline(store, "s", 2, window)
    assert [point.reading is None for point in answer.points] == [False, True, False]
    assert track_timeline(store, "s", 2, TimelineQuery(from_us=(START_S + 500) * S)).points == []


def test_an_unknown_track_is_an_error_of_its_own() -> None:
    for track_id in (0, -1, 4):
        with pytest.raises(TrackNotFoundError):
            track_timeline(make_tracks(), "s", track_id, TimelineQuery())
