"""Whatever happens to aggregators, to the bus's deliveries and to the store, a file's timeline comes out byte for byte the same.

A small world: one partition as a list, a store with the seam's fencing, and workers that poll, process, write and commit as the
real loop does. Hypothesis plays fate: it cuts batches, kills workers, wakes up zombies, forgets caches, rolls the store back,
loses records, sends frames twice and under new epochs.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from moodline.services.aggregator.sink import TimelineSink
from moodline.services.aggregator.stage import AggregatorStage
from moodline.shared.bus.base import Position
from moodline.shared.messages import DropReason, Emotions, End, FaceEmotion, StreamClass
from moodline.shared.metrics import Metrics
from moodline.shared.pipeline.stage import Received
from moodline.shared.settings import AggregatorSettings
from moodline.shared.store.base import ApplyResult, HighWaterMark, Progress, TimelineUpdate
from moodline.shared.timeline import SECOND_US, TIERS_S, Bucket, merge_all, unpack
from tests.support.clocks import StillClock

PLACE = ("moodline.emotions.file.v1", 0)
SETTINGS = AggregatorSettings(smoothing_ms=700, track_lost_ms=900)
START_US = 1_777_640_390_000_000  # ten seconds before a full hour, so that every level turns over
Item = Emotions | End
Series = dict[tuple[str, int, int], bytes]


class StubStore:
    """Progress and cells in dictionaries, with the seam's rule.

    An update counts only on the high-water mark that it is based on.
    """

    def __init__(self, stream_ids: Sequence[str]) -> None:
        self.progress = {stream_id: Progress() for stream_id in stream_ids}
        self.bucket_values: dict[str, Series] = {stream_id: {} for stream_id in stream_ids}
        self.stale = 0

    def load(self, stream_ids: Sequence[str]) -> list[Progress | None]:
        return [self.progress.get(stream_id) for stream_id in stream_ids]

    def apply(self, updates: Sequence[TimelineUpdate]) -> list[ApplyResult]:
        return [self._apply(update) for update in updates]

    def _apply(self, update: TimelineUpdate) -> ApplyResult:
        if self.progress[update.stream_id].high_water_mark != update.expected:
            self.stale += 1
            return ApplyResult.STALE
        self.progress[update.stream_id] = Progress(
            high_water_mark=update.high_water_mark,
            final=update.final,
            position=update.position,
            state=update.state,
            last_event_time_us=update.last_event_time_us,
        )
        for series, tier_s, index, value in update.bucket_values:
            self.bucket_values[update.stream_id][series, tier_s, index] = value
        return ApplyResult.APPLIED

    def snapshot(self) -> tuple[dict[str, Progress], dict[str, Series]]:
        return dict(self.progress), {stream_id: dict(bucket_values) for stream_id, bucket_values in self.bucket_values.items()}

    def restore(self, snapshot: tuple[dict[str, Progress], dict[str, Series]]) -> None:
        self.progress, bucket_values = dict(snapshot[0]), snapshot[1]
        self.bucket_values = {stream_id: dict(series) for stream_id, series in bucket_values.items()}


@dataclass
class World:
    store: StubStore
    log: list[Item | None] = field(default_factory=list)
    committed: int = 0


class Worker:
    """Polls, processes, writes, commits, in the order of the real loop."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.restart()

    def restart(self) -> None:
        self.at = self.world.committed
        metrics = Metrics()
        self.stage = AggregatorStage(self.world.store.load, SETTINGS, metrics)
        # All that is in the log was produced since the epoch began.
        self.sink = TimelineSink(self.world.store, metrics, StillClock(), lambda *_: 0)  # type: ignore[arg-type]

    def step(self, records: int, die_before_commit: bool = False) -> bool:
        """Do one turn; False when there was nothing to read."""
        taken = list(enumerate(self.world.log))[self.at : self.at + records]
        batch = [Received(item, Position(*PLACE, offset)) for offset, item in taken if item is not None]
        written = self.sink.write(self.stage.process(batch, now_s=0.0) if batch else [])
        self.stage.on_refused(written.refused)
        rewinds = written.rewinds
        if die_before_commit:
            self.restart()
        elif rewinds:
            (position,) = rewinds
            assert position[:2] == PLACE
            assert position.offset < self.at + records, "never forward"
            self.at = position.offset
        else:
            self.at += len(taken)
            self.world.committed = self.at
        return bool(taken)

    def drain(self, records: int) -> None:
        for _ in range(10_000):
            if not self.step(records):
                return
        raise AssertionError("the worker goes round in circles")


def reference(contents: dict[str, list[Item]]) -> StubStore:
    """Return the store after one undisturbed run."""
    store = StubStore(list(contents))
    Worker(World(store, [item for items in contents.values() for item in items])).drain(1_000)
    return store


BOX = st.tuples(st.integers(0, 3), st.integers(0, 20)).map(
    lambda p: (p[0] * 15_000 + p[1] * 300, 0, p[0] * 15_000 + 9_000, 9_000)
)


@st.composite
def face(draw: st.DrawFn) -> FaceEmotion:
    cuts = sorted(draw(st.lists(st.integers(0, 65_535), min_size=6, max_size=6)))
    values = tuple(high - low for low, high in zip([0, *cuts], [*cuts, 65_535], strict=True))
    return FaceEmotion(draw(BOX), 60_000, values)  # type: ignore[arg-type]


@st.composite
def content(draw: st.DrawFn, stream_id: str, lane: StreamClass = StreamClass.FILE) -> list[Item]:
    """Return a stream's messages under epoch 1, its end included."""
    frames = draw(
        st.lists(
            st.tuples(
                st.sampled_from([0, 40_000, 200_000, 1_000_000, 15_000_000]),
                st.sampled_from([None, None, None, None, DropReason.EXPIRED, DropReason.CORRUPT]),
                st.lists(face(), max_size=3),
            ),
            max_size=14,
        )
    )
    items: list[Item] = []
    at_us = START_US
    for seq, (dt_us, skip, faces) in enumerate(frames):
        at_us += dt_us
        items.append(
            Emotions(
                stream_id=stream_id,
                epoch=1,
                seq=seq,
                event_time_us=at_us,
                captured_at_us=0,
                lane=lane,
                width=1,
                height=1,
                faces=() if skip else tuple(faces),
                skip=skip,
            )
        )
    items.append(
        End(stream_id=stream_id, epoch=1, seq=len(items), event_time_us=at_us, captured_at_us=0, lane=lane),
    )
    return items


def under(epoch: int, items: Sequence[Item]) -> list[Item]:
    return [msgspec.structs.replace(item, epoch=epoch) for item in items]


def interleave(draw: st.DrawFn, sequences: Sequence[Sequence[Item]]) -> list[Item]:
    left = [list(sequence) for sequence in sequences]
    merged = []
    while any(left):
        merged.append(draw(st.sampled_from([sequence for sequence in left if sequence])).pop(0))
    return merged


@st.composite
def sent(draw: st.DrawFn, items: list[Item]) -> list[Item]:
    """Return one stream as its readers sent it.

    Up to three acquisitions, each from somewhere at or before what was sent so far.
    """
    stop = draw(st.integers(0, len(items)))
    out = under(1, items[:stop])
    for epoch in (2, 3):
        start = draw(st.integers(0, stop))
        upto = draw(st.integers(start, len(items)))
        out += under(epoch, items[start:upto])
        stop = max(stop, upto)
    return out


@dataclass(frozen=True)
class Fate:
    kind: str
    worker: int = 0
    records: int = 1


FATES = st.lists(
    st.builds(
        Fate,
        st.sampled_from(["step", "step", "step", "step", "die", "restart", "forget", "snapshot", "rollback"]),
        st.integers(0, 1),
        st.integers(1, 9),
    ),
    max_size=40,
)


@st.composite
def worlds(draw: st.DrawFn) -> tuple[dict[str, list[Item]], list[Item | None]]:
    contents = {stream_id: draw(content(stream_id)) for stream_id in ("a", "b")}
    log: list[Item | None] = list(interleave(draw, [draw(sent(items)) for items in contents.values()]))
    for lost in draw(st.lists(st.integers(0, 60), max_size=3)):
        if lost < len(log):
            log[lost] = None
    return contents, log


def live_through(world: World, fates: list[Fate]) -> Worker:
    workers = (Worker(world), Worker(world))
    kept = world.store.snapshot()
    for fate in fates:
        worker = workers[fate.worker]
        if fate.kind == "step":
            worker.step(fate.records)
        elif fate.kind == "die":
            worker.step(fate.records, die_before_commit=True)
        elif fate.kind == "restart":
            worker.restart()
        elif fate.kind == "forget":
            worker.stage.on_revoked(frozenset({PLACE}))
        elif fate.kind == "snapshot":
            kept = world.store.snapshot()
        else:
            world.store.restore(kept)
    return workers[0]


def read_to_the_end(world: World, worker: Worker, contents: dict[str, list[Item]]) -> None:
    """Let the readers do their part: acquire what is not final and send it again from the high-water mark on."""
    for epoch in range(4, 9):
        worker.drain(7)
        for stream_id, items in contents.items():
            progress = world.store.progress[stream_id]
            if not progress.final:
                world.log += under(epoch, items[progress.high_water_mark.seq + 1 if progress.high_water_mark else 0 :])
    worker.drain(7)


@settings(max_examples=250, deadline=None)
@given(worlds(), FATES)
def test_the_final_timeline_is_that_of_one_undisturbed_run(
    drawn: tuple[dict[str, list[Item]], list[Item | None]], fates: list[Fate]
) -> None:
    contents, log = drawn
    expected = reference(contents)
    world = World(StubStore(list(contents)), log)
    worker = live_through(world, fates)
    read_to_the_end(world, worker, contents)
    assert all(progress.final for progress in world.store.progress.values())
    assert world.store.bucket_values == expected.bucket_values


@settings(max_examples=100, deadline=None)
@given(content("a"), FATES, st.sampled_from(list(StreamClass)))
def test_state_and_cells_of_an_open_stream_do_not_depend_on_batches_or_restarts(
    items: list[Item], fates: list[Fate], lane: StreamClass
) -> None:
    frames = [msgspec.structs.replace(item, lane=lane) for item in items[:-1]]
    expected = reference({"a": frames})
    world = World(StubStore(["a"]), list(frames))
    calm = [replace(fate, kind="step") if fate.kind == "rollback" else fate for fate in fates]
    live_through(world, calm).drain(3)
    assert world.store.bucket_values == expected.bucket_values
    assert world.store.progress["a"].state == expected.progress["a"].state
    assert world.store.progress["a"].high_water_mark == expected.progress["a"].high_water_mark


@settings(max_examples=50, deadline=None)
@given(content("a"))
def test_levels_agree_and_count_every_frame(items: list[Item]) -> None:
    bucket_values = reference({"a": items}).bucket_values["a"]
    by_tier = {
        tier_s: {
            index: unpack(value) for (series, level, index), value in bucket_values.items() if series == "" and level == tier_s
        }
        for tier_s in TIERS_S
    }
    for tier_s in TIERS_S[1:]:
        merged: dict[int, list[Bucket]] = {}
        for index, bucket in by_tier[1].items():
            merged.setdefault(index // tier_s, []).append(bucket)
        assert by_tier[tier_s] == {index: merge_all(parts) for index, parts in merged.items()}
    frames = [item for item in items if isinstance(item, Emotions)]
    whole = merge_all(by_tier[1].values())
    assert whole.final
    assert whole.sampled == len(frames)
    assert whole.skipped[0] == sum(frame.skip is DropReason.EXPIRED for frame in frames)
    assert whole.classified == sum(frame.skip is None for frame in frames)
    assert whole.frames_with_faces == sum(bool(frame.faces) for frame in frames)
    assert whole.faces == sum(len(frame.faces) for frame in frames) == sum(whole.leading)
    assert sum(whole.raw) == sum(whole.smoothed) == 65_535 * whole.faces
    assert whole.tracks_begun == sum(series == "tracks" for series, _, _ in bucket_values)
    assert set(by_tier[1]) == {frame.event_time_us // SECOND_US for frame in frames}


def test_a_zombie_that_wakes_up_changes_nothing_and_goes_on_from_the_truth() -> None:
    items: list[Item] = [
        Emotions(
            stream_id="a",
            epoch=1,
            seq=seq,
            event_time_us=START_US + seq * 200_000,
            captured_at_us=0,
            lane=StreamClass.FILE,
            width=1,
            height=1,
            faces=(FaceEmotion((0, 0, 9_000, 9_000), 1, (0, 0, 0, 65_535, 0, 0, 0)),),
        )
        for seq in range(40)
    ]
    world = World(StubStore(["a"]), list(items))
    zombie, owner = Worker(world), Worker(world)
    zombie.step(10)
    owner.restart()
    owner.drain(5)
    before = world.store.snapshot()
    zombie.step(4)
    assert world.store.stale == 1
    assert world.store.snapshot() == before
    zombie.drain(4)
    assert world.store.snapshot() == before
    assert world.store.progress["a"].high_water_mark == HighWaterMark(1, 39)
    assert world.store.bucket_values == reference({"a": items}).bucket_values


def test_a_store_that_lost_its_last_writes_heals_from_the_position_kept_with_the_mark() -> None:
    contents = {"a": [*reference_frames(30), end_after(30)]}
    world = World(StubStore(["a"]), list(contents["a"]))
    worker = Worker(world)
    worker.step(8)
    kept = world.store.snapshot()
    worker.step(8)
    worker.step(8)
    world.store.restore(kept)
    worker.drain(8)
    assert world.store.stale == 1
    assert world.store.progress["a"].final
    assert world.store.bucket_values == reference(contents).bucket_values


def reference_frames(count: int) -> list[Item]:
    return [
        Emotions(
            stream_id="a",
            epoch=1,
            seq=seq,
            event_time_us=START_US + seq,
            captured_at_us=0,
            lane=StreamClass.FILE,
            width=1,
            height=1,
        )
        for seq in range(count)
    ]


def end_after(count: int) -> End:
    return End(stream_id="a", epoch=1, seq=count, event_time_us=START_US + count, captured_at_us=0, lane=StreamClass.FILE)
