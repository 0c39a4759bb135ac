"""Writing updates: what is counted, what is forgotten, and from where to read again."""

from collections.abc import Sequence

import msgspec
import pytest

from moodline.services.aggregator.sink import TimelineSink
from moodline.services.aggregator.stage import AggregatorStage
from moodline.shared.bus.base import OLDEST, Position
from moodline.shared.errors import StoreUnavailableError
from moodline.shared.messages import Emotions, StreamClass
from moodline.shared.metrics import Metrics
from moodline.shared.pipeline.stage import Apply, Output, Received, Rewind
from moodline.shared.settings import AggregatorSettings
from moodline.shared.store.base import ApplyResult, HighWaterMark, Progress, TimelineUpdate
from tests.support.clocks import StillClock

PLACE = ("moodline.emotions.file.v1", 3)


class StubStore:
    """Answers every update as told, and keeps what was asked for."""

    def __init__(self) -> None:
        self.result = ApplyResult.APPLIED
        self.progress: Progress | None = Progress()
        self.applied: list[TimelineUpdate] = []
        self.loads = 0
        self.is_away = False

    def load(self, stream_ids: Sequence[str]) -> list[Progress | None]:
        self.loads += 1
        return [self.progress for _ in stream_ids]

    def apply(self, updates: Sequence[TimelineUpdate]) -> list[ApplyResult]:
        if self.is_away:
            raise StoreUnavailableError("away")
        self.applied += updates
        return [self.result for _ in updates]


class World:
    def __init__(self) -> None:
        self.store, self.metrics = StubStore(), Metrics()
        self.stage = AggregatorStage(self.store.load, AggregatorSettings(), self.metrics)
        self.looked_up: list[tuple[str, int, int]] = []
        self.found: int | None = 4
        self.sink = TimelineSink(self.store, self.metrics, StillClock(12.5), self._offset_at)  # type: ignore[arg-type]

    def _offset_at(self, topic: str, partition: int, time_ms: int) -> int | None:
        self.looked_up.append((topic, partition, time_ms))
        return self.found

    def outputs(self, *streams: str, offset: int = 20, seq: int = 0) -> list[Output]:
        """Return what the stage makes of one frame of each stream, at neighbouring offsets."""
        batch = [Received(frame(stream, seq), Position(*PLACE, offset + n)) for n, stream in enumerate(streams)]
        return self.stage.process(batch, 0.0)

    def write(self, outputs: list[Output]) -> list[Position]:
        """Write, and tell the stage what was refused, as the worker does."""
        written = self.sink.write(outputs)
        self.stage.on_refused(written.refused)
        return written.rewinds

    def value(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0.0


def frame(stream_id: str, seq: int) -> Emotions:
    return Emotions(
        stream_id=stream_id,
        epoch=10,
        seq=seq,
        event_time_us=seq,
        captured_at_us=12_000_000,
        lane=StreamClass.FILE,
        width=1,
        height=1,
    )


def refuse(world: World, result: ApplyResult, progress: Progress | None) -> list[Position]:
    outputs = world.outputs("a")
    world.store.result, world.store.progress = result, progress
    return world.write(outputs)


def test_applied_updates_are_counted_and_their_latency_observed() -> None:
    world = World()
    outputs = world.outputs("a", "b")
    assert world.write(outputs) == []
    assert world.value("moodline_timeline_updates_total", result="applied") == 2
    assert world.value("moodline_end_to_end_seconds_count", lane="file") == 2
    assert world.value("moodline_end_to_end_seconds_sum", lane="file") == pytest.approx(1.0)


def test_capture_time_is_no_part_of_an_update() -> None:
    late, early = World(), World()
    (one,) = late.outputs("a")
    message = msgspec.structs.replace(frame("a", 0), captured_at_us=99)
    (other,) = early.stage.process([Received(message, Position(*PLACE, 20))], 0.0)
    assert isinstance(one, Apply)
    assert one == other


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        (Position(*PLACE, 7), [Position(*PLACE, 8)]),
        (Position(*PLACE, 19), [Position(*PLACE, 20)]),
        (Position(*PLACE, 20), []),
        (Position(*PLACE, 500), []),
        (Position(PLACE[0], 4, 7), [Position(*PLACE, 4)]),
        (None, [Position(*PLACE, 4)]),
    ],
)
def test_a_refused_update_reads_again_from_where_the_store_stands_and_never_forward(
    stored: Position | None, expected: list[Position]
) -> None:
    world = World()
    progress = Progress(high_water_mark=HighWaterMark(10, 3) if stored else None, position=stored, state=b"x")
    assert refuse(world, ApplyResult.STALE, progress) == expected
    assert world.value("moodline_timeline_updates_total", result="stale") == 1
    assert world.value("moodline_end_to_end_seconds_count", lane="file") == 0


def test_a_refused_update_of_a_former_stream_is_not_read_again() -> None:
    assert refuse(World(), ApplyResult.STALE, Progress(min_epoch=11)) == []


def test_a_refused_stream_is_read_from_the_store_before_it_goes_on() -> None:
    for result in (ApplyResult.STALE, ApplyResult.GONE):
        world = World()
        refuse(world, result, Progress())
        loads = world.store.loads
        (again,) = world.outputs("a")
        assert world.store.loads == loads + 1
        assert isinstance(again, Apply)
        assert again.update.expected is None


def test_an_update_of_a_removed_stream_is_counted_and_not_read_again() -> None:
    world = World()
    assert refuse(world, ApplyResult.GONE, None) == []
    assert world.value("moodline_timeline_updates_total", result="gone") == 1
    assert refuse(World(), ApplyResult.STALE, None) == []


def test_rewinds_are_passed_on_the_smallest_of_each_partition() -> None:
    world = World()
    world.store.result = ApplyResult.STALE
    world.store.progress = Progress(high_water_mark=HighWaterMark(10, 0), position=Position(*PLACE, 9), state=b"x")
    elsewhere = Position(PLACE[0], 0, 4)
    update = TimelineUpdate(
        stream_id="a",
        expected=None,
        high_water_mark=HighWaterMark(10, 1),
        final=False,
        position=Position(*PLACE, 30),
        state=b"",
        last_event_time_us=0,
    )
    outputs: list[Output] = [Rewind(Position(*PLACE, 15)), Apply(update), Rewind(elsewhere), Rewind(Position(*PLACE, 12))]
    assert sorted(world.write(outputs)) == sorted([Position(*PLACE, 10), elsewhere])
    assert world.write([Rewind(Position(*PLACE, 5)), Rewind(Position(*PLACE, OLDEST))]) == [Position(*PLACE, OLDEST)]


def test_a_store_out_of_reach_is_the_workers_business_and_writing_can_be_repeated() -> None:
    world = World()
    outputs = world.outputs("a")
    world.store.is_away = True
    with pytest.raises(StoreUnavailableError):
        world.write(outputs)
    world.store.is_away = False
    assert world.write(outputs) == []
    assert [update.high_water_mark for update in world.store.applied] == [HighWaterMark(10, 0)]


def test_where_the_store_names_no_place_it_is_read_again_from_the_session_on_less_a_minute() -> None:
    world = World()
    assert refuse(world, ApplyResult.STALE, Progress()) == [Position(*PLACE, 4)]
    assert world.looked_up == [(*PLACE, 10 - 60_000)]


@pytest.mark.parametrize(("found", "offset"), [(4, 4), (20, 20), (500, 20), (None, 20)])
def test_a_rewind_to_a_time_is_looked_up_and_never_goes_forward(found: int | None, offset: int) -> None:
    world = World()
    world.found = found
    assert world.write([Rewind(Position(*PLACE, 20), 7_000)]) == [Position(*PLACE, offset)]
    assert world.looked_up == [(*PLACE, 7_000)]
    assert world.write([Rewind(Position(*PLACE, 20), 7_000), Rewind(Position(*PLACE, 2))]) == [Position(*PLACE, 2)]
