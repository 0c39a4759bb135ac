"""What the aggregator does with each message: marks, fences, gaps, segments, ends."""

from collections.abc import Sequence

import msgspec
import pytest

from moodline.services.aggregator.stage import AggregatorStage
from moodline.shared.bus.base import Position
from moodline.shared.errors import MessageError, StoreError, StoreUnavailableError
from moodline.shared.messages import DropReason, Emotions, End, FaceEmotion, Frame, Message, StreamClass
from moodline.shared.metrics import Metrics
from moodline.shared.pipeline.stage import Apply, Output, Received, Rewind
from moodline.shared.settings import AggregatorSettings
from moodline.shared.store.base import HighWaterMark, Progress, TimelineUpdate
from moodline.shared.timeline import Bucket, unpack, unpack_track_summary

TOPIC = {StreamClass.FILE: "moodline.emotions.file.v1", StreamClass.LIVE: "moodline.emotions.live.v1"}
HAPPY = (0, 0, 0, 65_535, 0, 0, 0)
START_US = 1_777_636_800_000_000
FACE = FaceEmotion((0, 0, 10_000, 10_000), 60_000, HAPPY)


def frame(
    seq: int,
    stream_id: str = "a",
    epoch: int = 10,
    lane: StreamClass = StreamClass.FILE,
    time_ms: int | None = None,
    faces: int = 1,
    skip: DropReason | None = None,
) -> Emotions:
    at_us = START_US + (seq * 200 if time_ms is None else time_ms) * 1000
    return Emotions(
        stream_id=stream_id,
        epoch=epoch,
        seq=seq,
        event_time_us=at_us,
        captured_at_us=at_us,
        lane=lane,
        width=64,
        height=64,
        faces=() if skip else (FACE,) * faces,
        skip=skip,
    )


def end(seq: int, epoch: int = 10, lane: StreamClass = StreamClass.FILE) -> End:
    at_us = START_US + seq * 200_000
    return End(stream_id="a", epoch=epoch, seq=seq, event_time_us=at_us, captured_at_us=at_us, lane=lane)


class World:
    """A stage over a plain dictionary of progress; every update is taken as applied."""

    def __init__(self, *stream_ids: str, cache_streams: int = 100) -> None:
        self.progress: dict[str, Progress] = {stream_id: Progress(min_epoch=5) for stream_id in stream_ids or ("a",)}
        self.loads: list[list[str]] = []
        self.metrics = Metrics()
        self.stage = AggregatorStage(self._load, AggregatorSettings(), self.metrics, cache_streams)
        self.offset = 0
        self.buckets: dict[tuple[int, int], Bucket] = {}
        self.now_s = START_US / 1e6

    def _load(self, stream_ids: Sequence[str]) -> list[Progress | None]:
        self.loads.append(list(stream_ids))
        return [self.progress.get(stream_id) for stream_id in stream_ids]

    def receive(self, *messages: Message, offset: int | None = None, partition: int = 0) -> list[Output]:
        """Process messages at the next offsets, or from `offset` on."""
        at = self.offset if offset is None else offset
        batch = [Received(m, Position(TOPIC[m.lane], partition, at + n)) for n, m in enumerate(messages)]
        self.offset = max(self.offset, at + len(messages))
        outputs = self.stage.process(batch, self.now_s)
        for output in outputs:
            if isinstance(output, Apply):
                self._apply(output.update)
        return outputs

    def _apply(self, update: TimelineUpdate) -> None:
        min_epoch = self.progress[update.stream_id].min_epoch
        self.progress[update.stream_id] = Progress(
            high_water_mark=update.high_water_mark,
            final=update.final,
            position=update.position,
            state=update.state,
            min_epoch=min_epoch,
            last_event_time_us=update.last_event_time_us,
        )
        for bucket_value in update.bucket_values:
            if bucket_value.series == "":
                self.buckets[bucket_value.tier_s, bucket_value.index] = unpack(bucket_value.value)

    def dropped(self, reason: str) -> float:
        return self.metrics.registry.get_sample_value("moodline_frames_dropped_total", {"reason": reason}) or 0.0

    def total(self) -> Bucket:
        """The hour's bucket."""
        return next(bucket for (tier_s, _), bucket in self.buckets.items() if tier_s == 3600)


def updates(outputs: list[Output]) -> list[TimelineUpdate]:
    return [output.update for output in outputs if isinstance(output, Apply)]


def rewinds(outputs: list[Output]) -> list[Position]:
    return [output.position for output in outputs if isinstance(output, Rewind)]


def test_a_batch_is_one_update_per_stream_based_on_the_mark_before_it() -> None:
    world = World("a", "b")
    first = updates(world.receive(frame(0), frame(0, "b"), frame(1), frame(2)))
    assert [(u.stream_id, u.expected, u.high_water_mark, u.position.offset) for u in first] == [
        ("a", None, HighWaterMark(10, 2), 3),
        ("b", None, HighWaterMark(10, 0), 1),
    ]
    (second,) = updates(world.receive(frame(3)))
    assert (second.expected, second.high_water_mark) == (HighWaterMark(10, 2), HighWaterMark(10, 3))
    assert second.last_event_time_us == START_US + 600_000
    assert not second.final
    assert world.loads == [["a", "b"]]


def test_cells_are_absolute_and_closed_buckets_are_written_once_more() -> None:
    world = World()
    world.receive(*[frame(seq) for seq in range(3)])
    (update,) = updates(world.receive(*[frame(seq) for seq in range(3, 6)]))
    second = START_US // 1_000_000
    bucket_values = {
        (bucket_value.series, bucket_value.tier_s, bucket_value.index): bucket_value.value
        for bucket_value in update.bucket_values
    }
    assert unpack(bucket_values["", 1, second]).sampled == 5
    assert unpack(bucket_values["", 1, second]).final
    assert unpack(bucket_values["", 1, second + 1]).sampled == 1
    assert not unpack(bucket_values["", 1, second + 1]).final
    assert unpack(bucket_values["", 10, second // 10]).sampled == 6
    assert not unpack(bucket_values["", 10, second // 10]).final
    assert len(bucket_values) == len(update.bucket_values)
    assert unpack_track_summary(bucket_values["tracks", 0, 1]).seen.faces == 6


def test_a_closed_bucket_is_never_written_again() -> None:
    world = World()
    world.receive(*[frame(seq) for seq in range(6)])
    (update,) = updates(world.receive(frame(6)))
    assert START_US // 1_000_000 not in {
        bucket_value.index for bucket_value in update.bucket_values if bucket_value.tier_s == 1 and bucket_value.series == ""
    }


def test_duplicates_are_dropped_and_change_nothing() -> None:
    world = World()
    world.receive(frame(0), frame(1))
    assert world.receive(frame(0), frame(1), frame(1, epoch=11), offset=0) == []
    assert world.dropped("duplicate") == 3
    assert world.total().sampled == 2


def test_a_newer_session_of_a_file_goes_on_after_the_mark() -> None:
    world = World()
    world.receive(frame(0), frame(1))
    (update,) = updates(world.receive(frame(1, epoch=20), frame(2, epoch=20)))
    assert update.high_water_mark == HighWaterMark(20, 2)
    assert updates(world.receive(frame(3, epoch=10))) == []
    assert world.dropped("fenced") == 1
    assert world.total().tracks_begun == 1


def test_frames_of_a_former_stream_of_the_same_name_are_fenced() -> None:
    world = World()
    assert world.receive(frame(0, epoch=4)) == []
    assert world.dropped("fenced") == 1
    assert len(updates(world.receive(frame(0, epoch=5)))) == 1


def test_a_stream_registered_again_starts_anew() -> None:
    world = World()
    world.receive(frame(0), frame(1), end(2))
    world.progress["a"] = Progress(min_epoch=50)
    (update,) = updates(world.receive(frame(2, epoch=10), frame(0, epoch=60)))
    assert (update.expected, update.high_water_mark) == (None, HighWaterMark(60, 0))
    assert world.dropped("fenced") == 1


def test_unknown_streams_are_dropped_and_asked_for_again_once_a_second() -> None:
    world = World("b")
    for now_s in (100.0, 100.5, 100.9):
        world.now_s = now_s
        assert world.receive(frame(0)) == []
    assert world.loads == [["a"]]
    assert world.dropped("unknown") == 3
    world.progress["a"] = Progress()
    world.now_s = 101.0
    assert len(updates(world.receive(frame(0)))) == 1
    assert world.loads == [["a"], ["a"]]


def test_a_gap_in_a_file_reads_again_right_after_the_mark_and_heals() -> None:
    world = World()
    world.receive(frame(0), frame(1))
    assert rewinds(world.receive(frame(4), frame(5), offset=4)) == [Position(TOPIC[StreamClass.FILE], 0, 2)]
    assert world.dropped("gap") == 2
    (update,) = updates(world.receive(*[frame(seq) for seq in range(2, 6)], offset=2))
    assert update.high_water_mark == HighWaterMark(10, 5)
    assert world.total().sampled == 6


def test_nothing_is_ever_added_after_a_hole_in_a_file() -> None:
    world = World()
    world.receive(frame(0), frame(1))
    world.receive(frame(3), offset=3)
    # Read again: the hole is really there.
    assert world.receive(frame(3), frame(4), offset=3) == []
    assert world.receive(frame(5)) == []
    assert world.dropped("gap") == 4
    # The reader sends it again under a new epoch.
    assert updates(world.receive(*[frame(seq, epoch=11) for seq in range(2, 6)]))[0].high_water_mark == HighWaterMark(11, 5)
    assert world.total().sampled == 6
    assert world.total().skipped == (0, 0, 0, 0)


def times(outputs: list[Output]) -> list[tuple[Position, int | None]]:
    return [(output.position, output.since_ms) for output in outputs if isinstance(output, Rewind)]


ACQUIRED_MS = START_US // 1000 - 5000
"""An epoch that began 5 s before the streams' first frames."""
MARGIN_MS = 60_000


@pytest.mark.parametrize("ahead_ms", [0, 3_600_000, -3_600_000])
def test_a_gap_before_the_first_frame_reads_again_from_the_claim_on_whatever_the_clock_of_the_bus_says(ahead_ms: int) -> None:
    world = World()
    message, produced_ms = frame(3, epoch=ACQUIRED_MS), START_US // 1000 + 900 + ahead_ms
    place = Position(TOPIC[StreamClass.FILE], 0, 100)
    outputs = world.stage.process([Received(message, place, produced_ms)], world.now_s)
    # Captured 5.6 s after the acquisition.
    assert times(outputs) == [(place, produced_ms - 5600 - MARGIN_MS)]


def test_a_session_number_ahead_of_its_claim_does_not_move_the_rewind_forward() -> None:
    world = World()
    world.progress["a"] = Progress(min_epoch=5, epoch=2 * ACQUIRED_MS)
    assert times(world.receive(frame(3, epoch=2 * ACQUIRED_MS), offset=100)) == [
        (Position(TOPIC[StreamClass.FILE], 0, 100), START_US // 1000 + 600 - MARGIN_MS)
    ]


def test_a_mark_from_another_partition_or_beyond_says_nothing_about_where_to_read() -> None:
    since_ms = ACQUIRED_MS - MARGIN_MS
    world = World()
    world.receive(frame(0, epoch=ACQUIRED_MS), offset=50)
    outputs = world.receive(frame(2, epoch=ACQUIRED_MS), offset=99, partition=1)
    assert times(outputs) == [(Position(TOPIC[StreamClass.FILE], 1, 99), since_ms)]
    again = World()
    again.receive(frame(0, epoch=ACQUIRED_MS), offset=50)
    assert times(again.receive(frame(2, epoch=ACQUIRED_MS), offset=7)) == [(Position(TOPIC[StreamClass.FILE], 0, 7), since_ms)]


def test_of_a_live_stream_nothing_before_its_last_frame_is_missing() -> None:
    world = World()
    world.receive(frame(0, lane=StreamClass.LIVE, epoch=ACQUIRED_MS), offset=50)
    outputs = world.receive(frame(2, lane=StreamClass.LIVE, epoch=ACQUIRED_MS), offset=7)
    assert times(outputs) == [(Position(TOPIC[StreamClass.LIVE], 0, 7), START_US // 1000 - MARGIN_MS)]


def test_a_stream_that_is_registered_again_within_a_second_has_no_hole() -> None:
    world = World("other")
    world.receive(frame(7, epoch=ACQUIRED_MS))
    assert world.dropped("unknown") == 1
    world.receive(frame(8, epoch=ACQUIRED_MS))
    assert world.loads == [["a"]], "what is not registered is asked for once a second"
    world.progress["a"] = Progress(min_epoch=ACQUIRED_MS + 100)
    # No second has passed, and its first frames under the new acquisition arrive.
    outputs = world.receive(frame(0, epoch=ACQUIRED_MS + 200), frame(1, epoch=ACQUIRED_MS + 200))
    assert updates(outputs)[0].high_water_mark == HighWaterMark(ACQUIRED_MS + 200, 1)
    assert rewinds(outputs) == []


def test_gaps_of_one_partition_are_one_rewind_to_the_smallest_offset() -> None:
    world = World("a", "b")
    world.receive(frame(0, "b"), frame(0))
    outputs = world.receive(frame(5, "b"), frame(5), offset=20)
    assert rewinds(outputs) == [Position(TOPIC[StreamClass.FILE], 0, 1)]


def test_a_rewind_that_did_not_show_the_hole_again_is_given_up_after_some_seconds() -> None:
    world = World()
    world.receive(frame(0, lane=StreamClass.LIVE))
    world.receive(frame(2, lane=StreamClass.LIVE), offset=10)
    world.now_s += 4.9
    assert world.receive(frame(3, lane=StreamClass.LIVE), offset=11) == []
    world.now_s += 0.1
    (update,) = updates(world.receive(frame(4, lane=StreamClass.LIVE), offset=12))
    assert update.high_water_mark == HighWaterMark(10, 4)
    assert world.total().skipped == (0, 0, 0, 3)


def test_a_hole_in_a_live_stream_is_counted_after_one_rewind() -> None:
    world = World()
    world.receive(frame(0, lane=StreamClass.LIVE))
    assert rewinds(world.receive(frame(3, lane=StreamClass.LIVE), frame(4, lane=StreamClass.LIVE), offset=5)) == [
        Position(TOPIC[StreamClass.LIVE], 0, 1)
    ]
    outputs = world.receive(frame(3, lane=StreamClass.LIVE), frame(4, lane=StreamClass.LIVE), offset=5)
    assert rewinds(outputs) == []
    assert updates(outputs)[0].high_water_mark == HighWaterMark(10, 4)
    assert world.total().sampled == 5
    assert world.total().skipped == (0, 0, 0, 2)
    lost = {"worker": "aggregator", "lane": "live", "reason": "lost"}
    assert world.metrics.registry.get_sample_value("moodline_frames_skipped_total", lost) == 2


def test_a_new_session_of_a_live_stream_is_a_new_segment() -> None:
    world = World()
    world.receive(frame(0, lane=StreamClass.LIVE), frame(1, lane=StreamClass.LIVE))
    (update,) = updates(world.receive(frame(0, epoch=20, lane=StreamClass.LIVE, time_ms=400)))
    assert update.high_water_mark == HighWaterMark(20, 0)
    assert world.total().tracks_begun == 2
    summaries = {c.index: unpack_track_summary(c.value) for c in update.bucket_values if c.series == "tracks"}
    assert (summaries[1].ended, summaries[2].ended) == (True, False)
    assert world.receive(frame(2, epoch=10, lane=StreamClass.LIVE)) == []
    assert world.dropped("fenced") == 1


def test_a_segment_waits_while_the_one_before_has_a_hole_that_may_still_heal() -> None:
    world = World()
    world.receive(frame(0, lane=StreamClass.LIVE))
    outputs = world.receive(frame(2, lane=StreamClass.LIVE), frame(0, epoch=20, lane=StreamClass.LIVE, time_ms=900), offset=2)
    assert updates(outputs) == []
    assert len(rewinds(outputs)) == 1
    again = [
        frame(1, lane=StreamClass.LIVE),
        frame(2, lane=StreamClass.LIVE),
        frame(0, epoch=20, lane=StreamClass.LIVE, time_ms=900),
    ]
    assert updates(world.receive(*again, offset=1))[0].high_water_mark == HighWaterMark(20, 0)
    assert (world.total().sampled, world.total().skipped) == (4, (0, 0, 0, 0))


def test_frames_missing_at_the_start_of_a_live_session_are_counted() -> None:
    world = World()
    world.receive(frame(3, lane=StreamClass.LIVE), offset=0)
    world.receive(frame(3, lane=StreamClass.LIVE), offset=0)
    assert (world.total().sampled, world.total().skipped) == (4, (0, 0, 0, 3))


def test_skipped_frames_are_counted_by_reason() -> None:
    world = World()
    world.receive(frame(0), frame(1, skip=DropReason.EXPIRED), frame(2, skip=DropReason.CORRUPT), frame(3, faces=0))
    total = world.total()
    assert (total.sampled, total.classified, total.skipped, total.frames_with_faces) == (4, 2, (1, 0, 1, 0), 1)


def test_event_time_that_goes_back_counts_at_the_last_time() -> None:
    world = World()
    world.receive(frame(0, time_ms=5000), frame(1, time_ms=0))
    assert [index for (tier_s, index) in world.buckets if tier_s == 1] == [START_US // 1_000_000 + 5]
    assert world.progress["a"].last_event_time_us == START_US + 5_000_000


@pytest.mark.parametrize("lane", list(StreamClass))
def test_the_end_closes_everything_and_nothing_comes_after_it(lane: StreamClass) -> None:
    world = World()
    (update,) = updates(world.receive(frame(0, lane=lane), frame(1, lane=lane), end(2, lane=lane)))
    assert update.final
    assert update.high_water_mark == HighWaterMark(10, 2)
    assert update.state == b""
    assert all(bucket.final for bucket in world.buckets.values())
    assert all(unpack_track_summary(c.value).ended for c in update.bucket_values if c.series == "tracks")
    late = [frame(1, lane=lane), end(2, lane=lane), frame(3, lane=lane), frame(3, epoch=20, lane=lane)]
    assert world.receive(*late) == []
    assert world.dropped("duplicate") == 4
    world.stage.on_refused(frozenset({"a"}))
    assert world.receive(*late) == []


def test_an_empty_file_ends_without_a_bucket() -> None:
    world = World()
    (update,) = updates(world.receive(end(0)))
    assert (update.final, update.high_water_mark, update.bucket_values) == (True, HighWaterMark(10, 0), ())


def test_revoked_partitions_are_forgotten_and_others_kept() -> None:
    world = World("a", "b")
    world.receive(frame(0), partition=0)
    world.receive(frame(0, "b"), partition=1)
    world.stage.on_revoked(frozenset({(TOPIC[StreamClass.FILE], 0)}))
    world.receive(frame(1), partition=0)
    world.receive(frame(1, "b"), partition=1)
    assert world.loads == [["a"], ["b"], ["a"]]


def test_a_stream_belongs_to_the_partition_that_it_last_came_from() -> None:
    world = World()
    world.receive(frame(0), partition=0)
    world.receive(frame(1), partition=1)
    world.stage.on_revoked(frozenset({(TOPIC[StreamClass.FILE], 1)}))
    world.receive(frame(2), partition=1)
    assert world.loads == [["a"], ["a"]]


def test_the_cache_is_bounded_and_the_least_recent_goes_first() -> None:
    world = World("a", "b", "c", cache_streams=2)
    world.receive(frame(0), frame(0, "b"), frame(1), frame(0, "c"))
    world.receive(frame(2))
    world.receive(frame(1, "b"))
    assert world.loads == [["a", "b", "c"], ["b"]]
    assert world.progress["b"].high_water_mark == HighWaterMark(10, 1)


def test_a_state_that_cannot_be_read_is_an_error() -> None:
    world = World()
    world.receive(frame(0))
    good = world.progress["a"]
    for state, says in ((b"\x09" + good.state[1:], "version 9"), (good.state[:-1], "damaged"), (b"", "no aggregator state")):
        world.progress["a"] = msgspec.structs.replace(good, state=state)
        world.stage.on_refused(frozenset({"a"}))
        with pytest.raises(StoreError, match=says):
            world.receive(frame(1))


def test_a_store_out_of_reach_is_passed_on_and_leaves_nothing_behind() -> None:
    world = World()

    def fail(_: Sequence[str]) -> list[Progress | None]:
        raise StoreUnavailableError("gone")

    world.stage._load = fail
    with pytest.raises(StoreUnavailableError):
        world.receive(frame(0))
    world.stage._load = world._load
    assert updates(world.receive(frame(0)))[0].high_water_mark == HighWaterMark(10, 0)


def test_messages_of_another_hop_are_refused() -> None:
    stray = Frame(stream_id="a", epoch=10, seq=0, event_time_us=0, captured_at_us=0, lane=StreamClass.FILE, width=1, height=1)
    with pytest.raises(MessageError):
        World().receive(stray)


def test_time_alone_changes_nothing() -> None:
    world = World()
    world.receive(frame(0))
    assert world.stage.tick(1e9) == []
    world.stage.close()
