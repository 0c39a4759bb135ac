"""An aggregator that was frozen while another took over writes nothing when it wakes up: on every kind of store."""

from collections.abc import Sequence

import msgspec

from moodline.services.aggregator.sink import TimelineSink
from moodline.services.aggregator.stage import AggregatorStage
from moodline.shared.bus import Position
from moodline.shared.clock import SystemClock
from moodline.shared.messages import Emotions, FaceEmotion, PipelineStep, StreamClass, topic
from moodline.shared.metrics import Metrics
from moodline.shared.pipeline.stage import Output, Received
from moodline.shared.settings import AggregatorSettings
from moodline.shared.store import HighWaterMark, Store, dump
from moodline.shared.streams import StreamSpec
from moodline.shared.timeline import TIERS_S

TOPIC = topic(PipelineStep.EMOTIONS, StreamClass.FILE)
FACE = FaceEmotion((100, 100, 9000, 9000), 60_000, (1, 2, 3, 65_520, 4, 3, 2))


class Aggregator:
    def __init__(self, store: Store) -> None:
        self.metrics = Metrics()
        self.stage = AggregatorStage(store.load, AggregatorSettings(), self.metrics)
        self.sink = TimelineSink(store, self.metrics, SystemClock(), lambda *_: 0)

    def handle(self, batch: Sequence[Received]) -> list[Position]:
        return self.write(self.stage.process(batch, 0.0))

    def write(self, outputs: Sequence[Output]) -> list[Position]:
        written = self.sink.write(outputs)
        self.stage.on_refused(written.refused)
        return written.rewinds

    def updates(self, result: str) -> float:
        return self.metrics.registry.get_sample_value("moodline_timeline_updates_total", {"result": result}) or 0.0


def frames(epoch: int, start: int, stop: int) -> list[Received]:
    return [
        Received(
            Emotions(
                stream_id="s",
                epoch=epoch,
                seq=seq,
                event_time_us=seq * 200_000,
                captured_at_us=0,
                lane=StreamClass.FILE,
                width=640,
                height=360,
                faces=(FACE,),
                model="m",
            ),
            Position(TOPIC, 0, seq),
        )
        for seq in range(start, stop)
    ]


def test_a_zombies_update_is_refused_and_changes_nothing(store: Store) -> None:
    store.add(StreamSpec(stream_id="s", url="file:///x"))
    epoch = store.acquire("s", 1.0).epoch
    frozen, successor = Aggregator(store), Aggregator(store)
    assert frozen.handle(frames(epoch, 0, 10)) == []
    outputs = frozen.stage.process(frames(epoch, 10, 15), 0.0)  # frozen here, before it writes
    assert successor.handle(frames(epoch, 10, 30)) == []
    before = dump(store, "s", TIERS_S)
    assert frozen.write(outputs) == [], "the store is ahead: there is nothing to read again"
    assert frozen.updates("stale") == 1
    assert dump(store, "s", TIERS_S) == before
    assert frozen.handle(frames(epoch, 15, 40)) == [], "it has learnt where the timeline stands, and goes on from there"
    progress = store.load(["s"])[0]
    assert progress is not None
    assert progress.high_water_mark == HighWaterMark(epoch, 39)
    successor.handle(frames(epoch, 30, 35))
    assert successor.updates("stale") == 1, "now the other one is behind"
    undisturbed = Aggregator(store)
    store.add(StreamSpec(stream_id="t", url="file:///x"))
    other = store.acquire("t", 1.0).epoch
    renamed = [Received(msgspec.structs.replace(item.message, stream_id="t"), item.position) for item in frames(other, 0, 40)]
    assert undisturbed.handle(renamed) == []
    assert dump(store, "t", TIERS_S) == dump(store, "s", TIERS_S)
