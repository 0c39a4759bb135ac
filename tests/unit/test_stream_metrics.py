"""Series of single streams are limited, and go with the stream."""

from moodline.services.aggregator.stage import AggregatorStage
from moodline.services.ingest.stream.gauges import StreamGauges
from moodline.shared.bus import Position
from moodline.shared.messages import Emotions, FaceEmotion, StreamClass
from moodline.shared.metrics import Metrics
from moodline.shared.pipeline.stage import Received
from moodline.shared.settings import AggregatorSettings
from moodline.shared.store.base import Progress, Standing
from moodline.shared.streams import StreamSpec, StreamState, StreamStatus
from tests.support.clocks import SleeplessClock


def camera(name: str) -> StreamSpec:
    return StreamSpec(stream_id=name, url="rtsp://camera/1", lane=StreamClass.LIVE)


def status(state: StreamState, last_frame_us: int = 0) -> StreamStatus:
    return StreamStatus(state=state, fps=25.0, last_frame_us=last_frame_us)


def streams_with_series(metrics: Metrics) -> set[str]:
    return {
        sample.labels["stream"] for family in metrics.registry.collect() for sample in family.samples if "stream" in sample.labels
    }


def test_no_more_streams_than_the_limit_have_series_and_a_removed_one_frees_its_place() -> None:
    metrics = Metrics(stream_limit=2)
    gauges = StreamGauges(metrics, SleeplessClock(1000.0, 1000.0))
    mine = {name: camera(name) for name in ("a", "b", "c")}
    gauges.show(mine, {name: (status(StreamState.LIVE), None) for name in mine})
    assert streams_with_series(metrics) == {"a", "b"}
    assert metrics.registry.get_sample_value("moodline_streams", {"state": "live"}) == 3, "the sums are of all"
    del mine["a"]
    gauges.show(mine, {name: (status(StreamState.LIVE), None) for name in mine})
    assert streams_with_series(metrics) == {"b", "c"}
    gauges.forget_all()
    assert streams_with_series(metrics) == set()
    assert metrics.registry.get_sample_value("moodline_streams", {"state": "live"}) == 0


def test_a_stream_is_in_one_state_at_a_time() -> None:
    metrics = Metrics()
    gauges, mine = StreamGauges(metrics, SleeplessClock(1000.0, 1000.0)), {"a": camera("a")}
    for state in (StreamState.LIVE, StreamState.BACKING_OFF):
        gauges.show(mine, {"a": (status(state), None)})
    value = metrics.registry.get_sample_value
    assert value("moodline_stream_state", {"stream": "a", "state": "backing_off"}) == 1
    assert value("moodline_stream_state", {"stream": "a", "state": "live"}) is None
    assert value("moodline_stream_fps", {"stream": "a"}) == 0, "what no frame comes from has no rate"
    assert value("moodline_cameras_down") == 1


def test_files_and_paused_cameras_are_not_down() -> None:
    metrics = Metrics()
    paused = StreamSpec(stream_id="p", url="rtsp://camera/1", lane=StreamClass.LIVE, paused=True)
    file = StreamSpec(stream_id="f", url="file:///f.mp4", lane=StreamClass.FILE)
    known = {name: (status(StreamState.FAILED), None) for name in ("p", "f")}
    StreamGauges(metrics, SleeplessClock(1000.0, 1000.0)).show({"p": paused, "f": file}, known)
    assert metrics.registry.get_sample_value("moodline_cameras_down") == 0
    assert metrics.registry.get_sample_value("moodline_cameras") == 0


def test_the_timeline_that_is_furthest_behind_shows() -> None:
    metrics = Metrics()
    mine = {name: camera(name) for name in ("a", "b", "c")}
    known = {
        "a": status(StreamState.LIVE, 50_000_000),
        "b": status(StreamState.LIVE, 50_000_000),
        "c": status(StreamState.BACKING_OFF, 50_000_000),
    }
    stands = [Standing(last_event_time_us=at_us) for at_us in (49_000_000, 20_000_000, 0)]
    gauges = StreamGauges(metrics, SleeplessClock(1000.0, 1000.0))
    gauges.show(mine, dict(zip(mine, zip(known.values(), stands, strict=True), strict=True)))
    value = metrics.registry.get_sample_value
    assert value("moodline_timeline_behind_seconds") == 30, "a camera that sends nothing is down, not behind"
    assert value("moodline_stream_behind_seconds", {"stream": "a"}) == 1
    gauges.show(mine, {"a": (known["a"], stands[0])})
    assert value("moodline_timeline_behind_seconds") == 30, "what was not looked at is as it was"
    gauges.show(mine, {"b": (known["b"], stands[0])})
    assert value("moodline_timeline_behind_seconds") == 1


def test_emotions_are_counted_for_admitted_streams_alone_and_go_with_the_stream() -> None:
    metrics = Metrics(stream_limit=1)
    stage = AggregatorStage(lambda ids: [Progress() for _ in ids], AggregatorSettings(), metrics)
    happy, sad = ((0, 0, 0, 60_000, 0, 0, 5_535), (0, 0, 0, 0, 60_000, 0, 5_535))
    faces = tuple(
        FaceEmotion((place, 0, place + 9_000, 9_000), 65_535, row) for place, row in ((0, happy), (20_000, happy), (40_000, sad))
    )
    for name in ("a", "b"):
        frame = Emotions(
            stream_id=name, epoch=1, seq=0, event_time_us=0, captured_at_us=0, lane=StreamClass.FILE, width=9, height=9,
            faces=faces, model="m",
        )  # fmt: skip
        stage.process([Received(frame, Position("moodline.emotions.file.v1", 0, 0))], 0.0)
    value = metrics.registry.get_sample_value
    assert value("moodline_stream_emotions_total", {"stream": "a", "emotion": "happy"}) == 2
    assert value("moodline_stream_emotions_total", {"stream": "a", "emotion": "sad"}) == 1
    assert value("moodline_stream_emotions_total", {"stream": "a", "emotion": "fear"}) == 0, "a share needs the others too"
    assert value("moodline_stream_emotions_total", {"stream": "b", "emotion": "happy"}) is None
    assert value("moodline_emotions_total", {"lane": "file", "emotion": "happy"}) == 4, "the sums are of all"
    metrics.of_streams.forget("a")
    assert "moodline_stream_emotions_total{" not in metrics.exposition().decode()
