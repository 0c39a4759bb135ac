"""Which model made which point: what is stored, and what a question answers."""

from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moodline.services.aggregator.stream import StreamTimeline
from moodline.shared.bus.base import Position
from moodline.shared.errors import StoreError
from moodline.shared.messages import DropReason, Emotions, StreamClass
from moodline.shared.settings import AggregatorSettings
from moodline.shared.store import BucketValue, HighWaterMark, TimelineUpdate, dump
from moodline.shared.store.bucket_values import kept_s
from moodline.shared.store.sqlite import SqliteStore
from moodline.shared.timeline import MODELS_SERIES, MODELS_TIER_S, TIERS_S, ModelLabels, TimelineQuery, timeline, unpack_models
from moodline.shared.timeline.models import CHANGES_LIMIT, ModelDay, pack_models, record_model
from moodline.shared.timeline.state import STATE_VERSION
from tests.support.stores import RETENTION, spec

S = 1_000_000
NOON_S = 1_777_636_800
SETTINGS = AggregatorSettings()


def frame(second: float, model: str, skip: DropReason | None = None) -> Emotions:
    return Emotions(
        stream_id="a",
        epoch=1,
        seq=0,
        event_time_us=int((NOON_S + second) * S),
        captured_at_us=0,
        lane=StreamClass.FILE,
        width=1,
        height=1,
        skip=skip,
        model=model,
    )


def models_of(bucket_values: tuple[BucketValue, ...]) -> dict[int, list[tuple[int, int, str]]]:
    return {
        bucket_value.index: unpack_models(bucket_value.value)
        for bucket_value in bucket_values
        if bucket_value.series == MODELS_SERIES
    }


def test_a_change_is_written_where_it_happens_and_only_there() -> None:
    growing = StreamTimeline(SETTINGS)
    growing.add(frame(0, "a"))
    assert models_of(growing.take_values()) == {NOON_S // 86_400: [(NOON_S, NOON_S, "a")]}
    growing.add(frame(5, "a"))
    assert models_of(growing.take_values()) == {}
    growing.add(frame(9, "b"))
    changes = [(NOON_S, NOON_S, "a"), (NOON_S + 9, NOON_S + 5, "b")]
    assert models_of(growing.take_values()) == {NOON_S // 86_400: changes}
    growing.add(frame(86_400, "b"))
    assert models_of(growing.take_values()) == {NOON_S // 86_400 + 1: [(NOON_S + 86_400, NOON_S + 9, "b")]}


def test_skipped_frames_and_frames_of_older_classifiers_name_no_model() -> None:
    growing = StreamTimeline(SETTINGS)
    growing.add(frame(0, "", DropReason.EXPIRED))
    growing.add(frame(1, ""))
    assert models_of(growing.take_values()) == {}


def test_going_on_from_a_saved_state_writes_the_same_cells() -> None:
    frames = [frame(0, "a"), frame(1, "a"), frame(1.5, "b"), frame(4, "b"), frame(90_000, "b"), frame(90_001, "a")]
    whole, bucket_values = StreamTimeline(SETTINGS), []
    for each in frames:
        whole.add(each)
        bucket_values.append(whole.take_values())
    state = b""
    for each, expected in zip(frames, bucket_values, strict=True):
        part = StreamTimeline(SETTINGS, state)
        part.add(each)
        assert part.take_values() == expected
        state = part.save()
    assert state == whole.save()


def test_a_state_of_the_version_before_is_read_and_goes_on() -> None:
    growing = StreamTimeline(SETTINGS)
    growing.add(frame(0, ""))
    fields = msgspec.msgpack.decode(growing.save()[1:])
    old = b"\x01" + msgspec.msgpack.encode(fields[:4])  # it ended before the models
    assert len(fields) == 6
    restored = StreamTimeline(SETTINGS, old)
    restored.add(frame(1, "a"))
    assert models_of(restored.take_values()) == {NOON_S // 86_400: [(NOON_S + 1, NOON_S + 1, "a")]}
    assert restored.save()[0] == STATE_VERSION == 3
    with pytest.raises(StoreError, match="version 4"):
        StreamTimeline(SETTINGS, b"\x04" + old[1:])


def test_taking_turns_within_a_second_or_for_a_day_stays_bounded() -> None:
    day: ModelDay | None = None
    for turn in range(50):
        day, _ = record_model(day, "ab"[turn % 2], NOON_S)
    assert day is not None
    assert day.changes == [(NOON_S, NOON_S, "a"), (NOON_S, NOON_S, "b")]
    for turn in range(2 * CHANGES_LIMIT):
        day, _ = record_model(day, "ab"[turn % 2], NOON_S + turn)
    assert len(day.changes) == CHANGES_LIMIT


STEPS = st.lists(st.tuples(st.sampled_from([0, 1, 7, 3600, 50_000, 200_000]), st.sampled_from("abc")), min_size=1, max_size=25)


@settings(max_examples=200, deadline=None)
@given(STEPS, st.integers(-10, 1_000_000), st.sampled_from([1, 10, 60, 3600, 86_400, 172_800]))
def test_a_window_is_labelled_with_exactly_the_models_that_saw_its_frames(
    steps: list[tuple[int, str]], offset: int, length: int
) -> None:
    # One model a second: within a second the order of turns is not kept.
    frames: dict[int, str] = {}
    second, days, day = NOON_S, {}, None
    for step, name in steps:
        second += step
        frames.setdefault(second, name)
        day, _ = record_model(day, frames[second], second)
        days[day.day] = pack_models(day)
    start = NOON_S + offset
    own = range(start // MODELS_TIER_S, -(-(start + length) // MODELS_TIER_S))
    labels = ModelLabels([change for index in sorted(days) if index in own for change in unpack_models(days[index])])
    expected = list(dict.fromkeys(name for at, name in sorted(frames.items()) if start <= at < start + length))
    if expected:
        assert list(labels.between(start, start + length)) == expected


def test_points_name_their_models_and_empty_ones_none(tmp_path: Path) -> None:
    growing = StreamTimeline(SETTINGS)
    frames = [frame(0, "old"), frame(1, "", DropReason.CORRUPT), frame(2, "old"), frame(4, "new"), frame(5, "new")]
    for each in frames:
        growing.add(each)
    growing.close(frames[-1].event_time_us)
    store = SqliteStore(f"sqlite:///{tmp_path}/a.db", RETENTION)
    store.add(spec("a"))
    epoch = store.acquire("a", 0).epoch
    update = TimelineUpdate(
        stream_id="a",
        expected=None,
        high_water_mark=HighWaterMark(epoch, 4),
        final=True,
        position=Position("t", 0, 4),
        state=b"",
        last_event_time_us=frames[-1].event_time_us,
        bucket_values=growing.take_values(),
    )
    store.apply([update])
    answer = timeline(store, "a", StreamClass.FILE, TimelineQuery(resolution_s=1))
    assert [point.models for point in answer.points] == [("old",), (), ("old",), (), ("new",), ("new",)]
    assert answer.summary.models == ("old", "new")
    halves = timeline(store, "a", StreamClass.FILE, TimelineQuery(resolution_s=3)).points
    assert [point.models for point in halves] == [("old",), ("new",)]
    assert b"models" in dump(store, "a", TIERS_S)
    store.close()


def test_the_record_lives_as_long_as_the_longest_points() -> None:
    assert kept_s(RETENTION, MODELS_TIER_S) == max(RETENTION.tiers.values())


@pytest.mark.parametrize("value", [b"", b"\x00", b"\x90", pack_models(ModelDay(0, 0, []))[:-1] + b"\xc1", b"\x92\x02\x90"])
def test_a_damaged_record_is_a_typed_error(value: bytes) -> None:
    with pytest.raises(StoreError, match="list of models"):
        unpack_models(value)
