"""Where the frames of a stream wait, and how a camera whose timeline stands still is said to be stalled."""

import pytest

from moodline.services.ingest.stream.gauges import StreamGauges
from moodline.services.ingest.stream.standstill import WaitingPlace
from moodline.shared.bus import partition_for
from moodline.shared.errors import BusUnavailableError
from moodline.shared.messages import StreamClass
from moodline.shared.metrics import Metrics
from moodline.shared.store import Standing
from moodline.shared.streams import StreamSpec, StreamState, StreamStatus

PARTITIONS = 16


class Bus:
    """Says how much each group has left to do."""

    def __init__(self, **left: int) -> None:
        self.left = left
        self.asked: list[tuple[str, str, int]] = []
        self.now_s = 0.0

    def uncommitted(self, group: str, topic: str, partition: int) -> int:
        self.asked.append((group, topic, partition))
        if not self.left:
            raise BusUnavailableError("away")
        return self.left[group.removeprefix("moodline.")]

    def monotonic_s(self) -> float:
        return self.now_s


def place(bus: Bus) -> WaitingPlace:
    return WaitingPlace(bus.uncommitted, bus, PARTITIONS)  # type: ignore[arg-type]


@pytest.mark.parametrize("worker", ["detector", "classifier", "aggregator"])
def test_the_worker_that_has_most_left_to_do_is_named(worker: str) -> None:
    bus = Bus(**({"detector": 3, "classifier": 0, "aggregator": 2} | {worker: 40}))
    said = place(bus).sentence("cam", StreamClass.LIVE, 12.4)
    assert said.startswith(f"frames were sent, but for 12 s none has reached the timeline: they wait for the {worker}")
    partition = partition_for(b"cam", PARTITIONS)
    assert set(bus.asked) == {
        ("moodline.detector", "moodline.frames.live.v1", partition),
        ("moodline.classifier", "moodline.faces.live.v1", partition),
        ("moodline.aggregator", "moodline.emotions.live.v1", partition),
    }


def test_the_bus_is_asked_every_five_seconds_for_each_partition_and_need_not_answer() -> None:
    bus = Bus()
    where = place(bus)
    for _ in range(3):
        assert where.sentence("cam", StreamClass.LIVE, 12.4).endswith("see whether all workers run")
    assert len(bus.asked) == 1, "it is left alone for a while"
    bus.left, bus.now_s = {"detector": 1, "classifier": 0, "aggregator": 0}, 5.0
    assert "the detector" in where.sentence("cam", StreamClass.LIVE, 12.4)
    bus.left = {"detector": 0, "classifier": 0, "aggregator": 0}
    assert "the detector" in where.sentence("cam", StreamClass.LIVE, 13.4)
    bus.now_s = 10.0
    assert where.sentence("cam", StreamClass.LIVE, 17.4).endswith("see whether all workers run")


def test_a_camera_whose_timeline_stands_still_is_behind_and_not_down() -> None:
    metrics = Metrics()
    gauges, spec = StreamGauges(metrics, None), StreamSpec(stream_id="cam", url="rtsp://camera/1", lane=StreamClass.LIVE)  # type: ignore[arg-type]
    mine = {"cam": spec}

    def poll(state: StreamState, last_frame_us: int, reached_us: int | None) -> float:
        status = StreamStatus(state=state, last_frame_us=last_frame_us)
        gauges.show(mine, {"cam": (status, Standing(last_event_time_us=reached_us))})
        return gauges.behind_s("cam")

    assert poll(StreamState.LIVE, 100_000_000, None) == 0
    assert poll(StreamState.LIVE, 111_000_000, None) == 11, "also one of which nothing ever came through"
    assert poll(StreamState.STALLED, 125_000_000, None) == 25
    assert metrics.registry.get_sample_value("moodline_cameras_down") == 0
    assert poll(StreamState.LIVE, 126_000_000, 125_900_000) == pytest.approx(0.1)
    assert poll(StreamState.STALLED, 126_000_000, 126_000_000) == 0
    assert metrics.registry.get_sample_value("moodline_cameras_down") == 1, "connected, and no frame comes"
